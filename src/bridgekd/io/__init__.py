"""Artifacts, row files, data sets, recipes, and the models of the user on disk."""
