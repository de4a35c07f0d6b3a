"""Deciding, and nothing else: no disk, no network, no database, no torch."""
