"""Every paid request in one SQLite file: its rows, its file, and reports about it."""
