"""The cost of teacher requests, before they are sent. Pure arithmetic."""
