"""One of the question's choices, by letter or by text."""

import re
from collections.abc import Sequence

from bridgekd.grading.answer_extraction import get_last_sentence, strip_markup
from bridgekd.grading.answer_match import (
    fold_case,
    get_first_clause,
    get_short_text,
    strip_article,
)
from bridgekd.grading.grader import Grader
from bridgekd.prompts import LETTERS
from bridgekd.variants import NoOptions

_LETTER = re.compile(r"\(([A-Z])\)|([A-Z])(?:[.):](?!\w)|$)")
_ANY_LETTER = re.compile(r"\(([A-Za-z])\)|\b(?:choice|option)\s+([A-Z])\b")
_SECOND_LETTER = re.compile(  # before the first clause ends
    r"(?:[,;]\s*(?:and\s|or\s)?|\b(?:and|or)\s)\s*\(([A-Za-z])\)|[,;]|\b(?:because|since|as)\b",
    re.IGNORECASE,
)


def canonicalize_choice(answer: str, choices: Sequence[str], options: NoOptions) -> str:
    """Return the text of the choice that the answer names; "" if it names none or several.

    If the letter and the text name two choices, the text counts: models confuse letters more often
    than words.
    """
    by_text = {fold_case(choice): choice for choice in choices}
    folded = fold_case(answer)
    start = strip_markup(answer).strip("\"'“”*_`$ \t\n\r")
    letter = _LETTER.match(start.upper().rstrip("\"'*_`$.,;!"))
    after_letter = fold_case(start[letter.end() :]) if letter else ""
    for part in (folded, after_letter):
        if part in by_text:
            return by_text[part]
    if (second := _SECOND_LETTER.search(strip_markup(answer))) and second[1]:
        return ""
    if letter and (index := LETTERS.index(letter[1] or letter[2])) < len(choices):
        return choices[index]
    for part in (strip_article(folded), get_first_clause(folded)):
        if part in by_text:
            return by_text[part]
    return _find_named_choice(answer, choices)


def match_choice(answer: str, gold: str, choices: Sequence[str], options: NoOptions) -> bool:
    """Return whether both name the same choice."""
    named, correct = (canonicalize_choice(text, choices, options) for text in (answer, gold))
    return named == correct


def find_choice(text: str, choices: Sequence[str], options: NoOptions) -> str:
    """Return the choice of a short text, else the one that the last sentence names."""
    if short := get_short_text(text):
        return canonicalize_choice(short, choices, options)
    return _find_named_choice(get_last_sentence(text), choices)


def _find_named_choice(sentence: str, choices: Sequence[str]) -> str:
    """Return the one choice that a sentence names, by letter before text."""
    letters = {(a or b).upper() for a, b in _ANY_LETTER.findall(sentence)}
    indices = {LETTERS.index(letter) for letter in letters} & set(range(len(choices)))
    if len(indices) == 1:
        return choices[indices.pop()]
    sentence_words = f" {_get_words(sentence)} "
    words = {c: _get_words(c) for c in choices}
    named = [c for c in choices if words[c] and f" {words[c]} " in sentence_words]
    longest = [c for c in named if not any(c != o and words[c] in words[o] for o in named)]
    return longest[0] if len(longest) == 1 and not indices else ""


def _get_words(text: str) -> str:
    return " ".join(re.findall(r"[\w/.'-]*\w", fold_case(text)))


GRADER = Grader(
    name="multiple_choice",
    title="Multiple choice",
    summary="The same choice, by its letter or its text.",
    options=NoOptions,
    canonicalize=canonicalize_choice,
    match=match_choice,
    find_unmarked_answer=find_choice,
    clean_gold=canonicalize_choice,
    has_choices=True,
)
