"""Bad recipes and data files end in one short sentence with the place, never in a traceback."""

import json
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from answer_types import get_type
from bridgekd import api
from bridgekd.cli.main import main
from bridgekd.errors import InputError
from bridgekd.io.dataset_reader import read_examples
from bridgekd.io.load_recipe import load_recipe, parse_methods
from bridgekd.io.read_yaml import MAX_CHARACTERS, MAX_DEPTH, MAX_VALUES, read_yaml
from bridgekd.messages import format_text, format_value
from bridgekd.paths import resolve_path
from bridgekd.recipe import ColumnNames, Recipe, TrainOptions, resolve_count


def plan_with(task, *lines):
    path = task / "task.yaml"
    path.write_text(path.read_text() + "\n".join(lines) + "\n")
    return api.plan(path)


def double_aliases(n):
    names = [f"level{i}" for i in range(n)]
    rows = [f"{b}: &{b} [*{a}, *{a}]" for a, b in pairwise(names)]
    return "\n".join(["level0: &level0 [1, 2]", *rows])


BEYOND = {
    "characters": ("x" * (MAX_CHARACTERS + 1), "characters"),
    "brackets": ("a: " + "[" * (MAX_DEPTH + 1), f"More than {MAX_DEPTH} levels"),
    "thousands of brackets": ("[" * 100_000, f"More than {MAX_DEPTH} levels"),
    "braces": ("{a: " * 9_000, f"More than {MAX_DEPTH} levels"),
    "dashes": ("- " * 9_000, f"More than {MAX_DEPTH} levels"),
    "values": ("[" + "1," * (MAX_VALUES + 1) + "]", "values"),
    "aliases": (double_aliases(60), "values, counting those that aliases repeat"),
    "a circle": ("a: 1\nb: &b {c: [*b]}", "line 2: The alias \\*b is a part of its own anchor"),
    "no anchor": ("a: *b", r"line 1: The alias \*b has no anchor"),
    "digits": ("a: 1\nb: " + "9" * 5_000, "line 2: A number has 5,000 digits"),
    "hexadecimal digits": ("b: 0x" + "f" * 6_000, "line 1: A number has 6,002 digits"),
}


@pytest.mark.parametrize("text, message", BEYOND.values(), ids=BEYOND)
def test_yaml_beyond_a_bound_is_refused(text, message):
    with pytest.raises(InputError, match=f"^f.yaml.*{message}") as caught:
        read_yaml(text, "f.yaml")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "text, message",
    [
        ("a: !!float x", "'x' is not of the type float"),
        ("a: !!int maybe", "'maybe' is not of the type int"),
        ("a: !!bool 3", "'3' is not of the type bool"),
        ("a: !mine {b: 1}", "The tag !mine has no meaning"),
        ("a: !!binary aGk=", "has no meaning"),
        ("a: .NaN", "not a finite number"),
        ("a: -1e999", "not a finite number"),
        ('a: "\\uDC00"', "half of a surrogate pair"),
        ('a: "x\\0"', "NUL"),
        ('a: "\\UFFFFFFFF"', "Broken YAML"),
        ("a: \x01", r"The character U\+0001"),
        ("b: {a: 1, a: 2}", "The key 'a' is here twice"),
        ("b:\n  a: 1", "a second document|A second document"),
        ("[1]: 2", "A key is not a text"),
        ("<<: 5", "The key << needs the alias of a mapping"),
        ("%YAML 9.9\n---", "Broken YAML"),
        ("@", "Broken YAML"),
    ],
)
def test_yaml_that_is_no_plain_value_is_refused_with_its_line(text, message):
    text = f"{text}\n---\nc: 1" if "second" in message else text
    with pytest.raises(InputError, match=rf"^f.yaml line [123]: .*(?:{message})"):
        read_yaml(text, "f.yaml")


def test_yaml_is_read_as_json_would_be():
    text = """
      dates: [2020-01-02, 2020-13-45, 2020-01-01T00:00:00Z]
      numbers: [1, -1, 1_000, 0x1F, 0o17, 1e3, .5, !!float 2, !!int 3]
      words: [null, ~, true, False, no, off, !!str 5, ! 6, "\\uD83D\\uDE00", 1:30]
      keys: {1: a, yes: b}
    """
    value = read_yaml(text, "f.yaml").value
    assert value["dates"] == ["2020-01-02", "2020-13-45", "2020-01-01T00:00:00Z"]
    assert value["numbers"] == [1, -1, 1000, 31, 15, 1000.0, 0.5, 2.0, 3]
    words = [None, None, True, False, "no", "off", "5", "6", "\U0001f600", "1:30"]
    assert value["words"] == words
    assert value["keys"] == {"1": "a", "yes": "b"}


def test_an_alias_and_a_merge_are_copies(task):
    shared = "assistant: {model: model, train: &t {epochs: 2, batch_size: 8}}"
    student = "student: {model: model, train: {<<: *t, batch_size: 4}, instruction_train: *t}"
    path = task / "task.yaml"
    rest = [line for line in path.read_text().splitlines() if "model: model" not in line]
    path.write_text("\n".join([*rest, shared, student]))
    recipe = load_recipe(path, ["assistant.train.epochs=7"])
    trainings = [recipe.assistant.train, recipe.student.train, recipe.student.instruction_train]
    assert [t.epochs for t in trainings] == [7, 2, 2]
    assert [t.batch_size for t in trainings] == [8, 4, 8]


@pytest.mark.parametrize(
    "line, message",
    [
        ("method: brigde", r"task.yaml line 6: Unknown method 'brigde'\. Did you mean 'bridge'"),
        ("method: {file: nothing.py}", "task.yaml line 6: Cannot read the method file"),
        ("select: {strategy: hardset}", "line 6: Unknown strategy 'hardset'"),
        ("select: {difficulty: {name: loss, x: 1}}", "line 6: .* unknown option 'x'"),
        ("store: ~nobody-here/x", "line 6: store: '~nobody-here/x' is not a usable path"),
        ("ledger: " + "x" * 300, "line 6: ledger: .* A name in it is too long"),
        ("seed: true", "line 6: seed: Give a number"),
        ("pilot: {budget_fraction: true}", "line 6: pilot.budget_fraction: Give a number"),
        ("evaluate: {teacher_queries: 1001%}", "line 6: evaluate.teacher_queries"),
    ],
)
def test_the_place_of_a_wrong_value_is_told(task, line, message):
    with pytest.raises(InputError, match=message):
        plan_with(task, line)


@pytest.mark.parametrize(
    "override",
    ["data.train=no.csv", "data.test=no.csv", "assistant.model=no", "student.model=no",
     "select.embedding_model=no", "student.instruction_data=no.csv",
     "teacher.prompt.few_shot=no.csv"],
)  # fmt: skip
def test_a_missing_file_or_folder_is_told_with_its_key(task, override):
    with pytest.raises(
        InputError, match=f"task.yaml[^ ]*: {override.partition('=')[0]}: There is no "
    ):
        api.plan(task / "task.yaml", overrides=[override])


@pytest.mark.parametrize("value", [5, {"a": "b"}, [], None, ""])
def test_a_few_shot_example_has_three_texts(task, value):
    row = {"question": "q", "rationale": "r", "answer": "a"}
    (task / "shots.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | {"answer": value}))
    sets = ["teacher.prompt.few_shot=shots.jsonl"]
    if value == 5:
        assert api.plan(task / "task.yaml", overrides=sets)
        return
    with pytest.raises(InputError, match=r"shots.jsonl line 2: The 'answer' of the few-shot"):
        api.plan(task / "task.yaml", overrides=sets)


def test_the_columns_of_a_row_are_shortened_in_a_message(task):
    row = {"x" * 5000: "y", "a\x1b[2J": "z"}
    for key, name in (("data.train", "No column"), ("student.instruction_data", "No instruction")):
        (task / "rows.jsonl").write_text(json.dumps(row))
        with pytest.raises(InputError, match=name) as caught:
            api.plan(task / "task.yaml", overrides=[f"{key}=rows.jsonl"], methods=["bridge"])
        assert len(str(caught.value)) < 500 and "\x1b" not in str(caught.value)


def test_a_path_in_a_circle_of_links_is_refused(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(InputError, match=r"'a/c' is not a usable path: Its symbolic links"):
        resolve_path(tmp_path, "a/c")


def find_unbounded(schema, definitions, path=""):
    """Yield the dotted names of the numeric keys without an upper bound."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    options = schema.get("anyOf", ())
    if {"type": "string"} in options and {"type": "integer"} in options:
        return  # a count or a percentage, which has its own check
    for option in options:
        yield from find_unbounded(option, definitions, path)
    for name, part in schema.get("properties", {}).items():
        yield from find_unbounded(part, definitions, f"{path}.{name}")
    for part in [schema["items"]] if isinstance(schema.get("items"), dict) else []:
        yield from find_unbounded(part, definitions, f"{path}[]")
    for part in schema.get("prefixItems", ()):
        yield from find_unbounded(part, definitions, f"{path}[]")
    is_number = schema.get("type") in ("integer", "number")
    if is_number and not schema.keys() & {"maximum", "exclusiveMaximum"}:
        yield path


def test_every_number_of_a_recipe_has_an_upper_bound():
    schema = Recipe.model_json_schema()
    counts = {".pilot.budget_grid[]"}  # increasing up to 1
    assert set(find_unbounded(schema, schema["$defs"])) - counts == set()


@pytest.mark.parametrize(
    "override",
    [
        "student.max_new_tokens=100000000", "train.epochs=1e300", "train.batch_size=100000000",
        "train.max_length=10000000000", "train.learning_rate=1e300", "budget.queries=10000000000",
        "teacher.timeout_s=1e300", "pilot.n_eval=100000000000", "seed=100000000000000000000",
        "hard_limit_usd=1e300", "teacher.price.input=1e300", "runtime.micro_batch_tokens=1e18",
    ],
)  # fmt: skip
def test_a_value_that_no_machine_can_serve_is_refused_by_the_plan(task, override):
    key = override if not override.startswith("train") else f"student.{override}"
    with pytest.raises(InputError, match=r"task.yaml.*(less than or equal|from [01] to|maximum)"):
        api.plan(task / "task.yaml", overrides=[key])


@pytest.mark.parametrize(
    "device, message", [("gpu", "Use auto, cuda"), ("cuda:99", "not available")]
)
def test_a_device_that_is_not_there_stops_a_run_before_it_buys(task, monkeypatch, device, message):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with pytest.raises(InputError, match=message):
        api.run(task / "task.yaml", overrides=[f"device={device}"], consent=lambda plan: 1 / 0)


def test_the_number_of_updates_is_bounded_for_the_rows_there_are():
    options = TrainOptions(epochs=10_000, batch_size=1)
    assert options.compute_n_updates(1000) == 10**7
    with pytest.raises(InputError, match=r"are 10,010,000 updates\. The maximum is 10,000,000"):
        options.compute_n_updates(1001)


def test_a_text_longer_than_the_context_of_the_model_is_refused_by_the_plan(task):
    (task / "model" / "config.json").write_text('{"max_position_embeddings": 500}')
    assert api.plan(task / "task.yaml", overrides=["student.max_new_tokens=500"])
    with pytest.raises(InputError, match=r"student.max_new_tokens is 501, .* 500 tokens"):
        api.plan(task / "task.yaml", overrides=["student.max_new_tokens=501"])


@pytest.mark.parametrize("percent", ["0.0000001%", "0.00002%", "33.3333333%", "5%", "100%"])
def test_a_percentage_is_one_that_a_recipe_can_have(task, percent):
    override = f"evaluate.teacher_queries={percent}"
    recipe = load_recipe(task / "task.yaml", [override])
    assert Recipe.model_validate(recipe.model_dump()) == recipe
    assert resolve_count(recipe.evaluate.teacher_queries, 40) >= 1


@pytest.mark.parametrize("value", ["x" * 10**6, ["y" * 10**6] * 50, {"z" * 999: 10**5000}, 1e9])
def test_a_value_in_a_message_is_one_short_line(value):
    assert len(format_value(value)) <= 80
    assert format_value("a") == "'a'" and format_text("b\n\0\x1b\u202e") == r"b\n\x00\x1b\u202e"


def test_no_message_repeats_a_long_value(task):
    long = "x" * 100_000
    for override in (f"seed={long}", f"{long}=1", f"method={long}", f"data.train={long}", long):
        with pytest.raises(InputError) as caught:
            api.plan(task / "task.yaml", overrides=[override])
        assert len(str(caught.value)) < 600
    with pytest.raises(InputError) as caught:
        parse_methods(f"[{long}]")
    assert len(str(caught.value)) < 300


def test_bad_input_of_the_command_line_is_exit_code_2(task, capsys):
    (task / "task.yaml").write_text("seed: " + "[" * 3000)
    assert main(["plan", str(task / "task.yaml")]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "name, text, place",
    [
        ("d.jsonl", '{"question": "a", "answer": "1", "answer": "2"}', "d.jsonl line 1: The key"),
        ("d.json", '[{"question": "a", "question": "b", "answer": "1"}]', "d.json: The key"),
        (
            "d.jsonl",
            '{"question": "a", "answer": %s}' % ("9" * 5000),
            "d.jsonl line 1: A whole number",
        ),
        ("d.json", '[{"question": "a", "answer": %s}]' % ("9" * 5000), "d.json: A whole number"),
        ("d.json", '[{"question": "a",\n "answer": }]', "d.json: Broken JSON at line 2 column 12"),
        ("d.csv", 'question,answer,c\na,1,"[""\\ud800"", ""b""]"', "d.csv line 2: Half of a"),
        ("d.csv", 'question,answer,c\na,1,"{""A"": 1, ""A"": 2}"', "d.csv line 2: .* twice"),
    ],
)
def test_a_row_of_which_a_part_would_be_lost_is_refused(tmp_path, name, text, place):
    (tmp_path / name).write_text(text + "\n")
    columns = ColumnNames(choices="c" if name == "d.csv" else None)
    with pytest.raises(InputError, match=place) as caught:
        read_examples(tmp_path / name, columns, get_type("text"))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("where", [0, 3, 0.3, 0.5, 0.7, 0.9, -6, -1])
def test_a_damaged_parquet_file_is_refused(tmp_path, where):
    path = tmp_path / "d.parquet"
    table = pa.table({"question": [f"q{i}" * 50 for i in range(50)], "answer": ["1"] * 50})
    pq.write_table(table, path, compression="zstd")
    data = bytearray(path.read_bytes())
    at = int(where * len(data)) if isinstance(where, float) else where
    data[at : at + 5 if at >= 0 else None] = b"\xff" * 5
    path.write_bytes(data)
    try:
        examples = read_examples(path, ColumnNames(), get_type("text"))
    except InputError as exc:
        assert "d.parquet" in str(exc)
    else:
        assert len(examples) == 50


def test_extra_fields_of_the_teacher_are_what_json_can_write(task):
    plan_with(task, "method: direct")
    for value in ("{api-version: 2020-01-01}", '{a: "\\uD83D\\uDE00"}', "{a: [1, null, true]}"):
        assert api.plan(task / "task.yaml", overrides=[f"teacher.extra={value}"]).purchases
    for value in ("{a: !b c}", "{a: .nan}", '{a: "\\uD800"}', '{"\\uD800": 1}'):
        with pytest.raises(InputError, match=r"--set teacher.extra line 1: "):
            api.plan(task / "task.yaml", overrides=[f"teacher.extra={value}"])


def test_double_keys_of_recordings_are_refused(task):
    (task / "r.jsonl").write_text('{"id": "1", "text": "a", "text": "b"}\n')
    assert json.loads((task / "r.jsonl").read_text())["text"] == "b"
    replay = "teacher.transport={name: replay, recordings: r.jsonl}"
    with pytest.raises(InputError, match=r"r.jsonl line 1: The key 'text' is there twice"):
        api.plan(task / "task.yaml", overrides=[replay])
