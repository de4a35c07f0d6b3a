"""A training with a reference model, and what its log reports."""

import json

import pytest
import torch

import bridgekd
from bridgekd import lm
from bridgekd.errors import InputError
from bridgekd.io.row_files import read_rows
from bridgekd.lm.divergence import compute_kl, compute_log_probs
from bridgekd.lm.objectives import OBJECTIVES, TokenBatch
from bridgekd.lm.reference_model import load_reference
from bridgekd.lm.tokenization import find_turn_end_id, tokenize_sequences
from bridgekd.lm.update_schedule import pad_batch
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
        log_q, log_p = compute_log_probs(batch, 2.0)
        total += float(torch.dot(compute_kl(log_p, log_q), counted))
    return total / len(ROWS)


def blend(weight, reference):
    ref = {"name": "forward_kl", "weight": weight, "temperature": 2.0}
    objective = OBJECTIVES.resolve(VariantRef.model_validate(ref))
    return {"objective": objective, "reference": lm.ReferenceSpec(reference, None)}


def test_student_moves_toward_reference_model(models, tmp_path):
    student, reference, _ = models
    for weight in (0.0, 0.9):
        tune(student, tmp_path / str(weight), **blend(weight, reference))
    assert distance(tmp_path / "0.9", reference) < 0.8 * distance(tmp_path / "0.0", reference)


def test_reference_model_with_weight_0_changes_nothing(models, tmp_path):
    student, reference, _ = models
    tune(student, tmp_path / "alone")
    tune(student, tmp_path / "with_reference", **blend(0.0, reference))
    alone, with_reference = weights(tmp_path / "alone"), weights(tmp_path / "with_reference")
    assert all(torch.allclose(alone[name], with_reference[name], atol=1e-6) for name in alone)


def test_reference_model_with_other_tokens_is_refused(models, tmp_path):
    student, _, other = models
    with pytest.raises(InputError, match=r"split '.*' differently: .*model family"):
        tune(student, tmp_path / "out", **blend(0.5, other))


def test_reference_model_reads_its_own_prompt(models, tmp_path):
    """Its distribution is that of the model alone, behind its own template."""
    student, _, _ = models
    tokenizer = tiny_tokenizer(
        "word_level", "{% for m in messages %}{{ m['content'] }} . {% endfor %}"
    )
    tiny_model("llama", len(tokenizer), 1).save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    local = lm.load_model(student, device="cpu")
    spec = lm.ReferenceSpec(tmp_path / "other", None)
    reference = load_reference(spec, local, ROWS, "auto", "forward_kl")
    own = tokenize_sequences(reference.local.tokenizer, ROWS)
    rows = tokenize_sequences(local.tokenizer, ROWS)
    converted = [reference.convert_row(i, row) for i, row in enumerate(rows)]
    assert [row.ids[: row.n_prompt] for row in converted] == [r.ids[: r.n_prompt] for r in own]
    assert [row.ids[row.n_prompt :] for row in converted] == [r.ids[r.n_prompt :] for r in rows]
    batch = pad_batch(converted, 0, "cpu")
    found = reference.read_tokens(batch, batch)[0](slice(None))
    expected = [
        reference.local.model(input_ids=torch.tensor([row.ids])).logits[0, row.n_prompt - 1 : -1]
        for row in converted
    ]
    torch.testing.assert_close(found, torch.cat(expected)[:, : reference.n_shared])
    assert pad_batch(rows, 0, "cpu").targets.tolist() == batch.targets.tolist()


def test_a_turn_end_that_differs_has_no_reference(models, tmp_path):
    student, _, _ = models
    other_end = CHATML.replace("<|im_end|>", "<|endoftext|>")
    tokenizer = tiny_tokenizer("word_level", other_end)
    tiny_model("llama", len(tokenizer), 1).save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    local = lm.load_model(student, device="cpu")
    reference = load_reference(
        lm.ReferenceSpec(tmp_path / "other", None), local, ROWS, "auto", "forward_kl"
    )
    end = find_turn_end_id(local.tokenizer)
    assert reference.other_end == end != find_turn_end_id(tokenizer)
    targets = torch.tensor([end, (end + 1) % 5])
    assert reference.mask_targets(targets).tolist() == [0, 1]


def test_a_shared_vocabulary_is_checked_before_weights_are_loaded(models):
    student, reference, other = models
    lm.check_shared_vocabulary((student, None), (reference, None), "jsd")
    with pytest.raises(InputError, match="objective jsd compares two models token by token"):
        lm.check_shared_vocabulary((student, None), (other, None), "jsd")
    lm.check_shared_vocabulary((student, None), (student / "missing", None), "jsd")


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
    assert "reference" in json.loads(manifest.read_text())["inputs"]
    row = result.metrics.arms["mentor_kd"]
    (file,) = store.glob("check_rationales-*/rationales.parquet")
    rows += read_rows(file, Rationale)  # as the code of the paper does
    assert row.n_queries == 4 and row.training_set.n_kept == (sum(r.kept for r in rows),)
