"""The plan of a run before it starts: its stages, cost and duration."""
