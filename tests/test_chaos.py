"""Purchases that are killed at random and at the worst moments, and started again.

A campaign is one server, one ledger and one purchase. Its process is killed (SIGKILL) and the same
purchase starts again in a new process, until it is done. The test has 20 kills, `make chaos` has
200 (CHAOS_KILLS); CHAOS_SEED selects others. The kinds of kill:

    start      in the first 40 ms: open the file, create tables, settle what the last process left
    random     at any time of the expected duration
    reserved   when the file shows the n-th new row: most of its group is not yet sent
    arrival    sent and not yet served: when the n-th request of this process arrives
    served     billed and not yet sent back
    sent       within 5 ms after that: the answer is read, recorded, settled
    recorded   when the file shows a response that is recorded and not yet settled
    reported   settled: when the process reports this number of rows
    quiet      when the server is silent and the process has nothing left to do except to write

No ledger can have an answer that its process read a microsecond before the kill. So no test needs
every sent answer to be in the ledger. These are the rules, one test each, over all campaigns and
after every kill:

    no billed request is missing: it is a final row, or stays at its reserve
    an answer to a process that is not killed is written, without waiting for another answer
    every row that the process reported is there
    an answer that is there, settled or only recorded, is never requested again and never changes
    rows, costs, charge and end are those of a purchase without kills
    the reserved total covers what the server billed and never passes the hard limit

A kill is not a power cut: the operating system keeps what it had received.
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
KILLS_PER_CAMPAIGN = 5


@pytest.fixture(scope="module")
def campaigns(tmp_path_factory):
    """Return as many campaigns as this number of kills takes."""
    rng, started, campaigns = random.Random(f"chaos {SEED}"), time.monotonic(), []
    kinds, n_left = KillSchedule(rng), KILLS
    with ProcessStarter(tmp_path_factory.mktemp("starter")) as starter:
        while n_left:
            folder = tmp_path_factory.mktemp("campaign")
            campaign = CampaignRunner(folder, starter, len(campaigns), rng).run(
                kinds, min(n_left, KILLS_PER_CAMPAIGN)
            )
            campaigns.append(campaign)
            n_left -= len(get_killed([campaign]))
    print("\n" + summarize(campaigns, time.monotonic() - started))
    return campaigns


def get_killed(campaigns):
    return [
        process
        for campaign in campaigns
        for process in campaign.processes
        if process.stop_reason == "killed"
    ]


def iter_open_attempts(campaign):
    """Yield how far each attempt was that a kill interrupted."""
    for process in get_killed([campaign]):
        for row in process.attempts:
            if row.state == "reserved":
                sent = "sent" if (process.number, row.name) in campaign.arrived else "not sent"
                yield "recorded" if row.arrived else sent


def summarize(campaigns, seconds):
    processes = [process for campaign in campaigns for process in campaign.processes[:-1]]
    kinds = Counter(process.kind for process in get_killed(campaigns))
    missed = Counter(
        process.kind for process in processes if process.kind and process.stop_reason != "killed"
    )
    open_rows = Counter(what for campaign in campaigns for what in iter_open_attempts(campaign))
    states = Counter(row.state for campaign in campaigns for row in campaign.processes[-1].attempts)
    n_sent = sum(campaign.calls.total() for campaign in campaigns)
    n_billed = sum(campaign.served.total() for campaign in campaigns)
    n_kills, n_stopped = (
        len(get_killed(campaigns)),
        sum(p.stop_reason == "stopped" for p in processes),
    )
    lines = (
        f"seed {SEED}: {n_kills} kills in {len(campaigns)} campaigns, {seconds:.1f} s",
        "kills: " + ", ".join(f"{kind} {n}" for kind, n in sorted(kinds.items())),
        "too late: " + (", ".join(f"{k} {n}" for k, n in sorted(missed.items())) or "none"),
        "open at the kills: " + ", ".join(f"{what} {n}" for what, n in sorted(open_rows.items())),
        f"stopped by the hard limit: {n_stopped}",
        "attempts: " + ", ".join(f"{state} {n}" for state, n in sorted(states.items())),
        f"at the servers: {n_sent} requests, {n_billed} billed",
        f"billed and dropped by the server: {sum(w.dropped.total() for w in campaigns)}",
        f"billed, but the answer was lost with the process: "
        f"{sum(w.n_lost_answers for w in campaigns)}",
    )
    return "\n".join(f"chaos: {line}" for line in lines)


def test_the_campaign_killed_in_every_way(campaigns):
    processes = [process for campaign in campaigns for process in campaign.processes]
    assert len(get_killed(campaigns)) == KILLS
    assert {process.kind for process in get_killed(campaigns)} >= set(KINDS) - {"recorded"}
    assert {campaign.result.stop_reason for campaign in campaigns} == {"queries", "usd", "pool"}
    assert any(process.stop_reason == "stopped" for process in processes)
    assert any(process.n_in("unknown") for process in processes)


def test_no_request_is_sent_before_its_row_is_written(campaigns):
    for campaign in campaigns:
        assert campaign.errors == ()  # as the server saw it at each arrival and each cost
        for process in campaign.processes:
            rows = Counter(row.name for row in process.attempts)
            sent = Counter(name for number, name in campaign.arrived if number <= process.number)
            assert sent <= rows


def test_every_billed_request_is_a_final_row_or_stays_reserved(campaigns):
    for campaign in campaigns:
        last = campaign.processes[-1]
        billed = [row.name for row in last.attempts if row.state not in ("failed", "refused")]
        assert campaign.served <= Counter(billed)


def test_the_reserved_total_covers_the_cost_and_never_passes_the_hard_limit(campaigns):
    for campaign in campaigns:
        for process in campaign.processes:
            assert (
                process.billed
                <= process.total_reserved
                == sum(row.held for row in process.attempts)
            )
            assert process.stop is None or process.total_reserved <= process.stop
            if process.stop_reason == "stopped":  # because nothing more fits
                assert process.total_reserved + RESERVE > process.stop


def test_an_answer_sent_to_a_buyer_that_lives_on_is_written(campaigns):
    assert [process.unsaved for process in get_killed(campaigns) if process.unsaved] == []


def test_every_row_that_a_buyer_said_it_had_is_in_the_ledger(campaigns):
    for process in get_killed(campaigns):
        assert process.n_reported <= process.n_in(*FINAL)


def test_what_arrived_is_never_requested_again(campaigns):
    for campaign in campaigns:
        assert campaign.n_calls[1] == campaign.n_calls[0]  # the same purchase once more
        for process in campaign.processes:
            arrived = {row.name for row in process.attempts if row.arrived}
            later = {name for number, name in campaign.arrived if number > process.number}
            assert arrived & later == set()
        attempts = defaultdict(list)
        for row in campaign.processes[-1].attempts:
            attempts[row.key].append(row.state)
        for states in attempts.values():  # in the order of their reservation
            assert not set(states[:-1]) & set(FINAL)


def test_what_was_recorded_and_not_settled_is_settled_by_what_it_says(campaigns):
    for campaign in campaigns:
        last = {row.id: row for row in campaign.processes[-1].attempts}
        for process in campaign.processes:
            for row in process.attempts:
                assert not row.arrived or last[row.id].state in FINAL


def get_reserved_fields(row):
    """Return the fields of an attempt that are written before it is sent."""
    call = (row.key, row.run, row.purpose, row.model, row.request)
    return (*call, row.reserve_microusd, row.created_at)


def test_nothing_that_is_settled_changes_and_nothing_is_forgotten(campaigns):
    for campaign in campaigns:
        for earlier, later in pairwise(campaign.processes):
            rows = {row.id: row for row in later.attempts}
            for row in earlier.attempts:
                now = rows[row.id]
                assert now == row or row.state == "reserved"
                assert get_reserved_fields(now) == get_reserved_fields(row)
                assert row.raw_response in (None, now.raw_response)


def test_a_kill_loses_no_more_than_what_was_in_flight(campaigns):
    for campaign in campaigns:
        for process in campaign.processes:
            max_reserved = (
                CONCURRENCY * (1 + RESERVE_AHEAD) if process.stop_reason == "killed" else 0
            )
            assert process.n_in("reserved") <= max_reserved


def test_the_rows_are_those_of_an_undisturbed_purchase(campaigns):
    for campaign in campaigns:
        for result in (campaign.result, campaign.again):
            assert result.completions == campaign.calm.completions
            assert (result.stop_reason, result.charged_microusd, result.charged_tokens) == (
                campaign.calm.stop_reason,
                campaign.calm.charged_microusd,
                campaign.calm.charged_tokens,
            )
        keys = {row.key for row in campaign.processes[-1].final().values()}
        assert keys == {row.key for row in campaign.calm.completions}


def test_lost_requests_are_charged_to_the_hard_limit_and_not_to_the_run(campaigns):
    for campaign in campaigns:
        last = campaign.processes[-1]
        n_lost = last.n_in("unknown", "unparsable")
        assert last.total_reserved == campaign.result.charged_microusd + RESERVE * n_lost


def test_spend_adds_up_to_the_attempts(campaigns):
    for campaign in campaigns:
        for process in campaign.processes:
            sums = defaultdict(lambda: [0, 0, 0, 0])
            for row in process.attempts:
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
                for line in process.spend
            } == sums
