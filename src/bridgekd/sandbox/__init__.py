"""A small offline world: questions, a teacher server, and tiny models."""
