"""Cards: what names and models hold is text in its place, and nothing is told that is not known."""

from dataclasses import replace

from ruamel.yaml import YAML

from bridgekd.report.cards import Card, Figure, data_card, model_card
from bridgekd.report.evidence import Purchase

HOSTILE = "a|b\n# <script>`[x](y)*"
CARD = Card(
    run="tiny",
    arm="direct",
    title="Student, direct",
    how="Method: direct.",
    base="owner/base",
    base_on_hub=True,
    licence={},
    train_data="train.jsonl",
    test_data="test.jsonl",
    n_pool=1000,
    n_validation=0,
    contamination="0 of 20 test questions stand word for word in the train file.",
    teacher="large",
    provider="openai",
    budget="50 queries",
    n_queries=50,
    spend_usd=1.25,
    purchases=(Purchase("Chosen by: random", 50, 1.25, "queries", 40, {"wrong answer": 10}, {}),),
    figures=(Figure("Student, direct", 0.5, 0.299, 0.701, 20),),
    by_domain=(),
    n_rows=40,
    n_questions=40,
    n_too_long=0,
    sources={"teacher": 40},
    dropped={"wrong answer": 10},
    rules=("correct",),
    two_task=False,
    n_updates=4,
    best_update=4,
    dtype="bfloat16",
    n_parameters=1_000_000,
    max_new_tokens=256,
    prompt_end="\nThink.",
    notes=(),
    libraries="bridgekd 0.1.0",
)


def front_matter(text):
    return YAML(typ="safe", pure=True).load(text.split("---\n")[1])


def test_a_base_on_the_hub_and_its_licence_are_in_the_front_matter():
    licence = {"license": "other", "license_name": "qwen", "license_link": "https://x.example/l"}
    told = front_matter(model_card(replace(CARD, licence=licence)))
    assert told["base_model"] == "owner/base"
    assert {k: told[k] for k in licence} == licence
    local = front_matter(model_card(replace(CARD, base="a-folder", base_on_hub=False)))
    assert not {"base_model", "license"} & local.keys()


def test_names_stay_in_their_cells_and_are_no_markup():
    figure = Figure(HOSTILE, 0.5, 0.3, 0.7, 20)
    card = replace(CARD, teacher=HOSTILE, by_domain=(figure,), dropped={HOSTILE: 1})
    for text in (model_card(card), data_card(card)):
        assert "a\\|b # \\<script>" in text
        assert "<script>" not in text.replace("\\<script>", "")
        assert "\n# \\<" not in text


def test_one_task_and_two_are_told_apart():
    assert "two tasks" not in model_card(CARD)
    assert "two tasks" in model_card(replace(CARD, two_task=True))
    assert "null in a row" in data_card(replace(CARD, two_task=True))


def test_unchecked_rationales_are_said_to_be_so():
    assert "no answer was checked" not in data_card(CARD)
    assert "no answer was checked" in data_card(replace(CARD, rules=("all",)))


def test_options_are_in_the_code_where_the_task_has_them():
    end = "\n(A) one's\n(B) two\nThink."
    (line,) = (
        row for row in model_card(replace(CARD, prompt_end=end)).splitlines() if "(B)" in row
    )
    scope = {"question": "Q?"}
    exec(line, scope)
    assert scope["messages"][0]["content"] == "Q?" + end


def test_every_table_has_rows_as_wide_as_its_head():
    for text in (model_card(CARD), data_card(CARD)):
        blocks = [b.splitlines() for b in text.split("\n\n") if b.startswith("|")]
        assert len(blocks) >= 2
        for head, *rows in blocks:
            assert {row.replace("\\|", "").count("|") for row in rows} == {head.count("|")}
