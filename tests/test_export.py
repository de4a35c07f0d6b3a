"""An exported folder: transformers loads it and it answers as in the run. It has no private data,
and it is complete or does not exist.
"""

import json
import multiprocessing
import os
import re
import shlex
import shutil
import signal
from contextlib import chdir
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML
from transformers import AutoModelForCausalLM, AutoTokenizer

import bridgekd
from bridgekd.cli.main import main
from bridgekd.errors import InputError
from bridgekd.io.row_files import read_rows
from bridgekd.prompts import render_cot_prompt
from bridgekd.records import Example, Prediction, Rationale
from conftest import CANARY

KILLED = multiprocessing.get_context("forkserver")
KILLED.set_forkserver_preload(["bridgekd.lm.training_loop", "bridgekd.lm.score", "bridgekd.api"])


@pytest.fixture(scope="module")
def bridge(runs, tmp_path_factory):
    """The exported folder of the run's own student."""
    return bridgekd.export("tiny", tmp_path_factory.mktemp("out") / "student", store=runs).folder


@pytest.fixture(scope="module")
def direct(runs, tmp_path_factory):
    to = tmp_path_factory.mktemp("out") / "direct"
    return bridgekd.export("tiny", to, arm="direct", store=runs).folder


def made(runs, stage):
    """The folders of a stage in the order of the run."""
    journal = json.loads((runs / "tiny.json").read_text())
    return [runs / row["folder"] for row in journal["stages"] if row["stage"] == stage]


def predictions_of(runs, arm):
    (evaluation,) = made(runs, "evaluate")
    manifest = json.loads((evaluation / "manifest.json").read_text())
    position = [a["name"] for a in manifest["settings"]["arms"]].index(arm)
    folder = runs / manifest["inputs"]["predictions"][position]["folder"]
    return {r.id: r.text for r in read_rows(folder / "predictions.parquet", Prediction)}


def answers_of(folder, examples):
    """The answers of an exported folder to the messages alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    answers = {}
    for example in examples:
        messages = [{"role": m.role, "content": m.content} for m in render_cot_prompt(example)]
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        new = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
        answers[example.id] = tokenizer.decode(new, skip_special_tokens=True).strip()
    return answers


def front_matter(path):
    return YAML(typ="safe", pure=True).load(path.read_text().split("---\n")[1])


def rows_of(folder):
    lines = (folder / "data" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("arm", ["bridge", "direct", "assistant"])
def test_transformers_gives_the_answers_of_the_run(runs, tmp_path, arm):
    bridgekd.export("tiny", tmp_path / "out", arm=arm, store=runs)
    (test,) = made(runs, "load_test")
    examples = read_rows(test / "test.parquet", Example)
    expected = predictions_of(runs, arm)
    assert any(expected.values())
    assert answers_of(tmp_path / "out", examples) == expected


def test_arms_of_a_comparison_have_different_answers(runs):
    assert predictions_of(runs, "bridge") != predictions_of(runs, "assistant")


def test_generation_is_greedy_and_stops_as_in_the_run(bridge):
    settings = json.loads((bridge / "generation_config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(bridge)
    assert settings["do_sample"] is False
    assert settings["max_new_tokens"] == 8
    assert tokenizer.eos_token_id in settings["eos_token_id"]
    assert not {"temperature", "top_p", "top_k", "repetition_penalty"} & settings.keys()


def test_code_of_the_card_works(bridge, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (bridge / "README.md").read_text(), re.DOTALL)
    question = re.search(r'question = "(.*)"', code)[1]
    with chdir(bridge):
        exec(code, {})
    expected = answers_of(bridge, [Example("a", question)])
    assert capsys.readouterr().out.strip() == expected["a"]


def test_card_has_the_metrics_of_the_run(runs, bridge):
    (evaluation,) = made(runs, "evaluate")
    arm = json.loads((evaluation / "metrics.json").read_text())["arms"]["bridge"]
    card = (bridge / "README.md").read_text()
    low, high = (f"{end:.1%}".replace("%", " %") for end in arm["ci95"])
    accuracy = f"{arm['accuracy']:.1%}".replace("%", " %")
    assert f"| Student, BRIDGE | {accuracy} | {low} to {high} | 20 |" in card
    assert all(f"| {domain} | " in card for domain in arm["by_domain"])
    assert f"12 answers for ${arm['spend_usd']:.4f}" in card
    assert "sandbox-teacher (sandbox)" in card and "20% of the pool's questions" in card
    assert "terms" in card and "restrict" in card
    assert front_matter(bridge / "README.md")["library_name"] == "transformers"
    assert "license" not in front_matter(bridge / "README.md")  # it is unknown


def test_license_of_the_base_model_is_read_from_its_card(runs, tmp_path):
    card = runs.parent / "model" / "README.md"
    card.write_text("---\nlicense: apache-2.0\n---\n# A base\n")
    folder = bridgekd.export("tiny", tmp_path / "out", store=runs).folder
    card.unlink()
    assert front_matter(folder / "README.md")["license"] == "apache-2.0"
    assert "The card of model says `apache-2.0`." in (folder / "README.md").read_text()


def test_only_kept_rationales_are_exported_and_dropped_ones_are_counted(runs, direct):
    _, model = made(runs, "train_student")
    check = json.loads((model / "manifest.json").read_text())["inputs"]["rationales"][0]["folder"]
    rationales = read_rows(runs / check / "rationales.parquet", Rationale)
    kept = [r for r in rationales if r.kept]
    assert 0 < len(kept) < len(rationales)
    rows = rows_of(direct)
    assert [(r["id"], r["rationale"]) for r in rows] == [(r.id, r.text) for r in kept]
    assert {r["source"] for r in rows} == {"teacher"} and all(r["kept"] for r in rows)
    card = (direct / "data" / "README.md").read_text()
    assert f"| wrong answer | {len(rationales) - len(kept)} |" in card
    assert f"| teacher | {len(kept)} |" in card


def test_rows_have_the_format_of_trl_with_separate_rationale_and_answer(bridge):
    rows = rows_of(bridge)
    assert len(rows) == 60
    for row in rows:
        (prompt,), (completion,) = row["prompt"], row["completion"]
        assert (prompt["role"], completion["role"]) == ("user", "assistant")
        assert completion["content"] == f"{row['rationale']}\nAnswer: {row['answer']}"
        assert row["source"] == "assistant"
    assert pq.read_table(bridge / "data" / "train.parquet").to_pylist() == rows


def test_data_folder_loads_as_a_dataset(bridge, tmp_path):
    split = datasets.load_dataset(str(bridge / "data"), split="train", cache_dir=str(tmp_path))
    assert split.to_list() == rows_of(bridge)


def test_no_file_contains_a_path_key_or_address_of_the_user(runs, bridge):
    private = [
        str(runs.parents[2]),
        str(Path.home()),
        os.getcwd(),
        CANARY,
        "TEACHER_KEY",
        "127.0.0.1",
    ]
    files = [path for path in bridge.rglob("*") if path.is_file()]
    assert len(files) >= 9
    for path in files:
        content = path.read_bytes()
        assert not [word for word in private if word.encode() in content], path


def test_folder_that_is_not_empty_is_refused(runs, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"out is not empty\. Export to another folder"):
        bridgekd.export("tiny", tmp_path / "out", store=runs)
    assert os.listdir(tmp_path) == ["out"] and os.listdir(tmp_path / "out") == ["mine.txt"]


def export_and_die(store, to):
    def die(what, done, total):
        if what == "export" and done == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    bridgekd.export("tiny", to, store=store, progress=die)


def test_killed_export_leaves_no_folder_and_the_next_one_is_complete(runs, bridge, tmp_path):
    process = KILLED.Process(target=export_and_die, args=(runs, tmp_path / "out"))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    bridgekd.export("tiny", tmp_path / "out", store=runs)
    assert os.listdir(tmp_path) == ["out"]
    names = [sorted(p.relative_to(f) for p in f.rglob("*")) for f in (bridge, tmp_path / "out")]
    assert names[0] == names[1]


def test_failed_export_leaves_nothing(runs, tmp_path):
    def fail(what, done, total):
        if what == "export" and done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bridgekd.export("tiny", tmp_path / "out", store=runs, progress=fail)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arm", "complaint"),
    [
        ("dirct", "Arm 'dirct' of run 'tiny' is unknown. Did you mean 'direct'"),
        (
            "student_base",
            "'student_base' of run 'tiny' was not trained on rationales. Choose: assistant",
        ),
    ],
)
def test_arm_that_cannot_be_exported_is_refused(runs, tmp_path, arm, complaint):
    with pytest.raises(InputError, match=complaint):
        bridgekd.export("tiny", tmp_path / "out", arm=arm, store=runs)
    assert os.listdir(tmp_path) == []


def test_run_without_evaluated_model_cannot_be_exported(runs, tmp_path):
    journal = json.loads((runs / "tiny.json").read_text())
    left = [entry for entry in journal["stages"] if entry["stage"] not in ("evaluate", "report")]
    for entry in left:
        (tmp_path / entry["folder"]).symlink_to(runs / entry["folder"])
    (tmp_path / "pilot.json").write_text(json.dumps(journal | {"stages": left}))
    with pytest.raises(InputError, match="'pilot' has no evaluated model"):
        bridgekd.export("pilot", tmp_path / "out", store=tmp_path)


def test_unfinished_run_cannot_be_exported(runs, tmp_path):
    journal = json.loads((runs / "tiny.json").read_text()) | {"state": "interrupted"}
    (tmp_path / "half.json").write_text(json.dumps(journal))
    with pytest.raises(InputError, match="'half' is interrupted, not finished"):
        bridgekd.export("half", tmp_path / "out", store=tmp_path)
    with pytest.raises(InputError, match=r"no run 'other' in .*\. Its runs: half"):
        bridgekd.export("other", tmp_path / "out", store=tmp_path)


def test_run_with_missing_folders_cannot_be_exported(runs, tmp_path):
    shutil.copy(runs / "tiny.json", tmp_path)
    with pytest.raises(
        InputError, match=r"load_pool-.* of run .* is missing\. Run its recipe again"
    ):
        bridgekd.export("tiny", tmp_path / "out", store=tmp_path)


def test_export_does_not_depend_on_changes_after_the_run(runs, bridge, tmp_path):
    """Arms are read from manifests, so new data files do not change a finished run."""
    train = runs.parent / "train.jsonl"
    before = train.read_bytes()
    train.write_bytes(before.splitlines(keepends=True)[0])
    try:
        bridgekd.export("tiny", tmp_path / "out", store=runs)
    finally:
        train.write_bytes(before)
    assert rows_of(tmp_path / "out") == rows_of(bridge)


def documented_commands():
    text = (Path(__file__).parents[1] / "docs" / "export.md").read_text()
    commands = re.findall(r"^(bridgekd (?:export|ask) my-task .*?)(?:\s+#.*)?$", text, re.MULTILINE)
    return [command for command in commands if "<" not in command and "--choices" not in command]


def test_documented_commands_work_on_a_finished_run(runs, tmp_path, capsys):
    commands = documented_commands()
    assert len(commands) >= 3
    with chdir(tmp_path):
        for command in commands:
            _, *arguments = shlex.split(command.replace("my-task", "tiny", 1))
            assert main([*arguments, "--store", str(runs)]) == 0, capsys.readouterr()
    assert "Student, BRIDGE" in capsys.readouterr().out
