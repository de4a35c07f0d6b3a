"""Reads the final answer out of a text and compares it with the gold one, by kind of answer.

A text is graded by its strongest sign (`core.signs`); only where there is none do weaker ones
count: an answer that is the whole text, for numbers the last number, for choices an option that its
last sentence names, for texts what that sentence quotes or leads up to. A refusal has no weak
signs. No sign at all is the empty answer, which is never correct.
"""

import re
from collections.abc import Sequence

from bridgekd.core.amounts import (
    leaves_open,
    n_decimals,
    number_in,
    rounds_to,
    scale_in,
    whole_number,
)
from bridgekd.core.prompts import LETTERS
from bridgekd.core.signs import boxed, last_sentence, marked, plain, refuses, said

_LETTER = re.compile(r"\(([A-Z])\)|([A-Z])(?:[.):](?!\w)|$)")
_ANY_LETTER = re.compile(r"\(([A-Za-z])\)|\b(?:choice|option)\s+([A-Z])\b")
_WRAPPING = " \t\n\r\"'“”‘’*_`$.,;:!"
_ARTICLE = re.compile(r"^(?:a|an|the)\s+")
_CLAUSE = re.compile(r"[.,;:(\N{EM DASH}]|\s-\s|\sbecause\s")
_HEDGE = re.compile(
    r"^(?:(?:most|very)\s+)?(?:likely|probably|possibly|perhaps|certainly|definitely)\s+"
)
_BETWEEN = re.compile(r"\s*(?:[;|\n]|,(?!\d{3})|,?\s+(?:and|&)\s)\s*", re.IGNORECASE)
_BULLET = re.compile(r"^(?:[-*•]|\d+[.)])\s+")
_QUOTED = re.compile(r"[\"“]([^\"“”]+)[\"”]")
_LED_UP_TO = re.compile(r"(?:^|[:=]\s*|\bwe get\s+|\bis\s+)(\S+)$", re.IGNORECASE)
_OR_ELSE = re.compile(  # a second letter before the first clause ends
    r"(?:[,;]\s*(?:and\s|or\s)?|\b(?:and|or)\s)\s*\(([A-Za-z])\)|[,;]|\b(?:because|since|as)\b",
    re.IGNORECASE,
)
_FEW_WORDS = 5


def split_answer(text: str) -> tuple[str, str]:
    """(rationale, answer as written): cut at the last mark; the whole text and its answer where
    another sign shows it, or "".
    """
    if (found := marked(text)) is not None:
        return found[0].strip(), found[1]
    return text.strip(), boxed(text).strip() or said(text)


def read_answer(text: str, kind: str, choices: Sequence[str] = ()) -> str:
    """The final answer of `text` in canonical form, or "" where there is none."""
    _, written = split_answer(text)
    if written:
        return canonical(written, kind, choices)
    return "" if marked(text) is not None else _weakly_shown(text, kind, choices)


def canonical(answer: str, kind: str, choices: Sequence[str] = ()) -> str:
    """`answer` in the form in which equal answers are equal strings; "" if it is not of its kind.

    choice: the option's text, from its letter or its text. number: as an exact fraction, see
    `core.amounts`. label, text: case-folded, white space and wrapping punctuation removed. labels:
    several of these or of numbers, each once, in order, with "; " between.
    """
    if kind == "number":
        written = plain(answer.rpartition("####")[2])  # a whole solution as gold
        number = None if leaves_open(written) else number_in(written)
        return "" if number is None else str(number)
    if kind == "choice":
        return _canonical_choice(answer, choices)
    if kind == "labels":
        return "; ".join(sorted({_canonical_item(item) for item in _items(answer)}))
    return _folded(answer)


def is_correct(answer: str, gold: str, kind: str, choices: Sequence[str] = ()) -> bool:
    """Whether two answers mean the same; an empty one never does.

    A gold number with decimals was rounded: an answer that rounds to it is right. A label may be
    hedged and go on after its first clause ("probably no, it would not"). Of texts the article
    does not count.
    """
    read, right = canonical(answer, kind, choices), canonical(gold, kind, choices)
    if "" in (read, right) or kind == "choice":
        return read == right != ""
    if kind == "labels":
        return _same_items(_items(answer), _items(gold))
    if kind == "label":
        clause = _first_clause(read)
        return right in (read, clause, _folded(_HEDGE.sub("", clause)))
    return _same(answer, gold, read, right)


def _same(answer: str, gold: str, read: str, right: str) -> bool:
    if _ARTICLE.sub("", read) == _ARTICLE.sub("", right):
        return True
    number, known = whole_number(plain(read)), whole_number(plain(right))
    if number is None or known is None:
        return False
    written = plain(gold)
    return rounds_to(number, known, decimals=n_decimals(written), unit=scale_in(written))


def _same_items(items: list[str], gold: list[str]) -> bool:
    """Whether each has a partner among the others, none left over."""
    left = {_canonical_item(g): g for g in gold}
    for read, item in {_canonical_item(i): i for i in items}.items():
        partner = next((right for right, g in left.items() if _same(item, g, read, right)), None)
        if partner is None:
            return False
        del left[partner]
    return not left


def _items(answer: str) -> list[str]:
    parts = [_BULLET.sub("", part) for part in _BETWEEN.split(plain(answer).strip("[]"))]
    return [part for part in parts if _folded(part)]


def _canonical_item(item: str) -> str:
    number = whole_number(plain(item).strip("\"'“” .,;:!*"))
    return _bare(item) if number is None else str(number)


def _bare(item: str) -> str:
    """Folded and without articles, to where nothing is left to remove."""
    while (shorter := _ARTICLE.sub("", _folded(item))) != item:
        item = shorter
    return item


def _folded(answer: str) -> str:
    return " ".join(plain(answer).strip(_WRAPPING).casefold().split())


def _first_clause(folded: str) -> str:
    return _folded(_CLAUSE.split(folded)[0])


def _weakly_shown(text: str, kind: str, choices: Sequence[str]) -> str:
    if refuses(text):
        return ""
    if kind == "number":
        number = number_in(plain(text))
        return "" if number is None else str(number)
    bare, end = plain(text), last_sentence(text)
    if "\n" not in bare and len(bare.split()) <= _FEW_WORDS:
        return canonical(bare, kind, choices)
    if kind == "choice":
        return _named_option(end, choices)
    if kind != "text":
        return ""
    quoted = _QUOTED.findall(end)
    led_up_to = _LED_UP_TO.search(plain(end).rstrip(_WRAPPING))
    return _folded(quoted[-1] if quoted else led_up_to[1] if led_up_to else "")


def _canonical_choice(answer: str, choices: Sequence[str]) -> str:
    """Where a letter stands before the text of another option, the text is what was concluded."""
    texts = {_folded(choice): choice for choice in choices}
    whole = _folded(answer)
    start = plain(answer).strip("\"'“”*_`$ \t\n\r")
    letter = _LETTER.match(start.upper().rstrip("\"'*_`$.,;!"))
    behind = _folded(start[letter.end() :]) if letter else ""
    for part in (whole, behind):
        if part in texts:
            return texts[part]
    if (other := _OR_ELSE.search(plain(answer))) and other[1]:
        return ""
    if letter and LETTERS.index(letter[1] or letter[2]) < len(choices):
        return choices[LETTERS.index(letter[1] or letter[2])]
    for part in (_ARTICLE.sub("", whole), _first_clause(whole)):
        if part in texts:
            return texts[part]
    return _named_option(answer, choices)


def _named_option(sentence: str, choices: Sequence[str]) -> str:
    """The one option that a sentence names by letter, else by text; "" for none or several."""
    letters = {(a or b).upper() for a, b in _ANY_LETTER.findall(sentence)}
    places = {LETTERS.index(letter) for letter in letters} & set(range(len(choices)))
    if len(places) == 1:
        return choices[places.pop()]
    said_here = f" {_words(sentence)} "
    named = [c for c in choices if _words(c) and f" {_words(c)} " in said_here]
    longest = [c for c in named if not any(c != o and _words(c) in _words(o) for o in named)]
    return longest[0] if len(longest) == 1 and not places else ""


def _words(text: str) -> str:
    return " ".join(re.findall(r"[\w/.'-]*\w", _folded(text)))
