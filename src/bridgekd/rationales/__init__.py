"""Which rationales a student learns from. Pure functions: no file, no model."""
