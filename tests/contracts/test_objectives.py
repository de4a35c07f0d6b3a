"""What holds for every training objective, including one in a file of the user's."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from bridgekd import lm
from bridgekd.errors import InputError
from bridgekd.lm.objectives import OBJECTIVES, TokenBatch
from bridgekd.lm.tokenization import tokenize_sequences
from bridgekd.lm.update_schedule import pad_batch
from bridgekd.recipe import RuntimeOptions, TrainOptions
from bridgekd.records import Message, TargetSpan, TrainingSequence
from bridgekd.variants import VariantRef
from tiny_models import CHATML, tiny_model, tiny_tokenizer

# Skewed reverse KL with a weight that grows: reads every field of a batch.
USER_FILE = """
from pydantic import BaseModel, ConfigDict
from bridgekd.lm.objectives import Objective

class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    skew: float = 0.1

def compute_loss(batch, options):
    import torch
    q = batch.shared_logits.float().softmax(-1)
    p = batch.reference_logits.float().softmax(-1)
    mixed = (1 - options.skew) * p + options.skew * q
    per_token = (q * (q.log() - mixed.log())).sum(-1) * batch.weights
    per_sequence = torch.zeros(int(batch.sequence_ids.max()) + 1)
    per_sequence = per_sequence.index_add(0, batch.sequence_ids, per_token)
    nll = torch.nn.functional.cross_entropy(batch.logits, batch.targets, reduction="none")
    return (1 + batch.progress) * per_sequence.sum() + torch.dot(nll, batch.weights)

OBJECTIVE = Objective(
    name="skewed_reverse_kl", title="Skewed reverse KL", summary="Follows the modes.",
    paper="2402.03898", options=Options, needs_reference_model=True, compute_loss=compute_loss,
)
"""
# The same on what the model itself writes: on-policy, half of the sequences.
ON_POLICY_FILE = (
    USER_FILE.replace("skewed_reverse_kl", "on_policy")
    .replace(
        "compute_loss=compute_loss,",
        "compute_loss=compute_loss, plan_rollouts=lambda options, progress, state: Rollouts(0.5),",
    )
    .replace("import Objective", "import Objective, Rollouts")
)
FILES = {"user_file": USER_FILE, "on_policy_file": ON_POLICY_FILE}
ROWS = [
    TrainingSequence(str(i), (Message("user", "Who holds " + "the box " * (i % 3 + 1) + "?"),),
             (TargetSpan("Ann holds the red box .\n"), TargetSpan("Answer: Ann", 2.0)))
    for i in range(6)
]  # fmt: skip
TRAIN = TrainOptions(batch_size=4, learning_rate=1e-2)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    kinds = {"trained": "byte_level", "reference": "byte_level", "other_tokens": "metaspace"}
    for seed, (name, kind) in enumerate(kinds.items()):
        tokenizer = tiny_tokenizer(kind, CHATML)
        tiny_model("llama", len(tokenizer), seed).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.fixture(params=[*OBJECTIVES.list_names(), *FILES])
def ref(request, tmp_path):
    return write_objective(request.param, tmp_path)


def write_objective(name, folder):
    if name not in FILES:
        return VariantRef(name=name)
    (folder / "my_objective.py").write_text(FILES[name])
    return VariantRef(file=str(folder / "my_objective.py"))


BY_TOKEN = (
    "logits", "targets", "weights", "reference_logits", "is_rollout", "advantages",
    "reference_logprobs",
)  # fmt: skip


def draw_batch(state):
    torch.manual_seed(0)
    return TokenBatch(
        state=state,
        logits=torch.randn(5, 9, requires_grad=True), targets=torch.randint(0, 8, (5,)),
        weights=torch.tensor([1.0, 0.0, 2.0, 1.0, 0.5]),
        sequence_ids=torch.tensor([0, 0, 1, 1, 1]), reference_logits=torch.randn(5, 8),
        is_rollout=torch.ones(5, dtype=torch.bool),
        advantages=torch.tensor([1.0, 1.0, -1.0, -1.0, -1.0]),
        reference_logprobs=-torch.rand(5),
    )  # fmt: skip


def compute(ref, batch):
    settings = OBJECTIVES.resolve(ref)
    return OBJECTIVES.load(settings).compute_loss(batch, OBJECTIVES.parse_options(settings))


def start(ref):
    settings = OBJECTIVES.resolve(ref)
    schedule = OBJECTIVES.load(settings).schedule
    return {} if schedule is None else schedule.start(OBJECTIVES.parse_options(settings))


def train(models, out, ref, **kwargs):
    """An objective that matches tokens has a reference model with other tokens."""
    settings, rows, reference = OBJECTIVES.resolve(ref), ROWS, models / "reference"
    objective = OBJECTIVES.load(settings)
    if objective.match_tokens is not None:
        reference = models / "other_tokens"
    if objective.needs_logprobs:
        scored = lm.score_targets(lm.load_model(reference, device="cpu"), ROWS, batch_size=4)
        rows = [replace(row, target_logprobs=s) for row, s in zip(ROWS, scored, strict=True)]
    job = lm.TrainingJob(
        models / "trained", rows, out, TRAIN, n_updates=3, seed=0, device="cpu",
        objective=settings, reference=lm.ReferenceSpec(reference, None),
        **{"reward": count_letter, **kwargs},
    )  # fmt: skip
    return lm.fine_tune(job)


def count_letter(row_id, text):
    return float(text.count("o"))


def read_losses(out):
    return [
        json.loads(line)["loss"] for line in (out / "training_log.jsonl").read_text().splitlines()
    ]


def test_it_describes_itself_in_a_title_and_one_sentence(ref):
    objective = OBJECTIVES.load(OBJECTIVES.resolve(ref))
    assert objective.title and objective.summary.endswith(".")
    assert objective.summary.count(".") == 1


def test_an_unknown_option_is_refused(ref):
    wrong = ref.model_copy(update={"options": {"kd_wieght": 0.5}})
    with pytest.raises(InputError, match="unknown option 'kd_wieght'"):
        OBJECTIVES.resolve(wrong)


def test_an_unknown_option_is_refused_with_the_nearest_one():
    with pytest.raises(InputError, match="Did you mean 'weight'"):
        OBJECTIVES.resolve(VariantRef.model_validate({"name": "forward_kl", "wieght": 0.5}))


def test_the_gradient_is_finite_and_zero_where_the_weight_is_zero(ref):
    batch = draw_batch(start(ref))
    compute(ref, batch).backward()
    assert torch.isfinite(batch.logits.grad).all()
    assert not batch.logits.grad[1].any() and batch.logits.grad[0].any()


def test_the_loss_is_a_sum_over_sequences(ref):
    batch = draw_batch(start(ref))
    parts = [
        replace(batch, **{
            name: getattr(batch, name)[rows]
            for name in BY_TOKEN
        }, sequence_ids=torch.zeros(len(rows), dtype=torch.long))
        for rows in ([0, 1], [2, 3, 4])
    ]  # fmt: skip
    total = sum(float(compute(ref, part).detach()) for part in parts)
    assert total == pytest.approx(float(compute(ref, batch).detach()), rel=1e-5)


def test_the_loss_is_a_sum_over_tokens_where_it_says_so(ref):
    if not OBJECTIVES.load(OBJECTIVES.resolve(ref)).is_sum_over_tokens:
        return
    batch, zero = draw_batch(start(ref)), torch.zeros(1, dtype=torch.long)
    parts = [
        replace(
            batch, **{name: getattr(batch, name)[i : i + 1] for name in BY_TOKEN}, sequence_ids=zero
        )
        for i in range(5)
    ]
    total = sum(float(compute(ref, part).detach()) for part in parts)
    assert total == pytest.approx(float(compute(ref, batch).detach()), rel=1e-5)


def test_the_micro_batch_does_not_change_a_training(ref, models, tmp_path):
    for tokens in (None, 8):
        train(
            models, tmp_path / str(tokens), ref, runtime=RuntimeOptions(micro_batch_tokens=tokens)
        )
    losses = [read_losses(tmp_path / name) for name in ("None", "8")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_prompt_tokens_have_no_gradient(ref, models):
    local, reference = (lm.load_model(models / n, device="cpu") for n in ("trained", "reference"))
    rows = tokenize_sequences(local.tokenizer, ROWS)
    micro = pad_batch(rows, 0, "cpu")
    logits, others = (m.model(input_ids=micro.ids).logits.flatten(0, 1).detach()
                      for m in (local, reference))  # fmt: skip
    logits.requires_grad_()
    fields = (micro.targets, micro.weights, micro.sequence_ids, others[micro.positions])
    compute(
        ref,
        TokenBatch(
            logits[micro.positions],
            *fields,
            state=start(ref),
            advantages=micro.weights,
            reference_logprobs=-torch.rand(len(micro.targets)),
        ),
    ).backward()
    trained = logits.grad.abs().sum(-1).view(len(rows), -1) > 0
    expected = torch.tensor([[w > 0 for w in row.weights[1:]] + [False] * (
        trained.shape[1] - len(row.ids) + 1) for row in rows])  # fmt: skip
    assert torch.equal(trained, expected)


# Most are pure functions. Here the schedule needs the loss of all processes, and the rollouts are
# those of one process.
def test_several_processes_load_the_same_objective(models, tmp_path):
    ref = VariantRef.model_validate({"name": "interpolated_kl", "on_policy": 0.5})
    train(models, tmp_path / "one", ref)
    log = train(models, tmp_path / "two", ref, reward=None,
                runtime=RuntimeOptions(num_processes=2))  # fmt: skip
    assert log.n_processes == 2
    one, two = (load_file(tmp_path / n / "model.safetensors") for n in ("one", "two"))
    assert all(torch.allclose(one[name], two[name], atol=1e-4) for name in one)
