"""What arms and stages are called where people read, and in which order they stand."""

import re
from collections.abc import Iterable

TITLES = {
    "teacher": "Teacher",
    "assistant_base": "Assistant, untouched",
    "assistant_warm": "Assistant, warmed up",
    "assistant": "Assistant, trained",
    "random_assistant": "Assistant, random picks",
    "hardest_assistant": "Assistant, hardest picks",
    "diverse_assistant": "Assistant, diverse picks",
    "student_base": "Student, untouched",
    "student_instructed": "Student, instructed",
    "answers_only": "Student, answers alone",
    "direct": "Student, direct",
    "direct_full": "Student, direct, whole pool",
    "ta_in_the_loop": "Student, TA-in-the-Loop",
    "mentor_kd": "Student, Mentor-KD",
    "no_instruct": "Student, not instructed",
    "random": "Student, random picks",
    "hardest": "Student, hardest picks",
    "diverse": "Student, diverse picks",
    "bridge": "Student, BRIDGE",
}
ORDER = tuple(TITLES)
STAGES = {  # those that train, weigh or drop
    "warm_up": "Assistant, warm-up",
    "train_assistant": "Assistant, trained",
    "instruct_student": "Student, instruction",
    "train_student": "Student, trained",
    "train_on_answers": "Student, trained on answers",
    "train_with_mentor": "Student, trained with its mentor",
    "check": "The teacher's rationales",
    "annotate": "The assistant's own rationales",
    "sample_rationales": "The assistant's sampled rationales",
    "weigh_student": "The student's answers",
}


def in_order(labels: Iterable[str]) -> list[str]:
    """Labels of arms as TITLES has their names, then those it has not, by name; an arm's budgets
    from the smallest on.
    """

    def place(label: str) -> tuple[int, str, float, str]:
        name, _, budget = label.partition("@")
        size = re.search(r"[\d.]+", budget)
        known = ORDER.index(name) if name in ORDER else len(ORDER)
        return known, "" if name in ORDER else name, float(size[0]) if size else 0.0, label

    return sorted(labels, key=place)


def natural(text: str) -> list[tuple[bool, int, str]]:
    """A key by which texts stand in order and the numbers in them, too: 5 % before 10 %."""
    parts = re.findall(r"\d+|\D+", text)
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def title(label: str) -> str:
    """An arm's name as people read it, with its budget where it has several."""
    name, _, budget = label.partition("@")
    return f"{TITLES.get(name, name)}, {budget}" if budget else TITLES.get(name, name)
