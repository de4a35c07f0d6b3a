r"""Whether plan's 95 % interval, made from 20 answers of a set, holds the bill of all its answers.

    BRIDGEKD_DATA=FOLDER python benchmarks/real/forecast_recorded.py [--draws 40] [--largest 2000]

Each recorded set is bought anew by arithmetic: 20 of its questions, drawn at random, are known, the
forecast of the others is asked for, and their recorded answers say what they cost. Tokens are
pieces of the recorded texts (up to six letters or digits, or one other sign): no tokenizer of the
recorded models is at hand, and lengths are what is to be foreseen. Of sets with more questions
than `--largest`, so many are drawn. Of several samples a question the first counts. The
method was developed with seeds from 1000 up; seeds below are for reports.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from grading_agreement import MENTOR, Set, list_sets, reader
from importers import RecordedRow, read_mentor_kd

from bridgekd.cost.bounds import CostBounds, plan_requests
from bridgekd.cost.forecast import forecast_cost
from bridgekd.cost.request_cost import compute_cost_microusd
from bridgekd.cost.token_lengths import KnownUsage, LengthEvidence
from bridgekd.prompts import render_teacher_prompt
from bridgekd.recipe import Price
from bridgekd.records import Example, Message
from bridgekd.stats.intervals import wilson_interval

PRICE = Price(input=0.5, output=1.5)
MAX_TOKENS = 512
Call = tuple[tuple[Message, ...], KnownUsage]


def list_all_sets(data: Path) -> Iterator[Set]:
    """The recorded sets of grading_agreement.py, and GPT-3.5's chains."""
    for task, kind in MENTOR.items():
        path = data / f"mentor-kd/data/main/{task}_3_train.json.gz"
        if path.is_file():
            yield f"GPT-3.5 {task}", kind, reader(path, read_mentor_kd)
    yield from list_sets(data)


def list_calls(rows: Iterator[RecordedRow], largest: int, rng: np.random.Generator) -> list[Call]:
    """What each question would be asked as, and what its first answer was billed."""
    first = [row for row in rows if row.text is not None and row.sample == 0]
    if len(first) > largest:
        first = [first[i] for i in sorted(rng.choice(len(first), largest, replace=False))]
    calls = []
    for row in first:
        messages = render_teacher_prompt(Example("", row.question, None, row.choices))
        n_bytes = sum(len(m.content.encode()) for m in messages)
        n_prompt = sum(count_tokens(m.content) for m in messages)
        n_answer = count_tokens(row.text or "")
        cut = n_answer > MAX_TOKENS
        calls.append(
            (messages, KnownUsage(n_bytes, n_prompt, min(n_answer, MAX_TOKENS), is_truncated=cut))
        )
    return calls


def count_tokens(text: str) -> int:
    """Pieces of a text."""
    return len(re.findall(r"\w{1,6}|[^\w\s]", text))


def compare_with_truth(calls: Sequence[Call], known: Sequence[int]) -> tuple[CostBounds, int]:
    """The bill of the others, as foreseen from the known ones, and as it came."""
    held = set(known)
    others = [call for i, call in enumerate(calls) if i not in held]
    predicted = forecast_cost(
        plan_requests([messages for messages, _ in others], PRICE, MAX_TOKENS),
        price=PRICE,
        max_tokens=MAX_TOKENS,
        ordered=True,
        evidence=LengthEvidence("answers", [calls[i][1] for i in known]),
    )
    bills = (
        compute_cost_microusd(PRICE, u.n_prompt_tokens, u.n_completion_tokens) for _, u in others
    )
    assert predicted.total is not None
    return predicted.total, sum(bills)


def print_table(
    name: str, calls: Sequence[Call], draws: Sequence[Sequence[int]]
) -> tuple[int, int]:
    """Prints a set's row: the first draw, and how many of all draws held."""
    found = [compare_with_truth(calls, known) for known in draws]
    below = sum(bill < (b.ci_low or 0) for b, bill in found)
    above = sum(bill > (b.ci_high or 0) for b, bill in found)
    held = len(found) - below - above
    passed = sum(bill > b.maximum for b, bill in found)
    widths = [((b.ci_high or 0) - (b.ci_low or 0)) / bill for b, bill in found]
    bounds, bill = found[0]
    inside = (bounds.ci_low or 0) <= bill <= (bounds.ci_high or 0)
    expected = np.median([(b.expected or 0) / bill for b, bill in found])
    dollars = [f"{(x or 0) / 1e6:.4f}" for x in (bounds.ci_low, bounds.ci_high, bill)]
    print(f"| {name} | {len(calls)} | {dollars[0]} to {dollars[1]} | {dollars[2]} | "
          f"{'yes' if inside else 'no'} | {held} of {len(found)} ({below}, {above}) | "
          f"{expected:.2f} | {np.median(widths):.0%} | {passed} |", flush=True)  # fmt: skip
    return held, len(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--known", type=int, default=20)
    parser.add_argument("--largest", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if "BRIDGEKD_DATA" not in os.environ:
        sys.exit("BRIDGEKD_DATA names no folder of recorded answers; set it")
    print("| set | questions | first interval, $ | bill, $ | inside | draws that held "
          "(bill below, above) | middle / bill | width / bill | ceiling passed |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    totals = []
    for name, _, rows in list_all_sets(Path(os.environ["BRIDGEKD_DATA"])):
        rng = np.random.default_rng(args.seed)
        calls = list_calls(rows(), args.largest, rng)
        draws = [rng.choice(len(calls), args.known, replace=False) for _ in range(args.draws)]
        totals.append(print_table(name, calls, [d.tolist() for d in draws]))
    held, n = (sum(column) for column in zip(*totals, strict=True))
    low, high = wilson_interval(held, n)
    print(f"held {held} of {n} ({held / n:.1%}; {low:.1%} to {high:.1%} if draws were apart)")


if __name__ == "__main__":
    main()
