"""The disk, data files and what a user provides."""
