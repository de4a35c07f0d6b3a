"""The sandbox world: solver, teacher and step checker agree for every wording."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekd.records import StepCount
from bridgekd.sandbox import domains, world
from bridgekd.sandbox.phrases import KINDS, N_STYLES, STEP_PHRASES, parse_step, render_step
from bridgekd.sandbox.step_checker import count_wrong_steps

QUESTION = (
    "Ann is in surgery. Bob is in triage. Cora is in therapy. First, Ann and Bob swap places. "
    "Second, Cora follows Ann. Where is Cora in the end?"
)
SOUND = (
    "First, Ann and Bob swap, Ann is in surgery and Bob is in triage, so Ann is in triage and Bob "
    "is in surgery. Second, Cora joins Ann, Ann is in triage, so Cora is in triage. "
    "In the end Cora is in triage."
)


def simulate(problem: domains.Problem) -> str:
    state = dict(problem.facts)
    if problem.domain == "statute":
        rules = {event.who: event.what for event in problem.events}
        while state["case"] in rules:
            state["case"] = rules[state["case"]]
    else:
        for event in problem.events:
            domains.apply_event(state, event)
    return state[problem.target]


@given(st.integers(0, 10**6), st.sampled_from(domains.DOMAINS))
def test_solver_agrees_with_simulation(seed: int, domain: str) -> None:
    rng = random.Random(seed)
    problem = domains.sample_problem(rng, domain)
    text = domains.render_problem(problem, rng)
    assert domains.parse_problem(text) == problem
    solution = world.solve(text)
    assert solution.answer == simulate(problem)
    assert 1 <= len(solution.steps) - 1 <= 5


def test_same_seed_gives_same_questions_and_other_seed_gives_others() -> None:
    first, again, other = (
        world.generate_examples(50, 3),
        world.generate_examples(50, 3),
        world.generate_examples(50, 4),
    )
    assert first == again
    assert {e.question for e in first}.isdisjoint(e.question for e in other)


def test_excluded_questions_are_never_generated() -> None:
    pool = world.generate_examples(400, 0)
    texts = {e.question for e in pool}
    assert len(texts) == 400
    same_stream = world.generate_examples(400, 0, exclude=texts)  # would repeat all of them
    assert texts.isdisjoint(e.question for e in same_stream)


def test_domains_have_different_sizes() -> None:
    sizes = [sum(e.domain == d for e in world.generate_examples(1000, 0)) for d in domains.DOMAINS]
    assert sizes[0] > 1.3 * sizes[1] > 1.3 * sizes[2] > 0


@pytest.mark.parametrize("kind", STEP_PHRASES)
@pytest.mark.parametrize("style", range(N_STYLES))
def test_every_wording_is_parsed_correctly(kind: str, style: int) -> None:
    slots = {"o": "third", "a": "ann", "b": "bob", "p": "surgery", "q": "triage"}
    slots |= {"c": "therapy", "d": "recovery", "x": "filed", "y": "heard", "z": "closed"}
    slots |= {"n": "3", "h": "4", "r": "7"}
    clause = render_step(kind, style, slots)
    domain = next(d for d, kinds in KINDS.items() if kind in kinds)
    parsed = parse_step(domain, domains.normalize_text(clause))
    assert parsed is not None and parsed[0] == kind and parsed[2]
    used = set(re.findall(r"\{(\w)\}", STEP_PHRASES[kind][style]))
    assert parsed[1] == {name: slots[name] for name in used}


def test_step_kind_has_at_least_six_wordings() -> None:
    assert all(len(set(wordings)) >= 6 for wordings in STEP_PHRASES.values())


@pytest.mark.parametrize("seed", range(3))
def test_correct_teacher_makes_no_wrong_step(seed: int) -> None:
    for example in world.generate_examples(200, seed):
        for text in (world.generate_reply(example.question, seed, 0.0),):
            report = world.check_steps(example.question, text.lower().replace(",", " ,"))
            assert (report.n_wrong, report.n_unread, report.n_missing) == (0, 0, 0), text
            assert report.n_steps == len(world.solve(example.question).steps)
            assert text.endswith(f"\nAnswer: {example.answer}")


def test_wrong_teacher_makes_one_mistake_and_uses_its_result() -> None:
    for example in world.generate_examples(300, 7):
        text = world.generate_reply(example.question, 0, 1.0)
        report = world.check_steps(example.question, text)
        assert (report.n_wrong, report.n_unread) == (1, 0), text
        assert text.rsplit("Answer: ", 1)[1] != example.answer


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Bob is in triage,", "Bob is in therapy,"),  # a wrong reading
        ("Ann is in triage and", "Ann is in therapy and"),  # a wrong conclusion
        ("Second, Cora joins", "Third, Cora joins"),  # not the next step
        ("In the end Cora", "In the end Bob"),  # an answer about another person
    ],
)
def test_inserted_mistake_is_counted(old: str, new: str) -> None:
    assert world.check_steps(QUESTION, SOUND).n_wrong == 0
    assert old in SOUND
    assert world.check_steps(QUESTION, SOUND.replace(old, new)).n_wrong >= 1


def test_skipped_step_is_missing_and_unknown_sentence_is_unread() -> None:
    short = SOUND.split(". ", 1)[1]
    report = world.check_steps(QUESTION, f"Let us see. {short}")
    assert (report.n_unread, report.n_missing) == (1, 1)
    assert report.n_wrong >= 1


def test_replies_are_deterministic_and_wrong_at_the_set_rate() -> None:
    rows = world.generate_examples(1000, 1)
    texts = [world.generate_reply(e.question, 5) for e in rows]
    assert texts == [world.generate_reply(e.question, 5) for e in rows]
    assert texts != [world.generate_reply(e.question, 6) for e in rows]
    wrong = sum(not t.endswith(f"Answer: {e.answer}") for t, e in zip(texts, rows, strict=True))
    assert 70 <= wrong <= 130


def test_lines_around_the_question_do_not_change_the_reply() -> None:
    prompt = f"Question 1 of 2\n{QUESTION}\nThink step by step, then give the answer."
    assert world.generate_reply(prompt, 0) == world.generate_reply(QUESTION, 0)


@pytest.mark.parametrize("text", ["", "What is 2 + 2?", QUESTION.replace("surgery", "")])
def test_text_without_question_of_the_world_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        world.solve(text)


def test_wrong_unread_and_missing_steps_count_as_wrong() -> None:
    assert count_wrong_steps(QUESTION, SOUND) == StepCount(3, 0)
    assert count_wrong_steps(QUESTION, "") == StepCount(3, 3)
    unread = count_wrong_steps(QUESTION, f"Let us see. {SOUND}")
    assert unread == StepCount(4, 1)
    assert count_wrong_steps("What is 2 + 2?", "It is 4.") is None
