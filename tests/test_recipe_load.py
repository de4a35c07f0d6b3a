"""Recipes: YAML 1.2 with defaults, and errors with the line and the most similar known key."""

from pathlib import Path

import pytest

import bridgekd
from bridgekd.errors import InputError
from bridgekd.io.load_recipe import load_recipe
from bridgekd.recipe import Recipe, resolve_count


def changed(task, old, new):
    path = task / "task.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    return path


def test_shortest_recipe_has_defaults_and_name_of_its_file(task):
    recipe = load_recipe(task / "task.yaml")
    assert (recipe.name, str(recipe.method), str(recipe.select.strategy)) == (
        "task",
        "bridge",
        "bridge_greedy",
    )


def test_yaml_is_1_2(task):
    path = changed(task, "model: large", "model: no")
    recipe = load_recipe(path, ["assistant.train.learning_rate=1e-4", "data.columns.domain=no"])
    assert recipe.teacher.model == "no"
    assert recipe.data.columns.domain == "no"
    assert recipe.assistant.train.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("budget:", "buget:", r"line 3: Unknown key 'buget'\. Did you mean 'budget'"),
        (
            "queries: 5",
            "querys: 5",
            r"Unknown key 'budget.querys'\. Did you mean 'queries'",
        ),
        ("student: {model: model}", "", r"The key 'student' is missing"),
        ("queries: 5", "queries: 0", r"line 3: budget: A budget of 0 queries buys nothing"),
        (
            "queries: 5",
            "queries: five",
            r"line 3: budget.queries: Give a whole .* Found 'five'",
        ),
        ("queries: 5", "queries: 120%", r"budget.queries: Give .* from 0% to 100% .* Found '120%'"),
        ("queries: 5, usd: 1", "usd: 0", r"A budget of 0 dollars buys nothing"),
        ("{queries: 5, usd: 1}", "{}", r"at least one of queries, usd and tokens"),
        ("type: number", "type: essay", r"line 1: Unknown answer type 'essay'. Known: label,"),
        ("{model: large", "{model: large]", r"task.yaml line 2: Broken YAML"),
        (
            "model: large",
            "model: large, base_url: localhost:4000",
            r"base_url: Give an address",
        ),
        (
            "model: large",
            "model: large, base_url: 'https://me:sk-1@h/v1'",
            r"without a user, key",
        ),
        (
            "model: large",
            "model: large, prompt: {template: '{Question}'}",
            r"has no \{question\}",
        ),
        ("model: large", "model: m, prompt: {template: '{question}{answer}'}", r"reveal_answer"),
    ],
)
def test_error_names_key_and_line(task, old, new, message):
    with pytest.raises(InputError, match=message):
        load_recipe(changed(task, old, new))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("alpha", "Write section.key=value"),
        ("select.round=1", r"Unknown key 'select.round'\. Did you mean 'n_rounds'"),
        ("select.strategy={name: deita, alpha: 1}", r"task.yaml: strategy deita: unknown option"),
        ("select.n_rounds=0", r"select.n_rounds: .* greater than or equal to 1\. Found 0"),
    ],
)
def test_override_is_checked_like_file(task, override, message):
    with pytest.raises(InputError, match=message):
        load_recipe(task / "task.yaml", [override])


def test_recipe_that_is_not_utf_8_is_refused(task):
    path = task / "latin.yaml"
    path.write_bytes("# Übung\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin.yaml is not UTF-8 text"):
        load_recipe(path)


def test_commented_template_shows_defaults(task):
    """Every key of the template that claims to show a default does."""
    template = load_recipe(Path(bridgekd.__file__).with_name("cli") / "recipe_template.yaml")
    short = Recipe(
        data={"train": "a", "test": "b"},
        teacher={"model": "m"},
        budget={"queries": 1},
        assistant={"model": "m"},
        student={"model": "m"},
    )
    for section in ("select", "check", "annotate", "evaluate"):
        assert getattr(template, section) == getattr(short, section)
    for section, keys in {
        "teacher": ("max_tokens", "temperature", "max_concurrent_requests", "timeout_s", "prompt"),
        "data": ("columns", "validation_size", "answer_type"),
        "assistant": (
            *("warm_up_size", "answer_weight", "max_new_tokens"),
            *("generation_backend", "scoring_backend", "server"),
        ),
        "student": ("target_format", "answer_weight", "max_new_tokens"),
    }.items():
        for key in keys:
            shown, default = (
                getattr(getattr(template, section), key),
                getattr(getattr(short, section), key),
            )
            assert shown == default, f"{section}.{key}"


@pytest.mark.parametrize(
    ("amount", "n", "count"), [("5%", 4000, 200), ("2%", 30, 1), ("100%", 7, 7), (9, 4, 9)]
)
def test_percentage_is_rounded_up_and_number_is_kept(amount, n, count):
    assert resolve_count(amount, n) == count


@pytest.mark.parametrize(
    "address", ["https://me:sk-canary@host/v1", "https://host/v1?key=sk-canary", "sk-canary"]
)
def test_key_in_address_is_not_repeated(task, address):
    with pytest.raises(InputError, match="base_url") as caught:
        load_recipe(changed(task, "model: large", f"model: large, base_url: '{address}'"))
    assert "canary" not in str(caught.value)
