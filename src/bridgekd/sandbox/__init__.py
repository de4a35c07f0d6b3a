"""A small world in which everything runs offline: questions, a teacher's server, tiny models."""
