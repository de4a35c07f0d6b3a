"""From a story (numbers and texts) to a page."""
