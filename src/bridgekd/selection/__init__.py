"""Select questions for the teacher: strategies rank the pool by difficulty and by diversity.

All functions here are pure functions of arrays. A strategy is one file of `selection.strategies`.
"""
