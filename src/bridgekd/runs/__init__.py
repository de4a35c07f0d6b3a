"""Runs: the run that a method works in, finished runs, and questions to their models."""
