"""A purchase whose answers are all dropped stops before it spends its budget."""

import pytest

import bridgekd
from bridgekd.cli.main import main
from bridgekd.errors import StoppedError
from bridgekd.grading.answer_type import load_answer_type
from bridgekd.ledger.spend import sum_spend
from bridgekd.recipe import CheckOptions
from bridgekd.records import Example
from bridgekd.stages.dropped_answers import DroppedAnswers
from bridgekd.variants import VariantSettings
from faulty_teacher import run_teacher_server

EXAMPLES = {f"q{n}": Example(f"q{n}", "How many?", str(n)) for n in range(100)}
NUMBER = load_answer_type(VariantSettings(name="number"))


def add_all(texts, *, state="answered", **check):
    dropped = DroppedAnswers(EXAMPLES, NUMBER, CheckOptions(**check))
    for id, text in zip(EXAMPLES, texts, strict=False):
        dropped.add(id, state, text)


@pytest.mark.parametrize(
    ("text", "state", "cause"),
    [
        ("I think.\nAnswer: -7", "answered", "differ from the gold answers"),
        ("It is a matter of taste.", "answered", "state no answer of this type"),
        ("Answer: 3", "answered", "no text before the final answer"),
        ("Let me think about", "truncated", "reach teacher.max_tokens"),
    ],
)
def test_the_message_has_three_answers_and_the_probable_cause(text, state, cause):
    texts = [text.replace("3", str(n + 200)) for n in range(20)]
    with pytest.raises(StoppedError, match=cause) as caught:
        add_all(texts, state=state)
    message = str(caught.value)
    assert message.count("gold '") == 3 and "q2: gold '2'" in message
    assert "not bought again" in message and "check.max_dropped: null" in message


def test_one_kept_answer_turns_the_stop_off():
    add_all(["So.\nAnswer: 0", *["So.\nAnswer: -1"] * 99])
    add_all([*["So.\nAnswer: -1"] * 19, "So.\nAnswer: 19", *["So.\nAnswer: -1"] * 80])


def test_the_limit_is_an_option_and_refusals_do_not_count():
    with pytest.raises(StoppedError, match="first 5 answers"):
        add_all(["So.\nAnswer: -1"] * 5, max_dropped=5)
    add_all(["So.\nAnswer: -1"] * 100, max_dropped=None)
    add_all([""] * 100, state="refused")


def run_wrong(tiny, *overrides):
    with run_teacher_server(lambda question, seed: "So it is.\nAnswer: nowhere") as server:
        sets = [f"teacher.base_url={server.base_url}", "budget.queries=40"]
        sets += ["evaluate.teacher_queries=0", *overrides]
        try:
            bridgekd.run(tiny, overrides=sets, methods=["direct"], consent=lambda plan: True)
        finally:
            run_wrong.n_served = server.served.total()


def test_a_run_stops_after_20_dropped_answers_and_again_before_any_request(tiny):
    with pytest.raises(StoppedError, match=r"None of the first 20 answers was kept"):
        run_wrong(tiny)
    assert 20 <= run_wrong.n_served < 30
    paid = {row.state: row.n_attempts for row in sum_spend(tiny.parent / "ledger.db")}
    assert paid["answered"] == run_wrong.n_served
    with pytest.raises(StoppedError, match=r"None of the first 20 answers was kept"):
        run_wrong(tiny)
    assert run_wrong.n_served == 0


def test_another_filter_keeps_what_was_bought(tiny):
    with pytest.raises(StoppedError):
        run_wrong(tiny)
    run_wrong(tiny, "check.filter=all", "student.train.updates=2", "name=fixed")
    assert run_wrong.n_served <= 20  # the rest of the 40


def test_the_command_ends_with_3(tiny, capsys):
    with run_teacher_server(lambda question, seed: "So it is.\nAnswer: nowhere") as server:
        sets = ["--set", f"teacher.base_url={server.base_url}", "--set", "budget.queries=40"]
        assert main(["run", str(tiny), "--yes", "--set", "method=direct", *sets]) == 3
    shown = " ".join(capsys.readouterr().err.split())
    assert "None of the first 20 answers was kept" in shown and "Traceback" not in shown
