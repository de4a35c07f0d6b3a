"""Every spelling of an answer that a grammar writes is that answer, and no other one is."""

import json
import random
import unicodedata
from fractions import Fraction

import pytest

from answer_types import get_type

NUMBER, CHOICE, LABEL, LABELS, TEXT, MATH = map(
    get_type, ("number", "multiple_choice", "label", "multi_label", "text", "math")
)


def split_groups(digits, separator, size=3):
    """Return digits with a separator before the last three and then before every `size`."""
    head, tail = digits[:-3], digits[-3:]
    groups = [head[max(0, i - size) : i] for i in range(len(head), 0, -size)][::-1]
    return separator.join([*groups, tail])


def to_full_width(text):
    return "".join(chr(ord(c) + 0xFEE0) if c.isdigit() else c for c in text)


WHOLE = {
    "plain": lambda d: d,
    "commas": lambda d: split_groups(d, ","),
    "quotes": lambda d: split_groups(d, "'"),
    "round quotes": lambda d: split_groups(d, "’"),
    "spaces": lambda d: split_groups(d, " "),
    "no-break spaces": lambda d: split_groups(d, "\u00a0"),
    "narrow spaces": lambda d: split_groups(d, "\u202f"),
    "Indian": lambda d: split_groups(d, ",", 2),
    "points": lambda d: split_groups(d, ".") if len(d) > 6 else d,
    "English": lambda d: split_groups(d, ",") + ".00",
    "German": lambda d: split_groups(d, ".") + ",00",
    "French": lambda d: split_groups(d, " ") + ",00",
    "full width": to_full_width,
    "fraction": lambda d: f"{2 * int(d)}/2",
    "LaTeX fraction": lambda d: rf"\frac{{{3 * int(d)}}}{{3}}",
    "exponent": lambda d: f"{d}e0",
    "power of ten": lambda d: f"{d} x 10^0",
    "LaTeX power of ten": lambda d: rf"{d} \times 10^{{0}}",
    "superscript": lambda d: f"{d} × 10⁰",
    "sum": lambda d: f"{int(d) - 1} + 1",
    "equation": lambda d: f"{int(d) - 1} + 1 = {d}",
    "reversed equation": lambda d: f"{d} = {int(d) // 2} x 2" if int(d) % 2 == 0 else d,
    "LaTeX comma": lambda d: split_groups(d, "{,}"),
}
UNITS = (
    "{}", "${}", "$ {}", "€{}", "{} €", "£{}", "¥{}", "₹{}", "USD {}", "{} dollars", "{}%", "{} %",
    "{} percent", "{} apples", "{} km/h", "{} m/s^2", "{} cm^2", "{} m²", "{} °C", "{} people",
    "{} more books than last year", "{} (rounded)", "{} (out of 900)", "{}, because 2 are left",
)  # fmt: skip
WRAPS = (
    "{}", "**{}**", "`{}`", '"{}"', "“{}”", r"\boxed{{{}}}", r"\boxed{{\text{{{}}}}}", r"\({}\)",
    r"\[ {} \]", "{}.", "about {}", "approximately {}", "**{}.**",
)  # fmt: skip
FRAMES = (
    "Answer: {}", "ANSWER: {}", "Answer：{}", "Antwort: {}", "Réponse : {}", "Respuesta: {}",
    "Resposta: {}", "Risposta: {}", "Ответ: {}", "答案：{}", "答え：{}", "正确答案是 {}。",
    "We have 12 and 3.\n**Answer:** {}", "Final Answer: {}", "Answer:\n{}", "#### {}",
    "<answer>{}</answer>", "The answer is {}", "So the final answer is {}.",
    "Answer: 3\nNo.\nAnswer: {}", "<think>Answer: 3?</think>\nAnswer: {}",
    "<|channel|>analysis<|message|>Answer: 3?<|channel|>final<|message|>The answer is {}",
    "<|channel|>analysis<|message|>It is 3<|end|><|start|>assistant<|channel|>final<|message|>"
    "Answer: {}<|return|>",
    "Final Answer: Compute the total of 3.\nThe answer is {}",
)  # fmt: skip


def write_object(answer):
    return json.dumps({"reasoning": "3 and 4.", "answer": answer}, ensure_ascii=False)


FRAMES_BY_FUNCTION = (
    *(frame.format for frame in FRAMES),
    write_object,
    lambda answer: f"```json\n{write_object(answer)}\n```",
    lambda answer: f"I add.\n```json\n{write_object(answer)}\n```",
)


def grade(answer_type, text, gold, choices=()):
    answer = answer_type.extract_answer(text, choices)
    return answer_type.is_correct(answer, gold, choices)


def check(answer_type, text, gold, other, choices=()):
    """Check that a text is the gold answer and not the other one."""
    assert grade(answer_type, text, gold, choices), (text, gold)
    assert not grade(answer_type, text, other, choices), (text, other)


def draw_numbers(rng):
    return [rng.randrange(10 ** rng.randrange(1, 10)) + 2 for _ in range(3)]


@pytest.mark.parametrize("name", WHOLE)
def test_a_number_is_the_same_in_every_notation_with_every_unit(name):
    rng = random.Random(name)
    for n in draw_numbers(rng):
        for unit in UNITS:
            if name in ("sum", "equation", "reversed equation") and unit != "{}":
                continue
            text = rng.choice(FRAMES_BY_FUNCTION)(unit.format(WHOLE[name](str(n))))
            check(NUMBER, text, str(n), str(n + rng.choice([-1, 1, 10, n + 1])))


@pytest.mark.parametrize("write", FRAMES_BY_FUNCTION)
def test_a_number_is_the_same_in_every_place_with_every_markup(write):
    rng = random.Random(len(write("")))
    for wrap in WRAPS:
        for n in draw_numbers(rng):
            unit = rng.choice([u for u in UNITS if not ("$" in u and "\\" in wrap)])
            sign = rng.choice(["", "-"]) if unit == "{}" else ""
            spelled = WHOLE[rng.choice(["plain", "commas", "English"])](str(n))
            text = write(wrap.format(sign + unit.format(spelled)))
            check(NUMBER, text, f"{sign}{n}", str(n + 1))
            if sign:
                assert not grade(NUMBER, text, str(n)), text


DECIMALS = {
    "point": lambda whole, cents: f"{whole}.{cents}",
    "comma": lambda whole, cents: f"{whole},{cents}",
    "English": lambda whole, cents: f"{split_groups(whole, ',')}.{cents}",
    "German": lambda whole, cents: f"{split_groups(whole, '.')},{cents}",
    "French": lambda whole, cents: f"{split_groups(whole, ' ')},{cents}",
    "Swiss": lambda whole, cents: f"{split_groups(whole, '’')}.{cents}",
    "Indian": lambda whole, cents: f"{split_groups(whole, ',', 2)}.{cents}",
    "fraction": lambda whole, cents: f"{whole}{cents}/100",
    "mixed": lambda whole, cents: f"{whole} {int(cents)}/100",
}


@pytest.mark.parametrize("name", DECIMALS)
def test_a_number_with_decimals_is_the_same_in_every_country(name):
    rng = random.Random(name)
    for _ in range(20):
        whole, cents = str(rng.randrange(1, 10**6)), f"{rng.randrange(1, 100):02}"
        text = rng.choice(FRAMES_BY_FUNCTION)(DECIMALS[name](whole, cents))
        for other in (f"{whole}.{(int(cents) + 1) % 100:02}", whole, cents, f"{whole}{cents}"):
            check(NUMBER, text, f"{whole}.{cents}", other)


@pytest.mark.parametrize("joint", [" or ", " and ", ":", "-", ",", "/7/", " x n + ", ", b = "])
def test_two_numbers_are_never_one_of_them(joint):
    rng = random.Random(joint)
    for _ in range(20):
        a, b = rng.sample(range(2, 99), 2)
        text = f"Answer: {'a = ' if 'b' in joint else ''}{a}{joint}{b}"
        assert not grade(NUMBER, text, str(a)) and not grade(NUMBER, text, str(b)), text


def test_an_expression_is_its_value_and_never_a_part():
    rng = random.Random(0)
    for _ in range(60):
        a, b, c = (rng.randrange(2, 30) for _ in range(3))
        for written, value in (
            (f"{a}({b}+{c})", a * (b + c)), (f"{a} x {b}", a * b), (f"{a}^2 + {b}", a * a + b),
            (f"({a} + {b}) * {c}", (a + b) * c), (f"{a * b} = {a} x {b}", a * b),
            (f"{a} plus {b}", a + b), (f"{a}² - {b}", a * a - b), (f"{a} + x", None),
            (f"{a}x", None), (f"x - {a}", None), (f"{a} pens + {b} pens", None),
            (f"{a}({b}+n)", None), (rf"{a}\sqrt{{{b}}}", None), (rf"{a}\pi", None),
        ):  # fmt: skip
            expected = "" if value is None else str(value)
            assert NUMBER.extract_answer(f"Answer: {written}") == expected, written
            assert NUMBER.extract_answer(f"It comes to {written}") == expected, written


OPTION_SPELLINGS = (
    "{0}", "({0})", "[{0}]", "<{0}>", "{{{0}}}", "{0}.", "{0})", "{0}: {1}", "({0}) {1}",
    "{0}. {1}", "{0}) {1}", "{0} - {1}", "Option {0}", "option ({0})", "Choice {0}", "{1}",
    "The {1}.", '"{1}"', "{2}", "（{2}）", "{3}", "({3})", "{0} because it fits",
    "{0}, since it fits", "{0} – it fits", "({0}) and not ({4})", "{0} is correct",
    "not ({4}) but ({0})", "{1}, not {5}",
)  # fmt: skip
OPTION_WRAPS = (
    "{}", "**{}**", "`{}`", '"{}"', r"\boxed{{{}}}", r"\boxed{{\text{{{}}}}}", "$\\text{{{}}}$",
)  # fmt: skip
NO_OPTIONS = (
    "({0}) & ({1})", "({0})/({1})", "{0} - {1}", "{0}-{1}", "({0}), ({1})", "{0} and {1}",
    "({0}) or ({1})", "{0}, {1}", "both ({0}) and ({1})", "neither ({0}) nor ({1})", "{0} + {1}",
    "not ({0})", "It is not ({0})", "not {0}", "Options {0} and {1}", "({0}) {2} or ({1}) {3}",
    "not the {2}", "({0}, {1})",
)  # fmt: skip
NOUNS = ("red lamp", "blue rug", "green sofa", "white door", "black hat", "brown cat")


@pytest.mark.parametrize("spelling", OPTION_SPELLINGS)
def test_an_option_is_the_same_in_every_spelling(spelling):
    rng = random.Random(spelling)
    for write in FRAMES_BY_FUNCTION:
        choices = tuple(rng.sample(NOUNS, rng.randrange(2, 7)))
        right, other = rng.sample(range(len(choices)), 2)
        letters = "ABCDEF"[right], chr(ord("Ａ") + right), "abcdef"[right], "ABCDEF"[other]
        parts = (letters[0], choices[right], *letters[1:], choices[other])
        wrap = rng.choice(OPTION_WRAPS if "{{" not in spelling else ["{}"])
        text = write(wrap.format(spelling.format(*parts)))
        graded = [grade(CHOICE, text, choice, choices) for choice in choices]
        assert graded == [i == right for i in range(len(choices))], (text, choices)


@pytest.mark.parametrize("spelling", NO_OPTIONS)
def test_two_options_and_an_option_with_not_are_no_answer(spelling):
    rng = random.Random(spelling)
    for write in FRAMES_BY_FUNCTION:
        choices = tuple(rng.sample(NOUNS, 4))
        first, second = rng.sample(range(4), 2)
        texts = "ABCD"[first], "ABCD"[second], choices[first], choices[second]
        text = write(spelling.format(*texts))
        assert CHOICE.extract_answer(text, choices) == "", (text, choices)


LABEL_SPELLINGS = (
    "{0}", "{0}.", "{1}", "{2}", '"{0}"', "**{0}**", "{0}, it is so", "{0}. It is so.",
    "{0} because it is so", "{0} - see above", "probably {1}", "most likely {1}", "technically {1}",
    "generally, {1}", r"\boxed{{{0}}}", "`{0}`", "It depends, but generally {1}", "{0}!",
)  # fmt: skip
NO_LABELS = (
    "{0}, {1}", "{0} - {1}", "{0}/{1}", "{0} and {1}", "{0} or {1}", "{0}; {1}", "not {0}",
    "no clear {0} or {1}", "hardly {0}",
)  # fmt: skip


@pytest.mark.parametrize("names", [("Yes", "No"), ("true", "false", "unknown"), ("A_b", "C_d")])
def test_a_label_is_the_same_in_every_spelling_and_two_are_none(names):
    rng, known = random.Random(names[0]), LABEL.with_labels(names)
    for spelling in LABEL_SPELLINGS:
        for write in rng.sample(FRAMES_BY_FUNCTION, 6):
            right = rng.choice(names)
            spelled = right, right.lower(), right.replace("_", " ")
            text = write(spelling.format(*spelled))
            graded = [grade(known, text, name) for name in names]
            assert graded == [name == right for name in names], text
    for spelling in NO_LABELS:
        text = rng.choice(FRAMES)
        text = text.format(spelling.format(*rng.sample(names, 2)))
        assert not any(grade(known, text, name) for name in names), text


@pytest.mark.parametrize("joint", ["; ", ", ", " and ", "\n- ", " & ", "\n2. "])
def test_labels_are_a_set_in_every_order(joint):
    rng = random.Random(joint)
    for _ in range(30):
        gold = rng.sample(NOUNS, rng.randrange(2, 5))
        mixed = rng.sample(gold, len(gold))
        assert LABELS.is_correct(joint.join(mixed), "; ".join(gold)), (joint, gold)
        assert not LABELS.is_correct(joint.join(mixed[1:]), "; ".join(gold))
        assert not LABELS.is_correct(joint.join([*mixed, "gray wall"]), "; ".join(gold))


WORDS = ("Curaçao", "O'Neil", "co-op", "Ångström", "fjord 7", "New York", "naïve", "x-ray")


@pytest.mark.parametrize("write", FRAMES_BY_FUNCTION)
def test_a_text_is_the_same_in_every_unicode_form_and_markup(write):
    rng = random.Random(len(write("")))
    for word in WORDS:
        spelled = rng.choice([word, word.upper(), f"the {word}", f"**{word}**", f'"{word}"'])
        form = rng.choice(["NFC", "NFD", "NFKC", "NFKD"])
        spelled = unicodedata.normalize(form, spelled).replace("'", rng.choice("'’"))
        text = write(spelled.replace("-", rng.choice("-\u2010\u2011")))
        check(TEXT, text, word, rng.choice([w for w in WORDS if w != word]))


def test_a_text_is_no_rounded_number_and_no_other_notation_of_a_list():
    rng = random.Random(0)
    for _ in range(50):
        a, b = rng.randrange(1, 99), 10 * rng.randrange(1, 9) + rng.randrange(1, 10)
        check(TEXT, f"Answer: {a}.{b}", f"{a}.{b}", f"{a}.{b // 10}")
        check(TEXT, f"Answer: {a}.{b}0", f"{a}.{b}", f"{a},{b}")
        check(TEXT, f"Answer: {a * 1000:,}", str(a * 1000), f"{a}.{b}")


@pytest.mark.parametrize("write", FRAMES_BY_FUNCTION[:20:4])
def test_a_fraction_is_the_same_expression_in_every_notation(write):
    rng = random.Random(len(write("")))
    for _ in range(5):
        value = Fraction(rng.randrange(1, 99), rng.choice([2, 4, 5, 8, 20]))
        a, b = value.numerator, value.denominator
        whole, part = divmod(a, b)
        spellings = [f"{a}/{b}", rf"\frac{{{a}}}{{{b}}}", rf"\dfrac{{{2 * a}}}{{{2 * b}}}"]
        spellings += [f"{float(value)}", rf"$\frac{{{a}}}{{{b}}}$"]
        spellings += [rf"{whole}\frac{{{part}}}{{{b}}}"] if whole and part else []
        for spelled in spellings:
            check(MATH, write(spelled), f"{a}/{b}", f"{a + 1}/{b}")


@pytest.mark.parametrize(
    ("answer", "gold", "other"),
    [("5!", "120", "5"), ("10⁴", "10000", "104"), ("2³", "8", "2"), ("x²", "x^2", "x"),
     ("10^{-2}", "0.01", "-2"), ("7(3+4)", "49", "7"), ("3x", "3 x", "3"), ("6k", "6 k", "6000")],
)  # fmt: skip
def test_an_expression_is_not_a_part_of_itself(answer, gold, other):
    check(MATH, f"Answer: {answer}", gold, other)
