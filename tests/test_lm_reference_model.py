"""A training with a reference model, and what its log reports."""

import json

import pytest
import torch

import bridgekd
from bridgekd import lm
from bridgekd.errors import InputError
from bridgekd.io.row_files import read_rows
from bridgekd.lm.objectives import OBJECTIVES, TokenBatch
from bridgekd.lm.objectives.forward_kl import compute_forward_kl
from bridgekd.lm.tokenization import tokenize_sequences
from bridgekd.records import Rationale
from bridgekd.sandbox.export import export_world
from bridgekd.sandbox.step_checker import count_wrong_steps
from bridgekd.stages.check_rationales import drop_duplicates
from bridgekd.variants import VariantRef
from faulty_teacher import run_teacher_server
from test_lm_training_loop import ROWS, tune, weights
from tiny_models import CHATML, tiny_model, tiny_tokenizer, write_tiny


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return (student, reference model, reference model with another vocabulary)."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = tiny_tokenizer("word_level", CHATML)
    for name, seed in (("student", 0), ("reference", 1)):
        tiny_model("llama", len(tokenizer), seed).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder / "student", folder / "reference", write_tiny(folder / "other", "llama")


def distance(folder, reference):
    """Return the mean KL from the reference model over the targets of the rows."""
    trained, other = lm.load_model(folder, device="cpu"), lm.load_model(reference, device="cpu")
    total = 0.0
    for row in tokenize_sequences(trained.tokenizer, ROWS):
        ids, counted = torch.tensor([row.ids[:-1]]), torch.tensor(row.weights[1:])
        with torch.no_grad():
            ours, theirs = (m.model(input_ids=ids).logits[0] for m in (trained, other))
        ids = ids[0]
        batch = TokenBatch(ours, ids, counted, torch.zeros_like(ids), theirs)
        total += float(compute_forward_kl(batch, 2.0))
    return total / len(ROWS)


def blend(weight, reference):
    ref = {"name": "forward_kl", "kd_weight": weight, "kd_temperature": 2.0}
    objective = OBJECTIVES.resolve(VariantRef.model_validate(ref))
    return {"objective": objective, "reference": lm.ReferenceSpec(reference, None)}


def test_student_moves_toward_reference_model(models, tmp_path):
    student, reference, _ = models
    logs = [
        tune(student, tmp_path / str(weight), **blend(weight, reference)) for weight in (0.0, 0.9)
    ]
    assert [log.used_reference for log in logs] == [True, True]
    assert distance(tmp_path / "0.9", reference) < 0.8 * distance(tmp_path / "0.0", reference)


def test_reference_model_with_weight_0_changes_nothing(models, tmp_path):
    student, reference, _ = models
    tune(student, tmp_path / "alone")
    tune(student, tmp_path / "with_reference", **blend(0.0, reference))
    alone, with_reference = weights(tmp_path / "alone"), weights(tmp_path / "with_reference")
    assert all(torch.allclose(alone[name], with_reference[name], atol=1e-6) for name in alone)


def test_reference_model_with_other_vocabulary_is_ignored_and_logged(models, tmp_path):
    student, _, other = models
    log = tune(student, tmp_path / "out", **blend(0.5, other))
    tune(student, tmp_path / "alone")
    assert not log.used_reference
    alone, out = weights(tmp_path / "alone"), weights(tmp_path / "out")
    assert all(torch.equal(alone[name], out[name]) for name in alone)


def test_objective_without_reference_model_raises_error(models, tmp_path):
    student, reference, _ = models
    with pytest.raises(InputError, match="objective forward_kl needs a reference model"):
        tune(student, tmp_path / "out", **blend(0.5, reference) | {"reference": None})


def test_first_of_equal_rationales_is_kept():
    rationales = [Rationale("a", text, "x", "assistant", kept) for text, kept in
            (("one", True), ("two", True), ("one", True), ("three", False))]  # fmt: skip
    assert [r.kept for r in drop_duplicates(rationales)] == [True, True, False, False]
    assert drop_duplicates(rationales)[2].reason == "duplicate"


def test_correct_answer_with_text_of_wrong_one_is_kept():
    rationales = [Rationale("a", "4 + 3.", "8", "assistant", False, "wrong answer")]
    rationales += [Rationale("a", "4 + 3.", "7", "assistant", True)] * 2
    assert [row.kept for row in drop_duplicates(rationales)] == [False, True, False]


def test_mentor_kd_trains_on_correct_samples_and_assistant_distribution(tmp_path):
    recipe = export_world(tmp_path / "w", n_pool=12, n_validation=2, n_test=2, n_instructions=8)
    quick = [
        *(f"{who}.updates=2" for who in ("student.train", "student.instruction_train")),
        *(f"assistant.{how}.updates=1" for how in ("train", "warm_up_train")),
        *(f"{who}.n_evaluations=1" for who in ("student.train", "assistant.train")),
        "assistant.warm_up_size=0", "evaluate.teacher_queries=0", "budget.queries=4",
        "assistant.max_new_tokens=80", "student.max_new_tokens=8",
        "student.instruction_data=null",
    ]  # fmt: skip
    with run_teacher_server(wrong_rate=0.0) as teacher:
        sets = [*quick, f"teacher.base_url={teacher.base_url}"]
        result = bridgekd.run(
            recipe, overrides=sets, methods=["mentor_kd"], checkers={"sandbox": count_wrong_steps}
        )
    store = recipe.parent / "runs"
    (file,) = store.glob("sample_rationales-*/rationales.parquet")
    rows = read_rows(file, Rationale)
    assert len(rows) == 3 * 12
    assert all(r.kept or r.reason for r in rows) and any(r.kept for r in rows)
    (manifest,) = store.glob("train_student-*/manifest.json")
    assert json.loads(manifest.read_text())["stats"]["used_reference"] is True
    row = result.metrics.arms["mentor_kd"]
    (file,) = store.glob("check_rationales-*/rationales.parquet")
    rows += read_rows(file, Rationale)  # as the code of the paper does
    assert row.n_queries == 4 and row.training_set.n_kept == (sum(r.kept for r in rows),)
