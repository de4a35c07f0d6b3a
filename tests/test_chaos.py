"""Buyings killed at random and at the worst instants, started again, and what is left of them.

A world is one server, one ledger and one buying. Its buyer is killed (SIGKILL), the same buying is
started again in a new process, and so on until it is done; then comes the next world. Here are 20
kills, in `make chaos` 200 (CHAOS_KILLS); CHAOS_SEED draws others. The kinds of kill:

    start      in the first 40 ms: opening, making the tables, settling what the last life left
    random     at any time of the life that is to be expected
    reserved   as the file shows the n-th new row: most of its group is not yet sent
    arrival    sent and not yet served: as the n-th call of this life arrives at the server
    served     billed and not yet sent back
    sent       within 5 ms after that: the answer is read, recorded, settled
    recorded   as the file shows a response that is written and not yet settled
    told       settled: as the buyer says that it has so many rows
    quiet      as the server has fallen silent and the buyer has nothing left to do but to write

No ledger can have an answer that its process read a microsecond before it was killed. So it is not
asserted that every answer sent is in the ledger, but, one test a rule, over all worlds and after
every kill:

    no billed call is missing: it is a final row, or one that is held at its reserve
    an answer sent to a buyer that lives on is written, without waiting for any other answer
    every row that the buyer said it had is there
    what is there, settled or only recorded, is never asked for again, and never changes
    rows, costs, charge and end are those of a buyer that nobody killed
    the total held covers what the server billed and never passes the hard stop

A kill is not a power cut: what the operating system was given by then, it keeps.
"""

import os
import random
import time
from collections import Counter, defaultdict
from itertools import pairwise

import pytest

from bridgekd.teacher.scheduler import RESERVE_AHEAD
from chaos_campaign import KINDS, CampaignRunner, KillSchedule
from chaos_invariants import FINAL
from chaos_process import CONCURRENCY, RESERVE, ProcessStarter

KILLS = int(os.environ.get("CHAOS_KILLS", "20"))
SEED = int(os.environ.get("CHAOS_SEED", "0"))
KILLS_PER_WORLD = 5


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """The whole campaign: as many worlds as it takes to kill so often."""
    dice, started, found = random.Random(f"chaos {SEED}"), time.monotonic(), []
    kinds, n_left = KillSchedule(dice), KILLS
    with ProcessStarter(tmp_path_factory.mktemp("nursery")) as nursery:
        while n_left:
            folder = tmp_path_factory.mktemp("world")
            world = CampaignRunner(folder, nursery, len(found), dice).world(
                kinds, min(n_left, KILLS_PER_WORLD)
            )
            found.append(world)
            n_left -= len(killed([world]))
    print("\n" + summary(found, time.monotonic() - started))
    return found


def killed(worlds):
    return [life for world in worlds for life in world.lives if life.stop_reason == "killed"]


def left_open(world):
    """How far each attempt had come that a kill cut short."""
    for life in killed([world]):
        for row in life.attempts:
            if row.state == "reserved":
                sent = "sent" if (life.number, row.name) in world.arrived else "not sent"
                yield "recorded" if row.arrived else sent


def summary(worlds, seconds):
    lives = [life for world in worlds for life in world.lives[:-1]]
    kinds = Counter(life.kind for life in killed(worlds))
    missed = Counter(life.kind for life in lives if life.kind and life.stop_reason != "killed")
    open_rows = Counter(what for world in worlds for what in left_open(world))
    states = Counter(row.state for world in worlds for row in world.lives[-1].attempts)
    n_sent = sum(world.calls.total() for world in worlds)
    n_billed = sum(world.served.total() for world in worlds)
    lines = (
        f"seed {SEED}: {len(killed(worlds))} kills in {len(worlds)} worlds, {seconds:.1f} s",
        "kills: " + ", ".join(f"{kind} {n}" for kind, n in sorted(kinds.items())),
        "came too late: " + (", ".join(f"{k} {n}" for k, n in sorted(missed.items())) or "none"),
        "open at the kills: " + ", ".join(f"{what} {n}" for what, n in sorted(open_rows.items())),
        f"stopped by the hard stop: {sum(life.stop_reason == 'stopped' for life in lives)}",
        "attempts: " + ", ".join(f"{state} {n}" for state, n in sorted(states.items())),
        f"at the servers: {n_sent} calls, {n_billed} billed",
        f"billed and dropped by the server: {sum(w.dropped.total() for w in worlds)}",
        f"billed in vain, the answer died with the process: "
        f"{sum(w.n_paid_in_vain for w in worlds)}",
    )
    return "\n".join(f"chaos: {line}" for line in lines)


def test_the_campaign_killed_in_every_way(worlds):
    lives = [life for world in worlds for life in world.lives]
    assert len(killed(worlds)) == KILLS
    assert {life.kind for life in killed(worlds)} >= set(KINDS) - {"recorded"}
    assert {world.bought.stop_reason for world in worlds} == {"queries", "usd", "pool"}
    assert any(life.stop_reason == "stopped" for life in lives)
    assert any(life.n_in("unknown") for life in lives)


def test_no_call_is_sent_before_its_row_is_written(worlds):
    for world in worlds:
        assert world.wrongs == ()  # seen from the server as each call arrived and was billed
        for life in world.lives:
            rows = Counter(row.name for row in life.attempts)
            sent = Counter(name for number, name in world.arrived if number <= life.number)
            assert sent <= rows


def test_every_billed_call_is_a_final_row_or_held_as_lost(worlds):
    for world in worlds:
        last = world.lives[-1]
        billed = [row.name for row in last.attempts if row.state not in ("failed", "refused")]
        assert world.served <= Counter(billed)


def test_what_is_held_covers_the_bill_and_never_passes_the_hard_limit(worlds):
    for world in worlds:
        for life in world.lives:
            assert life.billed <= life.total_reserved == sum(row.held for row in life.attempts)
            assert life.stop is None or life.total_reserved <= life.stop
            if (
                life.stop_reason == "stopped"
            ):  # because nothing more fitted, not for want of patience
                assert life.total_reserved + RESERVE > life.stop


def test_an_answer_sent_to_a_buyer_that_lives_on_is_written(worlds):
    assert [life.unwritten for life in killed(worlds) if life.unwritten] == []


def test_every_row_that_a_buyer_said_it_had_is_in_the_ledger(worlds):
    for life in killed(worlds):
        assert life.told <= life.n_in(*FINAL)


def test_what_arrived_is_never_asked_for_again(worlds):
    for world in worlds:
        assert world.n_calls[1] == world.n_calls[0]  # the same buying once more, when all was done
        for life in world.lives:
            arrived = {row.name for row in life.attempts if row.arrived}
            later = {name for number, name in world.arrived if number > life.number}
            assert arrived & later == set()
        attempts = defaultdict(list)
        for row in world.lives[-1].attempts:
            attempts[row.key].append(row.state)
        for states in attempts.values():  # in the order in which they were opened
            assert not set(states[:-1]) & set(FINAL)


def test_what_was_recorded_and_not_settled_is_settled_by_what_it_says(worlds):
    for world in worlds:
        last = {row.id: row for row in world.lives[-1].attempts}
        for life in world.lives:
            for row in life.attempts:
                assert not row.arrived or last[row.id].state in FINAL


def promised(row):
    """What is written of an attempt before it is sent."""
    call = (row.key, row.run, row.purpose, row.model, row.request)
    return (*call, row.reserve_microusd, row.created_at)


def test_nothing_that_is_settled_changes_and_nothing_is_forgotten(worlds):
    for world in worlds:
        for earlier, later in pairwise(world.lives):
            rows = {row.id: row for row in later.attempts}
            for row in earlier.attempts:
                now = rows[row.id]
                assert now == row or row.state == "reserved"
                assert promised(now) == promised(row)
                assert row.raw_response in (None, now.raw_response)


def test_a_kill_loses_no_more_than_what_was_in_flight(worlds):
    for world in worlds:
        for life in world.lives:
            most = CONCURRENCY * (1 + RESERVE_AHEAD) if life.stop_reason == "killed" else 0
            assert life.n_in("reserved") <= most


def test_the_rows_are_those_of_an_undisturbed_buying(worlds):
    for world in worlds:
        for bought in (world.bought, world.again):
            assert bought.completions == world.calm.completions
            assert (bought.stop_reason, bought.charged_microusd, bought.charged_tokens) == (
                world.calm.stop_reason,
                world.calm.charged_microusd,
                world.calm.charged_tokens,
            )
        keys = {row.key for row in world.lives[-1].final().values()}
        assert keys == {row.key for row in world.calm.completions}


def test_lost_calls_are_charged_to_the_hard_limit_and_not_to_the_run(worlds):
    for world in worlds:
        last = world.lives[-1]
        n_lost = last.n_in("unknown", "unparsable")
        assert last.total_reserved == world.bought.charged_microusd + RESERVE * n_lost


def test_spend_adds_up_to_the_attempts(worlds):
    for world in worlds:
        for life in world.lives:
            sums = defaultdict(lambda: [0, 0, 0, 0])
            for row in life.attempts:
                total = sums[row.run, row.purpose, row.model, row.state]
                amounts = (1, row.n_prompt_tokens or 0, row.n_completion_tokens or 0, row.held)
                total[:] = map(sum, zip(total, amounts, strict=True))
            assert {
                (line.run, line.purpose, line.model, line.state): [
                    line.n_attempts,
                    line.n_prompt_tokens,
                    line.n_completion_tokens,
                    line.reserved_microusd,
                ]
                for line in life.spend
            } == sums
