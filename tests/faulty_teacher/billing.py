"""The billing counters of the server: what arrived, what was served and what it cost.

Live requests and batches use the same counters, so a test compares the ledger of a client with one
number. Safe for threads.
"""

import threading
from collections import Counter

from bridgekd.cost.request_cost import compute_cost_microusd
from bridgekd.recipe import Price
from bridgekd.sandbox.teacher_server import JsonObject
from faulty_teacher.answers import FakeUsage

SANDBOX_PRICE = Price(input=2.5, output=10.0)
BATCH_PRICE = Price(input=SANDBOX_PRICE.input / 2, output=SANDBOX_PRICE.output / 2)


class BillingCounters:
    """`calls` counts every arrival of a request by its hash; `served` counts those that were
    billed, even if the client did not receive the answer. `billed_microusd` is their cost.

    `n_rate_limited` arrivals were over the rate limit. They are no attempts, so the faults do not
    depend on the speed of a client.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.served: Counter[str] = Counter()
        self.n_rate_limited = 0
        self.billed_microusd = 0
        self._attempts: Counter[str] = Counter()
        self._n_within_quota = 0
        self._lock = threading.Lock()

    def count_request(self, key: str) -> int:
        """Count an arrival and return the number of this attempt, from 1."""
        with self._lock:
            self.calls[key] += 1
            self._attempts[key] += 1
            return self._attempts[key]

    def count_rate_limited(self, key: str) -> None:
        """Count an arrival over the rate limit."""
        with self._lock:
            self.calls[key] += 1
            self.n_rate_limited += 1

    def take_quota(self, quota: int | None) -> bool:
        """Return whether one more request is within the quota, and use the quota."""
        with self._lock:
            is_within = quota is None or self._n_within_quota < quota
            self._n_within_quota += is_within
            return is_within

    def add_cost(self, key: str, usage: FakeUsage, price: Price) -> None:
        """Add the cost of an answer."""
        with self._lock:
            self.served[key] += 1
            self.billed_microusd += compute_cost_microusd(price, usage.prompt, usage.completion)

    def to_json(self) -> JsonObject:
        """Return all counters as JSON."""
        with self._lock:
            return {
                "n_calls": self.calls.total(),
                "n_served": self.served.total(),
                "n_rate_limited": self.n_rate_limited,
                "billed_microusd": self.billed_microusd,
                "calls": dict(self.calls),
                "served": dict(self.served),
            }
