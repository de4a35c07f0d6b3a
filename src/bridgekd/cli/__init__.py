"""The command line: commands that parse, call and print, and `render_*.py` for the terminal."""
