"""The server's books: what arrived, what was served and what it was billed.

The one idea: live calls and batches write into the same books, so a test compares a client's
ledger with one number. Safe between threads.
"""

import threading
from collections import Counter
from typing import Any

from bridgekd.cost.request_cost import compute_cost_microusd
from bridgekd.recipe import Price
from bridgekd.sandbox.fake_teacher import FakeUsage

SANDBOX_PRICE = Price(input=2.5, output=10.0)
BATCH_PRICE = Price(input=SANDBOX_PRICE.input / 2, output=SANDBOX_PRICE.output / 2)


class BillingCounters:
    """`calls` and `served` count by `request_key`; `billed` is micro-dollars.

    `calls` counts every arrival, `served` those that were billed, whether or not the client got
    them; `throttled` is how many arrivals were over the rate. These are no attempts, so that the
    faults drawn do not depend on a client's pace.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.served: Counter[str] = Counter()
        self.throttled = 0
        self.billed = 0
        self._attempts: Counter[str] = Counter()  # arrivals that the rate let in
        self._n_taken = 0  # calls within the quota
        self._lock = threading.Lock()

    def count_request(self, key: str) -> int:
        """Counts an arrival and says which attempt at this request it is, from 1 on."""
        with self._lock:
            self.calls[key] += 1
            self._attempts[key] += 1
            return self._attempts[key]

    def count_rate_limited(self, key: str) -> None:
        """Counts an arrival over the rate."""
        with self._lock:
            self.calls[key] += 1
            self.throttled += 1

    def take_quota(self, quota: int | None) -> bool:
        """Whether one call more is within the quota, which it then uses."""
        with self._lock:
            is_within = quota is None or self._n_taken < quota
            self._n_taken += is_within
            return is_within

    def add_cost(self, key: str, usage: FakeUsage, price: Price) -> None:
        """Enters an answer."""
        with self._lock:
            self.served[key] += 1
            self.billed += compute_cost_microusd(price, usage.prompt, usage.completion)

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON."""
        with self._lock:
            return {
                "n_calls": self.calls.total(),
                "n_served": self.served.total(),
                "n_throttled": self.throttled,
                "billed_microusd": self.billed,
                "calls": dict(self.calls),
                "served": dict(self.served),
            }
