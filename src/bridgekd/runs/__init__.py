"""Runs: what a method sees, a finished run read back, and questions to its models."""
