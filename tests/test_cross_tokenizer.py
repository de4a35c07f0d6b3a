"""A student learns from a reference model whose tokenizer is another one."""

import math
from dataclasses import replace

import pytest
import torch

from bridgekd import lm
from bridgekd.errors import InputError
from bridgekd.lm.objectives import OBJECTIVES
from bridgekd.lm.packing import verify_packing
from bridgekd.lm.reference_model import attach_logprobs
from bridgekd.lm.segments import align_tokens
from bridgekd.lm.token_bytes import compute_byte_ends
from bridgekd.lm.tokenization import tokenize_sequences
from bridgekd.lm.update_schedule import pack_batch, pad_batch
from bridgekd.recipe import RuntimeOptions
from bridgekd.records import Message, TargetSpan, TrainingSequence
from bridgekd.stages.model_backend import wrap_local_model
from bridgekd.variants import VariantRef
from test_lm_training_loop import metrics, tune
from tiny_models import CHATML, tiny_model, tiny_tokenizer

PLAIN = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
ROWS = [
    TrainingSequence(
        str(i),
        (Message("user", "Who holds the box?"),),
        (
            TargetSpan(f"Ann, then {name}, step by step, é (A).\n"),
            TargetSpan(f"Answer: {name}", 2.0),
        ),
    )
    for i, name in enumerate(("Ann", "Bob", "the fox", "the dog"))
]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return (student, reference model) with other tokens, templates and vocabulary sizes."""
    folder = tmp_path_factory.mktemp("models")
    kinds = {"student": ("metaspace", CHATML), "reference": ("byte_level", PLAIN)}
    for seed, (name, kind) in enumerate(kinds.items()):
        tokenizer = tiny_tokenizer(*kind)
        tiny_model("llama", len(tokenizer), seed).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder / "student", folder / "reference"


def compute_logits(local, row):
    """Return (logits [n, V], targets [n], weights [n], byte ends [n]) of a row's target."""
    (tokens,) = tokenize_sequences(local.tokenizer, [row])
    with torch.no_grad():
        logits = local.model(input_ids=torch.tensor([tokens.ids])).logits[0].double()
    n = tokens.n_prompt
    ends = compute_byte_ends(local.tokenizer, [row])[0]
    return logits[n - 1 : -1], tokens.ids[n:], tokens.weights[n:], ends


def score(models, rows):
    scored = lm.score_targets(lm.load_model(models[1], device="cpu"), rows, batch_size=2)
    return [replace(row, target_logprobs=s) for row, s in zip(rows, scored, strict=True)]


def get_first_loss(models, out, rows, **options):
    student, reference = models
    objective = OBJECTIVES.resolve(VariantRef.model_validate(options))
    spec = lm.ReferenceSpec(reference, None)
    runtime = RuntimeOptions(micro_batch_tokens=8)
    tune(student, out, rows=rows, n_updates=1, objective=objective, reference=spec, runtime=runtime)
    return metrics(out)[0]["loss"]


def test_the_first_alm_loss_equals_a_naive_loop(models, tmp_path):
    student, reference = (lm.load_model(folder, device="cpu") for folder in models)
    total = norm = n_segments = 0.0
    for row in ROWS:
        (logits, targets, weights, ends), other = (
            compute_logits(local, row) for local in (student, reference)
        )
        sides = []
        for z, ids in ((logits, targets), other[:2]):
            logp = torch.log_softmax(z, -1)
            sides.append([float(logp[k, i]) for k, i in enumerate(ids)])
        start = 0
        for end in sorted({*ends} & {*other[3]}):
            ours, theirs = (
                sum(v for v, e in zip(side, places, strict=True) if start < e <= end)
                for side, places in zip(sides, (ends, other[3]), strict=True)
            )
            weight = sum(w for w, e in zip(weights, ends, strict=True) if start < e <= end)
            a, b = math.exp(theirs / 100), math.exp(ours / 100)
            value = a * math.log(a / b) + (1 - a) * math.log((1 - a) / (1 - b))
            total, norm, start = total + weight * 100 * value, norm + weight, end
            n_segments += 1
    for local in (student, reference):
        assert n_segments < sum(len(compute_logits(local, row)[1]) for row in ROWS)
    assert norm == sum(sum(compute_logits(student, row)[2]) for row in ROWS)
    loss = get_first_loss(models, tmp_path, score(models, ROWS), name="alm")
    assert loss == pytest.approx(total / norm, rel=1e-4)


@pytest.mark.parametrize("pairs", ["bytes", "position"])
def test_the_first_uld_loss_equals_a_naive_loop(models, tmp_path, pairs):
    student, reference = (lm.load_model(folder, device="cpu") for folder in models)
    total = norm = 0.0
    for row in ROWS:
        (z, _, weights, ends), (other, _, _, other_ends) = (
            compute_logits(local, row) for local in (student, reference)
        )
        norm += sum(weights)
        q, p = (torch.softmax(x, -1).sort(descending=True).values for x in (z, other))
        p, q = (torch.nn.functional.pad(x, (0, 600 - x.shape[1])) for x in (p, q))
        if pairs == "position":
            n = min(len(p), len(q))
            places = [(k, k, weights[k]) for k in range(n)]
        else:
            places, i, j = [], 0, 0
            for end in sorted({*ends} & {*other_ends}):
                last, other_last = ends.index(end) + 1, other_ends.index(end) + 1
                places.append((i, j, sum(weights[i:last])))
                i, j = last, other_last
        total += sum(w * float((q[i] - p[j]).abs().sum()) for i, j, w in places)
    loss = get_first_loss(models, tmp_path, ROWS, name="uld", weight=1, pairs=pairs)
    assert loss == pytest.approx(total / norm, rel=1e-4)


@pytest.mark.parametrize("name", ["alm", "uld"])
def test_the_student_moves_toward_the_reference(models, tmp_path, name):
    objective = OBJECTIVES.resolve(VariantRef.model_validate({"name": name, "weight": 1}))
    spec = lm.ReferenceSpec(models[1], None)
    tune(models[0], tmp_path, rows=score(models, ROWS), objective=objective, reference=spec)
    losses = [line["loss"] for line in metrics(tmp_path)]
    assert losses[-1] < 0.8 * losses[0]


def test_a_segment_that_has_a_loss_in_part_has_none(models):
    """`step,` is one token of the student and two of the reference, and `Ann` the other way."""
    tokenizer = lm.load_model(models[0], device="cpu").tokenizer
    start, end = ROWS[0].text.index("nn, then"), ROWS[0].text.index("nn", 20)
    (row,) = score(models, [replace(ROWS[0], loss_start=start, loss_end=end)])
    assert row.target_logprobs == score(models, ROWS[:1])[0].target_logprobs
    (plain,) = tokenize_sequences(tokenizer, [row])
    (found,) = attach_logprobs(tokenizer, [row], [plain], align_tokens)
    weights = found.weights[found.n_prompt :]
    ids = found.ids[found.n_prompt :]
    words = [t.replace("▁", " ") for t in tokenizer.convert_ids_to_tokens(ids)]
    weighted = [t for t, w in zip(words, weights, strict=True) if w]
    assert words[:2] == ["An", "n"] and weighted[0] == ","
    assert sum(w > 0 for w in plain.weights) > len(weighted)
    known = row.target_logprobs
    comma = known.ends.index(len("Ann,"))
    assert found.reference_logprobs[2] == known.logprobs[comma]


def test_packed_rows_have_the_segments_of_padded_rows(models):
    local = lm.load_model(models[0], device="cpu")
    rows = tokenize_sequences(local.tokenizer, ROWS)
    aligned = attach_logprobs(local.tokenizer, score(models, ROWS), rows, align_tokens)
    padded, packed = pad_batch(aligned, 0, "cpu"), pack_batch(aligned, "cpu")
    for name in ("targets", "segment_ids", "reference_logprobs"):
        assert torch.equal(getattr(padded, name), getattr(packed, name))
    assert padded.reference_logprobs.tolist() == pytest.approx(
        [value for row in aligned for value in row.reference_logprobs]
    )
    assert verify_packing(local, aligned)


def test_alm_without_log_probabilities_is_refused(models, tmp_path):
    with pytest.raises(InputError, match=r"alm needs the log-probabilities .* method distill"):
        get_first_loss(models, tmp_path, ROWS, name="alm")


def test_objectives_that_need_the_same_tokens_name_those_that_do_not(models):
    student, reference = ((folder, None) for folder in models)
    with pytest.raises(InputError, match="distill with the objective alm or uld, which need no"):
        lm.check_shared_vocabulary(student, reference, "forward_kl")
    for model in (student, reference, (models[0] / "missing", None)):
        lm.check_alignment(model, "alm")


def test_a_stopped_scoring_goes_on_with_the_same_numbers(models, tmp_path):
    local = lm.load_model(models[1], device="cpu")
    expected = wrap_local_model(local).score_targets(ROWS, batch_size=1)
    backend = wrap_local_model(local, tmp_path)

    def stop(label, done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backend.score_targets(ROWS, batch_size=1, progress=stop)
    n_saved = len((tmp_path / "targets.jsonl").read_text().splitlines())
    assert backend.score_targets(ROWS, batch_size=1) == expected
    assert (n_saved, len((tmp_path / "targets.jsonl").read_text().splitlines())) == (2, 4)
