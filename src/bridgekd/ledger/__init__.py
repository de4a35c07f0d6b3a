"""Every paid call, in one SQLite file: its rows, its file, and what people read off it."""
