"""Purchases answers of the teacher in rank order, over any transport."""
