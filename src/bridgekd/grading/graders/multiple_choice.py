"""One of the question's choices, by letter or by text."""

import re
from collections.abc import Iterator, Sequence

from bridgekd.grading.answer_extraction import (
    get_first_sentence,
    get_last_sentence,
    normalize_unicode,
    strip_markup,
)
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
    r"(?:[,;]\s*(?:and\s|or\s)?|[&/+]|\s-|\b(?:and|or|nor)\s)\s*\(([A-Za-z])\)"
    r"|[,;]|\b(?:because|since|as)\b",
    re.IGNORECASE,
)
_ANY_JOINT = r"(?:\s*(?:,|;|/|&|\+|-|\bAND\b|\bOR\b|\bNOR\b)\s*)+"
_ONE_LETTER = r"(?:(?:OPTION|CHOICE|ANSWER|LETTER)S?\s+)?[(\[<{]?\s?([A-Z])\s?[)\]>}]?"
_TWO_LETTERS = re.compile(  # of an answer in upper case: (A) & (B), A - B, (A, C)
    rf"(?:(?:BOTH|EITHER|NEITHER)\s+)?{_ONE_LETTER}{_ANY_JOINT}{_ONE_LETTER}"
    r"(?=\s*(?:$|[.,;:/&+)-]|(?:AND|OR|NOR|BECAUSE|SINCE|AS|ARE)\b))"
)
_MIN_CUT_OFF = 300  # characters; a short text without a last period is complete
_NEGATION = r"(?:not|never|isn't|aren't|neither|nor|except|excluding|rather than|instead of)"
_NEGATED = re.compile(rf"\b{_NEGATION}\s+(?:be\s+)?(?:the\s+)?", re.IGNORECASE)
_CONCLUDED_LETTER = re.compile(r"\b(?:is|be|are)\s*:?\s*\(([A-Z])\)")


def canonicalize_choice(answer: str, choices: Sequence[str], options: NoOptions) -> str:
    """Return the text of the choice that the answer names; "" if it names none or several.

    An answer that says what is not the answer names the choices without "not" before them. If the
    letter and the text name two choices, the text counts: models confuse letters more often than
    words.
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
    if _names_two_letters(start, answer, choices):
        return ""
    if _NEGATED.match(start):
        return _find_named_choice(answer, choices)
    if index < len(choices):
        return named[index]
    for part in (strip_article(folded), get_first_clause(folded)):
        if part in by_text:
            return by_text[part]
    return _find_named_choice(answer, choices)


def _names_two_letters(start: str, answer: str, choices: Sequence[str]) -> bool:
    """Return whether an answer begins with two different letters, or has a second one joined."""
    letters = LETTERS[: len(choices)]
    if two := _TWO_LETTERS.match(start.upper()):
        return two[1] != two[2] and two[1] in letters and two[2] in letters
    second = _SECOND_LETTER.search(strip_markup(answer))
    return bool(second and second[1])


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
    """Return the choice of a short text, else the one that is concluded or named at the end.

    Concluded is the last "is (B)". A text that is cut off inside a sentence names no choice there.
    """
    if short := get_short_text(text):
        return canonicalize_choice(short, choices, options)
    if concluded := list(_CONCLUDED_LETTER.finditer(text)):
        sentence = get_first_sentence(text[concluded[-1].start(1) - 1 :])
        return canonicalize_choice(sentence, choices, options)
    return _find_named_choice(get_last_sentence(text), () if _is_cut_off(text) else choices)


def _is_cut_off(text: str) -> bool:
    is_option = re.search(r"\n\W*[A-Z][.):][^\n]*$", text.rstrip())
    return len(text) > _MIN_CUT_OFF and not is_option and re.search(r"[\w,]\s*$", text) is not None


def _find_named_choice(sentence: str, choices: Sequence[str]) -> str:
    """Return the one choice that a sentence names without "not", by letter before text."""
    sentence = normalize_unicode(sentence)
    letters = {"".join(m.groups("")).upper() for m in _find_unnegated(_ANY_LETTER, sentence)}
    indices = {LETTERS.index(letter) for letter in letters} & set(range(len(choices)))
    if len(indices) == 1:
        return _name_choices(choices)[indices.pop()]
    sentence_words = f" {_get_words(sentence)} "
    words = {c: _get_words(c) for c in choices}
    named = [c for c in choices if words[c] and f" {words[c]} " in sentence_words]
    longest = [c for c in named if not any(c != o and words[c] in words[o] for o in named)]
    longest = [c for c in longest if not _is_negated(words[c], sentence_words)]
    if len(longest) != 1 or indices:
        return ""
    return _name_choices(choices)[list(choices).index(longest[0])]


def _find_unnegated(pattern: re.Pattern[str], sentence: str) -> Iterator[re.Match[str]]:
    """Yield the matches without a negation before them: not (A), neither (A) nor (B)."""
    negated = {match.end() for match in _NEGATED.finditer(sentence)}
    return (match for match in pattern.finditer(sentence) if match.start() not in negated)


def _is_negated(words: str, sentence_words: str) -> bool:
    before = sentence_words.partition(f" {words} ")[0]
    return re.search(rf"\b{_NEGATION}(?: be)?(?: an?| the)?$", before) is not None


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
