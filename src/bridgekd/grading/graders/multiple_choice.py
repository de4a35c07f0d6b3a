"""One of the question's choices, by letter or by text."""

import re
from collections.abc import Sequence

from bridgekd.grading.answer_extraction import get_last_sentence, normalize_unicode, strip_markup
from bridgekd.grading.answer_match import (
    fold_case,
    get_first_clause,
    get_short_text,
    strip_article,
)
from bridgekd.grading.grader import Grader
from bridgekd.prompts import LETTERS
from bridgekd.variants import NoOptions

_LETTER = re.compile(  # of an answer in upper case
    r"(?:(?:OPTION|CHOICE|ANSWER|LETTER)\s+)?"
    r"(?:[(\[<{]\s?([A-Z])\s?[)\]>}]|([A-Z])(?:[.):](?!\w)|$|(?=\s*-\s|,?\s+(?:BECAUSE|SINCE|AS)\b|"
    r"\s+IS\s+(?:THE\s+)?(?:CORRECT|RIGHT|BEST|ANSWER)\b)))"
)
_ANY_LETTER = re.compile(
    r"\(([A-Za-z])\)|\b(?i:choice|option)\s+([A-Z])\b"
    r"|\b(?i:therefore|thus|so|hence),?\s+([A-Z])[.!]?\s*$"
)
_SECOND_LETTER = re.compile(  # before the first clause ends
    r"(?:[,;]\s*(?:and\s|or\s)?|\b(?:and|or)\s)\s*\(([A-Za-z])\)|[,;]|\b(?:because|since|as)\b",
    re.IGNORECASE,
)


def canonicalize_choice(answer: str, choices: Sequence[str], options: NoOptions) -> str:
    """Return the text of the choice that the answer names; "" if it names none or several.

    If the letter and the text name two choices, the text counts: models confuse letters more often
    than words.
    """
    named = _name_choices(choices)
    texts_by_fold: dict[str, set[str]] = {}
    for choice in choices:
        texts_by_fold.setdefault(fold_case(choice), set()).add(choice)
    by_text = {  # without choices that differ only in case: their letter decides
        fold_case(choice): name
        for choice, name in zip(choices, named, strict=True)
        if len(texts_by_fold[fold_case(choice)]) == 1
    }
    folded = fold_case(answer)
    start = strip_markup(answer).strip("\"'“”*_`$ \t\n\r")
    letter = _LETTER.match(start.upper().rstrip("\"'*_`$.,;!"))
    after_letter = fold_case(start[letter.end() :]) if letter else ""
    index = LETTERS.index(letter[1] or letter[2]) if letter else len(choices)
    if not after_letter and named != choices and index < len(choices):
        return named[index]  # where choices are letters, a letter alone is the one that was shown
    for part in (folded, after_letter):
        if part in by_text:
            return by_text[part]
    if (second := _SECOND_LETTER.search(strip_markup(answer))) and second[1]:
        return ""
    if index < len(choices):
        return named[index]
    for part in (strip_article(folded), get_first_clause(folded)):
        if part in by_text:
            return by_text[part]
    return _find_named_choice(answer, choices)


def _name_choices(choices: Sequence[str]) -> Sequence[str]:
    """Return the canonical forms of the choices: their texts, with letters if texts are letters."""
    letters = {fold_case(letter) for letter in LETTERS[: len(choices)]}
    if letters.isdisjoint(map(fold_case, choices)):
        return choices
    return [f"({letter}) {text}" for letter, text in zip(LETTERS, choices, strict=False)]


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
    sentence = normalize_unicode(sentence)
    letters = {"".join(groups).upper() for groups in _ANY_LETTER.findall(sentence)}
    indices = {LETTERS.index(letter) for letter in letters} & set(range(len(choices)))
    if len(indices) == 1:
        return _name_choices(choices)[indices.pop()]
    sentence_words = f" {_get_words(sentence)} "
    words = {c: _get_words(c) for c in choices}
    named = [c for c in choices if words[c] and f" {words[c]} " in sentence_words]
    longest = [c for c in named if not any(c != o and words[c] in words[o] for o in named)]
    if len(longest) != 1 or indices:
        return ""
    return _name_choices(choices)[list(choices).index(longest[0])]


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
