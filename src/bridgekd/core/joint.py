"""What several purchases come to together, where calls that they share are paid once.

What this keeps true: `floor` and `ceiling` are sure; `low` to `high` holds the bill wherever the
intervals it is made from hold theirs, however far choices that are still to be made overlap. So
the low end is that of the dearest purchase alone and the high end that of all apart.
"""

from collections.abc import Sequence
from dataclasses import replace

from bridgekd.core.bounds import Bounds
from bridgekd.core.forecast import Forecast


def together(
    alone: Sequence[Forecast],
    known: Sequence[Forecast],
    apart: Sequence[Forecast],
    *,
    everything: Forecast | None = None,
    room_microusd: int | None = None,
) -> Forecast:
    """The new money of all purchases, `alone` being each by itself.

    `known` are purchases that share no call and hold every call of those that are chosen; `apart`
    are those of which nobody knows what they share, without any that lies inside another;
    `everything` is each call that there can be, once. Without a price there is no bill.
    """
    parts = [*known, *apart]
    n = sum(f.n_queries for f in parts)
    told = Forecast(
        n_queries=n if everything is None else min(n, everything.n_queries),
        n_already=sum(f.n_already for f in known),
        already_microusd=sum(f.already_microusd for f in known),
        basis=alone[0].basis if alone else "nothing",
        n_known=max((f.n_known for f in alone), default=0),
    )
    singly, joined = ([f.new for f in fs if f.new is not None] for fs in (alone, parts))
    if len(singly) < len(alone) or len(joined) < len(parts) or not alone:
        return told
    cap = None if everything is None else everything.new
    ceiling = sum(b.ceiling for b in joined)
    ceiling = ceiling if cap is None else min(ceiling, cap.ceiling)
    ceiling = ceiling if room_microusd is None else min(ceiling, max(0, room_microusd))
    floor = max([sum(b.floor for b in joined[: len(known)]), *(b.floor for b in singly)])
    floor = min(ceiling, floor)
    bounds = Bounds(floor, ceiling, *_interval(singly, joined, len(known), cap, (floor, ceiling)))
    return replace(told, new=bounds)


def _interval(
    singly: Sequence[Bounds],
    joined: Sequence[Bounds],
    n_known: int,
    cap: Bounds | None,
    sure: tuple[int, int],
) -> tuple[int | None, int | None, int | None]:
    """(low, expected, high); the first `n_known` of `joined` share nothing, so they add up."""
    lows = [b.low for b in (*singly, *joined) if b.low is not None]
    highs = [b.high for b in joined if b.high is not None]
    if len(lows) < len(singly) + len(joined) or len(highs) < len(joined):
        return None, None, None
    low = max([sum(lows[len(singly) : len(singly) + n_known]), *lows[: len(singly)]])
    high = sum(highs)
    if cap is not None and cap.high is not None:
        high = min(high, cap.high)
    middles = [b.expected for b in joined if b.expected is not None]
    is_told = n_known == len(joined) == len(middles)
    low, high = (min(max(end, sure[0]), sure[1]) for end in (low, high))
    return min(low, high), sum(middles) if is_told else None, high
