"""The command line: commands (parse, call, print) and `render_*.py` (text for the terminal)."""
