"""Reading a final answer out of what a model wrote."""

import pytest

from answer_types import get_type
from bridgekd.grading.answer_extraction import split_answer
from bridgekd.prompts import ANSWER_LINE

CHOICES = ("red fox", "blue jay", "green frog")
NUMBER, LABEL, LABELS, CHOICE = map(get_type, ("number", "label", "multi_label", "multiple_choice"))


def read(text, name):
    answer_type = get_type(name)
    return answer_type.extract_answer(text, CHOICES if answer_type.has_choices else ())


@pytest.mark.parametrize(
    ("text", "kind", "answer"),
    [
        ("3 + 4 = 7.\nAnswer: 7", "number", "7"),
        ("So it is $1,234.50 in all.\nAnswer: $1,234.50.", "number", "2469/2"),
        ("I count 3 and then 5", "number", "5"),
        ("Answer: 4\nNo, wait.\nAnswer: 42.0", "number", "42"),
        ("Answer: -0", "number", "0"),
        ("Answer: .5", "number", "1/2"),
        ("Answer: 1/4", "number", "1/4"),
        ("Answer: 50/100", "number", "1/2"),
        ("Answer: \N{MINUS SIGN}5", "number", "-5"),
        ("Answer: 1e3", "number", "1000"),
        ("Answer: 3 + 4 = 7", "number", "7"),
        ("48/2 = <<48/2=24>>24 clips.\n#### 72", "number", "72"),
        ("Answer: none", "number", ""),
        ("The answer is (B).", "multiple_choice", "blue jay"),
        ("It flies.\nanswer: Blue Jay", "multiple_choice", "blue jay"),
        ("Answer: (C) green frog", "multiple_choice", "green frog"),
        ("Answer: **b**", "multiple_choice", "blue jay"),
        ("Answer: (D)", "multiple_choice", ""),
        ("Answer: A blue jay", "multiple_choice", "blue jay"),
        ("Answer: b. blue jay", "multiple_choice", "blue jay"),
        ("Answer: C", "multiple_choice", "green frog"),
        ("Answer: Both of them", "multiple_choice", ""),
        ("It is in the ward.\nAnswer:  The Ward.", "text", "the ward"),
        ("I cannot help with that.", "text", ""),
        ("", "number", ""),
    ],
)
def test_the_last_marked_answer_is_read_in_canonical_form(text, kind, answer):
    assert read(text, kind) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("**42.0**", "42"),
        (r"Thus \[ \boxed{1,234} \]", "1234"),
        ("**Final Answer:**\n\\[\n\\boxed{\\text{7 apples}}\n\\]", "7"),
        (r"The answer is $\frac{3}{4}$.", "3/4"),
        (r"Answer: \$1{,}500", "1500"),
        ("It comes to $1.5 million", "1500000"),
        ("Answer: $2bn", "2000000000"),
        ("Answer: 5m of rope", "5"),
        ("Answer: 2 1/2 hours", "5/2"),
        ("Answer: 42%", "42"),
        ("The answer is (10 * 45).", "450"),
        ("The answer is (16 - 12) * 4.", "16"),
        ("Answer: 10 × 45 ÷ 3", "150"),
        ("Answer: 2-3", ""),
        ("The answer is 39. In 2020 it was 7.", "39"),
        ("Answer: 3 or 4", ""),
        ("Answer: 5 hours and 20 minutes", ""),
        ("Answer: 12 and a half of 30", "25/2"),
        ("I'm sorry, I can't solve that in 2 steps.", ""),
        ("Answer: 9**9**9**9", ""),
        ("Answer: 1/0", ""),
        ("We start with 5 eggs, so we have 5 - 2 = 3 eggs", "3"),
        ("Answer: 24 = 6 x 4", "24"),
        ("Answer: 24 = 6 boxes x 4", "24"),
        ("Answer: 3(4+5)", "27"),
        ("Answer: 3(n+5)", ""),
        ("Answer: x = 4, y = 9", ""),
        ("Answer: 6 pens + 2 pens", ""),
        ("Answer: 6 times", "6"),
        ("Answer: 6 plus some more", ""),
        ("Answer: 5 + 3 = 8 (2 + 6 = 8 as well)", "8"),
        ("Answer: one half", ""),
        ("They have 11 pens (4 + 7)", "11"),
        ("They have $17 ($50 - $33)", "17"),
        ("They have 50 - x", ""),
        ("- 4 red pens\n- 7 blue pens", "7"),
        ("In all it is 6 + 6 + 6 +", ""),
        ("The lawn has 25 m^2", "25"),
        ("The lawn is 10⁴ m²", "10000"),
    ],
)
def test_numbers_are_read_as_models_write_them(text, answer):
    assert read(text, "number") == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer must be a bird. So the answer is (b) blue jay.", "blue jay"),
        ("Therefore, the correct answer choice is (C) green frog.", "green frog"),
        ("It flies. So the correct choice is **(B)**.", "blue jay"),
        ("In the end she has the (A) red fox.", "red fox"),
        ("In the end she has the red fox.", "red fox"),
        ("green frog", "green frog"),
        ("Answer: (A) blue jay", "blue jay"),  # a slip of the letter: the text was concluded
        ("Answer: (A) the one that runs", "red fox"),
        ("So the answer is (a) red fox or (b) blue jay.", ""),
        ("So the answer is (a) red fox, (b) blue jay, or (c) green frog.", ""),
        ("Answer: (B), because (A) and (C) cannot fly", "blue jay"),
        ("It may be the red fox or the blue jay.", ""),
        ("I'm sorry, but I can't say whether it is the red fox.", ""),
    ],
)
def test_choices_are_read_as_models_write_them(text, answer):
    assert read(text, "multiple_choice") == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('So, the final result is "yajc".', "yajc"),
        ("Putting them all together, we get: yajc", "yajc"),
        ("Now we concatenate them:\n\nyajc", "yajc"),
        ("y + a + j + c = yajc", "yajc"),
        ("Paris", "paris"),
        ("It is a long story that comes to no end at all", ""),
        ("The answer must be found by somebody who looks for it", ""),
    ],
)
def test_a_text_without_a_mark_is_what_its_end_leads_up_to(text, answer):
    assert read(text, "text") == answer


@pytest.mark.parametrize("said", ["No.", "no, it would not", "probably no", 'Most likely "no".'])
def test_a_label_may_be_hedged_and_explained(said):
    assert LABEL.is_correct(read(f"Well.\nAnswer: {said}", "label"), "No")
    assert not LABEL.is_correct(read(f"Well.\nAnswer: {said}", "label"), "Yes")
    assert not LABEL.is_correct("not sure", "no")


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("cost-plus type and the fixed-price type", True),
        ("- Fixed-price type\n- Cost-plus type", True),
        ("a the cost-plus type, fixed-price type, fixed-price type.", True),
        ("fixed-price type", False),
        ("fixed-price type; cost-plus type; time-and-material type", False),
    ],
)
def test_several_labels_are_a_set(answer, right):
    assert LABELS.is_correct(answer, "fixed-price type; cost-plus type") is right


def test_several_numbers_are_compared_as_numbers():
    assert LABELS.is_correct("$2,019 and $1.5 million", "1,500,000; 2019")
    assert LABELS.is_correct("-22.2222%", "-22.22 %")
    assert not LABELS.is_correct("22.22", "-22.22")


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("22.2222", "22.22", True),
        ("22.2", "22.22", False),
        ("22.226", "22.22", False),
        ("1.52 million", "1.5 million", True),
        ("1,560,000", "1.5 million", False),
        ("13.4", "13", False),
        ("1/3", "0.33", True),
    ],
)
def test_a_gold_number_with_decimals_was_rounded(answer, gold, right):
    assert NUMBER.is_correct(read(f"Answer: {answer}", "number"), gold) is right


def test_an_option_that_names_others_is_one_of_its_own():
    options = ("Nitrogen", "Oxygen", "Both (a) and (b)", "None")
    for said in ("Both (a) and (b)", "C", "(C) Both (a) and (b)"):
        assert CHOICE.canonicalize(said, options) == "Both (a) and (b)"
    assert CHOICE.canonicalize("(A) or (B)", options) == ""


def test_a_large_number_is_exact():
    assert NUMBER.canonicalize("1e300") == str(10**300)


def test_a_rationale_ends_where_its_answer_begins():
    assert split_answer("One step.\nAnswer: x\n") == ("One step.", "x")
    assert split_answer("One step.\n\n**Answer:** x\n") == ("One step.", "x")


def test_equal_numbers_are_equal_however_they_are_written():
    assert NUMBER.is_correct("1,000.0", "1000")
    assert not NUMBER.is_correct("1000.1", "1000")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("3 + 4 = 7.\nAnswer: 7\nQuestion: 8 + 1\nAnswer: 9", "3 + 4 = 7.\nAnswer: 7\n"),
        ("Answer: (B) blue jay\n\n", "Answer: (B) blue jay\n"),
        ("So.\n**Answer:** -5\nmore", "So.\n**Answer:** -5\n"),
        ("Answer:\n\n $5 \nmore", "Answer:\n\n $5 \n"),
        ("Answer: 12", None),  # the line may go on
        ("Answer: \n", None),
        ("To get the Answer: add.\nThen", None),  # no line of its own
        ("My answer: 7\n", None),
    ],
)
def test_a_text_is_over_with_its_answer_line_and_not_before(text, kept):
    match = ANSWER_LINE.search(text)
    assert (text[: match.end()] if match else None) == kept
    if match:
        first = read(text[: match.end()], "text")
        assert first and first == read(text.split("\nQuestion")[0], "text")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("#### Cost of the pens:\n5 x 3 = 15\nThe answer is 15.", "15"),
        ("Final Answer: How many pens are left? (Round up.)\nThere are 9.\nThe answer is 9.", "9"),
        ("Final Answer: Calculate the cost of 3 pens.\nIt is 5 + 7 = 12.\nThe answer is 12.", "12"),
        ("Final Answer: He pays for 4 weeks to save $90. The answer is 4.", "4"),
        ("The answer is not 7. In all there are 8 pens.", "8"),
        ('{"reasoning": "So \\(x = 3\\) holds", "answer": "3"}', "3"),
        ('{"reasoning": "First there are 4 pens, then 5 more', ""),
        ("It lasts from 9:20 to 11:40", ""),
        ("Final Answer: How many pens?\nThe answer is 3 x 4. So the answer is 12.", "12"),
        ("Final Answer: Let x be it.\nThen x + 3 = 9. So x is 6. The answer is 6.", "6"),
        ("Answer: 6\nI checked 3 + 3. The answer is correct.", "6"),
        ("He said in answer: he has 5 pens.\nThey add up.\nSo the answer is 6.", "6"),
    ],
)
def test_the_last_statement_of_an_answer_counts(text, answer):
    assert read(text, "number") == answer


def test_an_object_that_latex_breaks_keeps_its_reasoning():
    text = '```json\n{"reasoning": "So \\(x = 3\\) holds", "answer": "3"}\n```'
    assert split_answer(text) == ("So \\(x = 3\\) holds", "3")


def test_a_choice_is_concluded_before_the_last_sentence():
    text = "It sings. The best guess would be (B). The red fox is what the others took it for."
    assert read(text, "multiple_choice") == "blue jay"


def test_a_long_text_that_is_cut_off_names_no_choice():
    text = "We look at every animal in turn. " * 12 + "While the red fox seems to"
    assert read(text, "multiple_choice") == ""
    assert read(text + "\nB. blue jay", "multiple_choice") == "blue jay"


@pytest.mark.parametrize(
    "text", ["It is 3/4/2021 today. In a week it would be 03/11/2021.", "The date is 03/11/2021."]
)
def test_a_sentence_that_ends_in_a_date_is_that_date(text):
    assert read(text, "text") == "3/11/2021"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("They differ in size. So, yes, it fits.", "yes"),
        ("There is no way to know.", ""),
        ("This cannot be answered with a simple yes or no.", ""),
        ("In some towns, no, and in others, yes.", ""),
    ],
)
def test_a_label_is_a_clause_of_the_last_sentence(text, answer):
    assert LABEL.with_labels(("yes", "no")).extract_answer(text) == answer
