"""Which questions to pay for: strategies that rank the pool, by difficulty and by diversity.

Everything here is a pure function of arrays. A strategy is one file of `selection.strategies`.
"""
