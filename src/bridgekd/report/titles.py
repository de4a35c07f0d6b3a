"""The titles of arms, and their order in tables."""

import re
from collections.abc import Iterable

TITLES = {
    "teacher": "Teacher",
    "assistant_base": "Assistant, base model",
    "assistant_warm": "Assistant, warmed up",
    "assistant": "Assistant, trained",
    "random_assistant": "Assistant, random selection",
    "hardest_assistant": "Assistant, hardest questions",
    "diverse_assistant": "Assistant, diverse questions",
    "student_base": "Student, base model",
    "student_instructed": "Student, instruction-tuned",
    "answers_only": "Student, answers only",
    "direct": "Student, direct",
    "direct_full": "Student, direct, full pool",
    "ta_in_the_loop": "Student, TA-in-the-Loop",
    "mentor_kd": "Student, Mentor-KD",
    "no_instruct": "Student, not instruction-tuned",
    "random": "Student, random selection",
    "hardest": "Student, hardest questions",
    "diverse": "Student, diverse questions",
    "bridge": "Student, BRIDGE",
}
_ORDER = tuple(TITLES)


def sort_labels(labels: Iterable[str]) -> list[str]:
    """Return labels of arms in the order of TITLES, then unknown ones by name; the budgets of one
    arm from the smallest to the largest.
    """

    def make_key(label: str) -> tuple[int, str, float, str]:
        name, _, budget = label.partition("@")
        size = re.search(r"[\d.]+", budget)
        position = _ORDER.index(name) if name in TITLES else len(_ORDER)
        return position, "" if name in TITLES else name, float(size[0]) if size else 0.0, label

    return sorted(labels, key=make_key)


def make_natural_key(text: str) -> list[tuple[bool, int, str]]:
    """Return a sort key that puts 5 % before 10 %."""
    parts = re.findall(r"\d+|\D+", text)
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def get_title(label: str) -> str:
    """Return an arm's title, with its budget if its label has one."""
    name, _, budget = label.partition("@")
    return f"{TITLES.get(name, name)}, {budget}" if budget else TITLES.get(name, name)
