"""The objectives equal naive loops and reference values, and hold the identities of divergences."""

import math
from dataclasses import replace

import pytest
import torch

from bridgekd.lm.divergence import DivergenceOptions, keep_top_tokens
from bridgekd.lm.objectives import OBJECTIVES, TokenBatch
from bridgekd.lm.objectives.alm import compare_likelihoods
from bridgekd.lm.objectives.interpolated_kl import (
    InterpolatedKLOptions,
    advance_schedule,
    start_schedule,
)
from bridgekd.lm.objectives.nll import compute_nll
from bridgekd.variants import VariantRef

STUDENT = torch.tensor([[1.0, 2, 3, 0], [0, 0, 0, 0], [2, -1, 0.5, 1]], dtype=torch.float64)
REFERENCE = torch.tensor([[3.0, 2, 1, 0], [0, 1, 0, -1], [2, -1, 0.5, 1]], dtype=torch.float64)
DIVERGENCES = [o.name for o in OBJECTIVES if issubclass(o.options, DivergenceOptions)]
# Means over the three tokens above. From the published code of each method, confirmed by a float64
# loop; the bin for all other tokens is ours.
VALUES = [
    ("forward_kl", {}, 0.445142675),
    ("forward_kl", {"temperature": 2}, 0.116082954),
    ("reverse_kl", {}, 0.451256299),
    ("jsd", {"beta": 0.1}, 0.037953518),
    ("jsd", {"beta": 0.5}, 0.098378778),
    ("jsd", {"beta": 0.9}, 0.038359784),
    ("jsd", {"beta": 0.5, "temperature": 2}, 0.028069392),
    ("jsd", {"beta": 0.5, "top_k": 2}, 0.091007612),
    ("skew_forward", {}, 0.327142050),
    ("adaptive_skew", {}, 0.327142050),
    ("skew_reverse", {}, 0.329634032),
    ("total_variation", {}, 0.280405529),
    ("adaptive_kl", {}, 0.448199487),
    ("interpolated_kl", {"t_start": 0.2}, 0.016775858),
    ("interpolated_kl", {"t_start": 0.4}, 0.074167575),
    ("interpolated_kl", {"t_start": 1}, 0.445142675),
]


def make_batch(student, reference, **fields):
    n = len(student)
    batch = {
        "targets": torch.arange(n) % student.shape[1], "weights": torch.ones(n),
        "sequence_ids": torch.zeros(n, dtype=torch.long), "reference_logits": reference,
    }  # fmt: skip
    return TokenBatch(student, **batch | fields)


def compute(name, batch, **options):
    """Return the sum over tokens, with the state at the start of the training."""
    settings = OBJECTIVES.resolve(VariantRef.model_validate({"name": name, **options}))
    objective, parsed = OBJECTIVES.load(settings), OBJECTIVES.parse_options(settings)
    state = {} if objective.schedule is None else objective.schedule.start(parsed)
    return objective.compute_loss(replace(batch, state=state), parsed)


def compute_gradient(name, student, reference, **options):
    logits = student.clone().requires_grad_()
    compute(name, make_batch(logits, reference), **options).backward()
    return logits.grad


def draw(seed, n=6, width=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, width, generator=generator)


def test_nll_equals_naive_loop():
    batch = make_batch(draw(0), None, weights=torch.tensor([0.0, 1.0, 2.5, 1.0, 1.0, 1.0]))
    expected = 0.0
    for logits, target, weight in zip(batch.logits, batch.targets, batch.weights, strict=True):
        expected -= float(weight) * float(torch.softmax(logits.double(), -1)[target].log())
    assert float(compute_nll(batch)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name, options, value", VALUES)
def test_it_equals_the_reference_value(name, options, value):
    batch = make_batch(STUDENT, REFERENCE)
    assert float(compute(name, batch, **options)) / 3 == pytest.approx(value, abs=2e-7)


def test_every_divergence_has_a_reference_value():
    assert set(DIVERGENCES) == {name for name, _, _ in VALUES}


def mix(a, b, share):
    return [(1 - share) * x + share * y for x, y in zip(a, b, strict=True)]


def kl(a, b):
    return sum(x * math.log(x / y) for x, y in zip(a, b, strict=True))


LOOPS = {
    "forward_kl": lambda q, p: kl(p, q),
    "reverse_kl": lambda q, p: kl(q, p),
    "jsd": lambda q, p: 0.5 * kl(p, mix(q, p, 0.5)) + 0.5 * kl(q, mix(q, p, 0.5)),
    "skew_forward": lambda q, p: kl(p, mix(q, p, 0.1)),
    "skew_reverse": lambda q, p: kl(q, mix(p, q, 0.1)),
    "total_variation": lambda q, p: sum(abs(x - y) for x, y in zip(p, q, strict=True)) / 2,
}


@pytest.mark.parametrize("name", LOOPS)
def test_it_equals_a_naive_loop_with_weights_and_a_mask(name):
    student, reference = draw(1), draw(2)
    weights, mask = torch.tensor([1.0, 0, 2, 1, 0.5, 3]), torch.tensor([1.0, 1, 1, 0, 1, 1])
    batch = make_batch(student, reference, weights=weights, reference_mask=mask)
    rows = zip(weights * mask, student.double().softmax(-1), reference.double().softmax(-1),
               strict=True)  # fmt: skip
    expected = sum(float(w) * LOOPS[name](q.tolist(), p.tolist()) for w, q, p in rows)
    assert float(compute(name, batch)) == pytest.approx(expected, rel=1e-5)
    with_nll = float(compute(name, batch, weight=0.3))
    assert with_nll == pytest.approx(0.3 * expected + 0.7 * float(compute_nll(batch)), rel=1e-5)


@pytest.mark.parametrize(
    "name", [n for n in DIVERGENCES if n not in ("interpolated_kl", "adaptive_kl")]
)
def test_the_gradient_is_that_of_the_value(name):
    settings = OBJECTIVES.resolve(VariantRef(name=name))
    options, width = OBJECTIVES.parse_options(settings), 5
    objective, reference, student = OBJECTIVES.load(settings), draw(2), draw(1).requires_grad_()
    (found,) = torch.autograd.grad(
        objective.compute_loss(make_batch(student, reference), options), student
    )
    step = 2e-3
    for i, j in ((0, 0), (3, 2), (5, width - 1)):
        values = []
        for sign in (1, -1):
            moved = student.detach().clone()
            moved[i, j] += sign * step
            values.append(float(objective.compute_loss(make_batch(moved, reference), options)))
        assert float(found[i, j]) == pytest.approx((values[0] - values[1]) / (2 * step), abs=2e-3)


def test_fixed_parts_of_an_objective_have_no_gradient():
    student, reference = draw(1), draw(2)
    q, p = student.softmax(-1), reference.softmax(-1)
    r = (0.6 * student + 0.4 * reference).softmax(-1)
    taid = compute_gradient("interpolated_kl", student, reference)
    torch.testing.assert_close(taid, q - r, atol=1e-6, rtol=1e-5)  # as of a cross-entropy with r
    adaptive = compute_gradient("adaptive_kl", student, reference)
    parts = [compute_gradient(name, student, reference) for name in ("forward_kl", "reverse_kl")]
    ranked = p.argsort(-1, descending=True)
    for i in range(len(p)):
        head, mass = [], 0.0
        for j in ranked[i].tolist():
            if mass < 0.5:
                head.append(j)
            mass += float(p[i, j])
        gap = (p[i] - q[i]).abs()
        share = gap[head].sum() / gap.sum()
        expected = share * parts[0][i] + (1 - share) * parts[1][i]
        torch.testing.assert_close(adaptive[i], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("options", [{}, {"temperature": 2.0}, {"top_k": 2}], ids=str)
def test_equal_distributions_have_no_value_and_no_gradient(name, options):
    student = draw(3)
    # The gradient of total variation has the sign of a rounding error.
    reference = student if name == "total_variation" else student + 1.0
    assert abs(float(compute(name, make_batch(student, reference), **options))) < 2e-6
    assert float(compute_gradient(name, student, reference, **options).abs().max()) < 2e-6


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("kind", ["masked", "certain", "bfloat16"])
def test_it_is_finite_and_not_negative_at_extremes(name, kind):
    student, reference = draw(4), draw(5)
    if kind == "masked":
        student[:, 0] = reference[:, 1] = -1e9
    elif kind == "certain":
        reference[:, 2] = 1e9
    else:
        student, reference = student.bfloat16(), reference.bfloat16()
    assert float(compute(name, make_batch(student, reference))) >= 0
    gradient = compute_gradient(name, student, reference)
    assert torch.isfinite(gradient).all()


def test_limits():
    batch = make_batch(STUDENT, REFERENCE)
    forward, reverse = (float(compute(name, batch)) for name in ("forward_kl", "reverse_kl"))

    def value(name, **options):
        return pytest.approx(float(compute(name, batch, **options)), rel=2e-3)

    assert forward == value("jsd", beta=1e-3, relative=True)
    assert reverse == value("jsd", beta=1 - 1e-3, relative=True)
    assert forward == value("skew_forward", skew=1e-4) == value("interpolated_kl", t_start=1)
    assert reverse == value("skew_reverse", skew=1e-4)
    assert forward == value("adaptive_kl", head_mass=1) == value("forward_kl", top_k=4)
    assert float(compute("interpolated_kl", batch, t_start=1e-4)) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("name, slope", [
    ("forward_kl", 1), ("reverse_kl", 1), ("adaptive_kl", 1), ("interpolated_kl", 0.4),
    ("jsd", 0.25), ("skew_forward", 0.81), ("skew_reverse", 0.81),
])  # fmt: skip
def test_slope_near_agreement(name, slope):
    student = draw(6)
    reference = student + 1e-2 * draw(7)
    found, unit = (compute_gradient(n, student, reference) for n in (name, "forward_kl"))
    torch.testing.assert_close(found, slope * unit, atol=2e-5, rtol=2e-2)


def test_relative_jsd_has_slope_1():
    gradient = compute_gradient("jsd", STUDENT, STUDENT + 0.01 * REFERENCE, relative=True)
    unit = compute_gradient("forward_kl", STUDENT, STUDENT + 0.01 * REFERENCE)
    torch.testing.assert_close(gradient, unit, atol=2e-5, rtol=2e-2)


# Three segments with the log-probabilities R and S. From the published code (tokenkit, without its
# constant of 1e-6) and a float64 loop; minus the value at agreement, times tau, and the limit are
# ours.
SEGMENTS_R = torch.tensor([-0.1, -1.0, -3.0])
SEGMENTS_S = torch.tensor([-0.2, -1.0, -1.0])


def test_alm_equals_the_reference_values():
    found = compare_likelihoods(SEGMENTS_S, SEGMENTS_R, 100.0).tolist()
    assert found == pytest.approx([0.030669940, 0, 1.276542983], abs=1e-5)
    limit = compare_likelihoods(SEGMENTS_S.double(), SEGMENTS_R.double(), 1e6).tolist()
    assert limit == pytest.approx([0.030685282, 0, 1.295836866], abs=1e-5)
    published = [0.343483458, 0.657817430, 0.485626123]
    for log_p, log_q, value in zip(SEGMENTS_R, SEGMENTS_S, published, strict=True):
        a, b = math.exp(log_p), math.exp(log_q)
        at_agreement = -a * math.log(a) - (1 - a) * math.log(1 - a)
        assert -a * math.log(b) - (1 - a) * math.log(1 - b) == pytest.approx(value, abs=1e-8)
        ours = float(compare_likelihoods(log_q, log_p, 1.0))
        assert ours == pytest.approx(value - at_agreement, abs=1e-6)


def test_alm_sums_the_tokens_of_a_segment():
    """The log-probability of a segment is that of its tokens, and so is its weight."""
    logits, weights = draw(3), torch.tensor([1.0, 1, 1, 2, 2, 2])
    batch = make_batch(
        logits, None, weights=weights, segment_ids=torch.tensor([4, 4, 7, 8, 8, 8]),
        reference_logprobs=torch.tensor([-2.0, -2, -0.5, -9, -9, -9]),
    )  # fmt: skip
    log_q = logits.double().log_softmax(-1).gather(-1, batch.targets[:, None])[:, 0].tolist()
    segments = [(2, sum(log_q[:2]), -2.0), (1, log_q[2], -0.5), (6, sum(log_q[3:]), -9.0)]
    expected = 0.0
    for weight, ours, theirs in segments:
        a, b = math.exp(theirs / 100), math.exp(ours / 100)
        value = a * math.log(a / b) + (1 - a) * math.log((1 - a) / (1 - b))
        expected += weight * 100 * value
    assert float(compute("alm", batch)) == pytest.approx(expected, rel=1e-4)
    mixed = float(compute("alm", batch, weight=0.25))
    assert mixed == pytest.approx(0.25 * expected + 0.75 * float(compute_nll(batch)), rel=1e-4)


@pytest.mark.parametrize("name", ["agree", "certain", "impossible"])
def test_alm_is_finite_at_extremes_and_0_at_agreement(name):
    logits = draw(4)
    if name != "agree":
        logits[:, 0] = 1e4
    logits.requires_grad_()
    log_q = logits.detach().log_softmax(-1)[torch.arange(6), torch.arange(6) % 5]
    known = {"agree": log_q, "certain": torch.full((6,), -0.7), "impossible": torch.zeros(6)}
    batch = make_batch(logits, None, reference_logprobs=known[name])
    loss = compute("alm", batch)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(gradient).all() and float(loss.detach()) >= -1e-6
    if name == "agree":
        assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
        assert float(gradient.abs().max()) < 1e-5


def test_uld_equals_the_reference_value():
    """From the published code (llm-recipes), confirmed by a float64 loop."""
    batch = make_batch(STUDENT, REFERENCE)
    assert float(compute("uld", batch, weight=1)) / 3 == pytest.approx(0.189631097, abs=2e-7)
    mixed = 0.6 * 3 * 0.189631097 + 0.4 * float(compute_nll(batch))
    assert float(compute("uld", batch)) == pytest.approx(mixed, abs=2e-6)


def test_uld_knows_no_order_of_tokens_and_pads_the_smaller_vocabulary():
    student, reference = draw(1, width=7), draw(2, width=5)
    batch = make_batch(student, reference)
    expected = 0.0
    for q, p in zip(student.double().softmax(-1), reference.double().softmax(-1), strict=True):
        pairs = zip(sorted(q.tolist())[::-1], [*sorted(p.tolist())[::-1], 0, 0], strict=True)
        expected += sum(abs(x - y) for x, y in pairs)
    assert float(compute("uld", batch, weight=1)) == pytest.approx(expected, rel=1e-5)
    shuffled = student[:, torch.randperm(7)]
    assert float(compute("uld", make_batch(shuffled, student), weight=1)) < 1e-5


def test_uld_compares_the_first_token_of_each_segment():
    student, reference = draw(1), draw(2)
    batch = make_batch(
        student, reference, segment_ids=torch.tensor([0, 0, 1, 2, 2, 3]),
        reference_mask=torch.tensor([1.0, 1, 1, 1, 1, 0]),
    )  # fmt: skip
    first = torch.tensor([0, 2, 3])
    alone = make_batch(student[first], reference[first], weights=torch.tensor([2.0, 1, 2]))
    found, expected = (float(compute("uld", b, weight=1)) for b in (batch, alone))
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("beta", [0, 1])
def test_jsd_without_a_mixture_is_refused(beta):
    with pytest.raises(Exception, match="beta"):
        compute("jsd", make_batch(STUDENT, REFERENCE), beta=beta)


def test_all_other_tokens_share_one_bin():
    log_q, log_p = draw(8).log_softmax(-1), draw(9).log_softmax(-1)
    q, p = (x.exp() for x in keep_top_tokens(log_q, log_p, 2))
    torch.testing.assert_close(q.sum(-1), torch.ones(6))
    top = log_p.topk(2).indices
    torch.testing.assert_close(p[:, :2], log_p.exp().gather(-1, top))
    torch.testing.assert_close(q[:, 2], 1 - log_q.exp().gather(-1, top).sum(-1))


def test_only_tokens_of_both_vocabularies_are_compared():
    student, reference = draw(1, width=7), draw(2, width=5)
    padded = float(compute("forward_kl", make_batch(student, reference)))
    assert padded == float(compute("forward_kl", make_batch(student[:, :5], reference)))
    ids = torch.tensor([0, 1, 3, 4, 6])
    scattered = make_batch(student, reference, shared_ids=ids)
    chosen = float(compute("forward_kl", make_batch(student[:, ids], reference)))
    assert float(compute("forward_kl", scattered)) == chosen != padded


@pytest.mark.parametrize("n_updates, expected", [
    (100, [0.4, 0.406, 0.412, 0.418]),
    (10_000, [0.4, 0.400150187, 0.400300386, 0.400450490]),
])  # fmt: skip
def test_taid_schedule_equals_the_published_code(n_updates, expected):
    state, found = start_schedule(InterpolatedKLOptions()), []
    for update, loss in enumerate((2, 1.5, 1.4, 1.5)):
        state = advance_schedule(state, loss, update / n_updates, InterpolatedKLOptions())
        found.append(state["t"])
    assert found == pytest.approx(expected, abs=1e-8)


def test_forward_kl_covers_and_reverse_kl_picks_one_peak():
    """A reference with two peaks, and a model that is a discretized normal distribution."""
    grid = torch.linspace(-4, 4, 81)
    peaks = torch.logaddexp(-2 * (grid - 2) ** 2, -2 * (grid + 2) ** 2)[None]

    def fit(name):
        mean = torch.tensor(1.0, requires_grad=True)
        log_scale = torch.tensor(-0.5, requires_grad=True)
        optimizer = torch.optim.Adam([mean, log_scale], lr=0.05)
        for _ in range(400):
            optimizer.zero_grad()
            logits = -0.5 * ((grid - mean) / log_scale.exp()) ** 2
            compute(name, make_batch(logits[None], peaks)).backward()
            optimizer.step()
        return float(mean.detach())

    assert abs(fit("forward_kl")) < 0.1
    assert fit("reverse_kl") > 1.8
