"""Pure: what a budget admits."""
