"""Rollouts: which targets a training replaces by the model's own, and that a wave survives."""

import pytest
import torch
from safetensors.torch import load_file

from bridgekd import lm
from bridgekd.errors import InputError
from bridgekd.lm.checkpoint import STATE_FILE, CheckpointState
from bridgekd.lm.load import load_model
from bridgekd.lm.objectives import OBJECTIVES, Rollouts, TokenBatch
from bridgekd.lm.objectives.adaptive_skew import (
    AdaptiveSkewOptions,
    advance_fraction,
    start_fraction,
)
from bridgekd.lm.objectives.sequence_reverse_kl import compute_advantages
from bridgekd.lm.rollouts import RolloutSampler, SamplingSpec
from bridgekd.lm.tokenization import find_turn_end_id, tokenize_sequences
from bridgekd.lm.update_schedule import UpdateSchedule
from bridgekd.recipe import RuntimeOptions, TrainOptions
from bridgekd.records import TargetSpan, TrainingSequence
from bridgekd.variants import VariantRef
from test_lm_resume import base, killed, losses, tune  # noqa: F401  (base is a fixture)
from test_lm_training_loop import ROWS, metrics


@pytest.fixture(scope="module")
def local(base):  # noqa: F811
    return load_model(base, device="cpu")


def resolve(name, **options):
    return OBJECTIVES.resolve(VariantRef.model_validate({"name": name, **options}))


def build_sampler(local, folder, rows=ROWS, max_new_tokens=6, batch_size=4, reward=None, **kwargs):
    tokens = tokenize_sequences(local.tokenizer, rows)
    schedule = UpdateSchedule(tokens, batch_size=batch_size, n_updates=5, seed=0)
    return RolloutSampler(
        local, tokens, schedule, seed=0, folder=folder,
        spec=SamplingSpec(max_new_tokens, reward, [row.id for row in rows]), **kwargs,
    )  # fmt: skip


def prepare_all(sampler, rollouts):
    state = CheckpointState(identity="x")
    return [row for u in range(5) for row in sampler.prepare_rows(u, rollouts, state)[1]], state


def test_the_fraction_of_a_wave_is_exact_and_weights_stay(local, tmp_path):
    sampler = build_sampler(local, tmp_path)
    rows, state = prepare_all(sampler, Rollouts(0.25, updates_per_wave=2))
    given = [sampler.rows[i] for u in range(5) for i in sampler.schedule.get_rows(u)]
    assert [sum(r.is_rollout for r in rows[i : i + 8]) for i in (0, 8, 16)] == [2, 2, 1]
    assert state.n_rollouts == 5
    for row, own in zip(rows, given, strict=True):
        assert sum(row.weights) == pytest.approx(sum(own.weights))
        assert row.ids[: row.n_prompt] == own.ids[: own.n_prompt]
        assert row == own or row.is_rollout


def test_a_wave_is_sampled_with_the_weights_before_it(local, tmp_path):
    """Update 1 of a wave of two is that of a wave of one only if the weights did not change."""
    whole, _ = prepare_all(build_sampler(local, tmp_path / "a"), Rollouts(1.0))
    (tmp_path / "b").mkdir()
    waves, _ = prepare_all(build_sampler(local, tmp_path / "b"), Rollouts(1.0, 2))
    assert whole == waves
    assert not (tmp_path / "a").exists()  # a wave of one update needs no file
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == [
        "rollouts-0-0.json", "rollouts-1-0.json", "rollouts-2-0.json",
    ]  # fmt: skip


def test_waves_stay_on_disk_until_a_checkpoint_is_after_them(local, tmp_path):
    state = CheckpointState(identity="x", update=3)
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / STATE_FILE).write_text(state.model_dump_json())
    prepare_all(build_sampler(local, tmp_path), Rollouts(1.0, 2))
    assert sorted(p.name for p in tmp_path.glob("rollouts-*")) == [
        "rollouts-1-0.json", "rollouts-2-0.json",
    ]  # fmt: skip


def test_a_wave_keeps_its_places_when_the_fraction_changes_inside_it(local, tmp_path):
    state = CheckpointState(identity="x")
    first = build_sampler(local, tmp_path)
    rows = [first.prepare_rows(u, Rollouts(f, 2), state) for u, f in ((0, 0.25), (1, 0.75))]
    resumed = build_sampler(local, tmp_path).prepare_rows(1, Rollouts(0.75, 2), state)
    assert resumed == rows[1]


def test_processes_sample_what_one_process_samples(local, tmp_path):
    tokens = tokenize_sequences(local.tokenizer, ROWS)
    one, _ = prepare_all(build_sampler(local, tmp_path), Rollouts(0.5))
    schedule = UpdateSchedule(tokens, batch_size=4, n_updates=5, seed=0, n_processes=2)
    shards = [
        prepare_all(
            RolloutSampler(local, tokens, schedule, seed=0, spec=SamplingSpec(6), folder=tmp_path,
                           process=p), Rollouts(0.5),
        )[0]
        for p in (0, 1)
    ]  # fmt: skip
    assert [row for pair in zip(*shards, strict=True) for row in pair] == one


def test_a_row_without_a_prompt_keeps_its_target(local, tmp_path):
    rows = [TrainingSequence(str(i), (), (TargetSpan("Ann holds it"),)) for i in range(4)]
    prepared, state = prepare_all(build_sampler(local, tmp_path, rows), Rollouts(1.0))
    assert not any(row.is_rollout for row in prepared) and state.n_rollouts == 0


def test_a_rollout_ends_before_a_token_that_the_reference_does_not_know(local, tmp_path):
    free, _ = prepare_all(build_sampler(local, tmp_path), Rollouts(1.0))
    unknown = free[0].ids[free[0].n_prompt + 2]
    shared = frozenset(range(len(local.tokenizer))) - {unknown}
    rows, _ = prepare_all(build_sampler(local, tmp_path, shared_ids=shared), Rollouts(1.0))
    assert rows[0].ids == free[0].ids[: free[0].n_prompt + 2]
    assert not any(unknown in row.ids[row.n_prompt :] for row in rows)
    rows, _ = prepare_all(build_sampler(local, tmp_path, shared_ids=frozenset()), Rollouts(1.0))
    assert {row.ids[row.n_prompt :] for row in rows} == {(find_turn_end_id(local.tokenizer),)}


@pytest.mark.parametrize("updates_per_wave", [1, 4])
def test_a_training_killed_inside_a_wave_ends_with_the_same_bytes(
    base, tmp_path, updates_per_wave  # noqa: F811
):  # fmt: skip
    options = {
        "objective": resolve("jsd", on_policy=0.5, updates_per_wave=updates_per_wave),
        "reference": lm.ReferenceSpec(base, None),
    }
    log = tune(base, tmp_path / "calm", tmp_path / "w", **options)
    assert 0 < log.n_rollouts <= 18 and log.n_rollout_tokens >= log.n_rollouts
    for at in (3, 7):
        killed(base, tmp_path / "killed", tmp_path / "work", at, **options)
    resumed = tune(base, tmp_path / "killed", tmp_path / "work", **options)
    assert resumed.resumed_at == 6
    assert (log.n_rollouts, log.n_rollout_tokens) == (resumed.n_rollouts, resumed.n_rollout_tokens)
    files = [tmp_path / n / "model.safetensors" for n in ("calm", "killed")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert losses(tmp_path / "calm") == losses(tmp_path / "killed")
    assert not list((tmp_path / "work").iterdir())


@pytest.mark.parametrize("name", ["reverse_kl", "jsd", "sequence_reverse_kl"])
def test_a_reference_with_the_same_weights_gives_no_gradient(base, tmp_path, name):  # noqa: F811
    """Also beside the likelihood: a model learns no likelihood from its own texts."""
    options = {"on_policy": 1.0} | ({} if name == "sequence_reverse_kl" else {"weight": 0.5})
    job = lm.TrainingJob(
        base, ROWS, tmp_path, TrainOptions(batch_size=4), n_updates=1, seed=0, device="cpu",
        objective=resolve(name, **options), reference=lm.ReferenceSpec(base, None),
    )  # fmt: skip
    lm.fine_tune(job)
    line = metrics(tmp_path)[0]
    assert abs(line["loss"]) < 1e-6 and line["grad_norm"] < 1e-4


def test_a_model_that_never_ends_a_text_is_one_sentence(local, tmp_path):
    sampler = build_sampler(local, tmp_path, max_new_tokens=1, batch_size=64)
    with pytest.raises(InputError, match=r"The last 256 .* are all empty or cut off at 1 tokens"):
        prepare_all(sampler, Rollouts(1.0))
    prepare_all(sampler, Rollouts(0.9))  # the other targets teach it to end


def test_micro_batches_do_not_change_an_on_policy_training(base, tmp_path):  # noqa: F811
    options = {"objective": resolve("reverse_kl", on_policy=0.5, weight=0.5, updates_per_wave=3),
               "reference": lm.ReferenceSpec(base, None)}  # fmt: skip
    for tokens in (20, None):
        runtime = RuntimeOptions(micro_batch_tokens=tokens)
        tune(base, tmp_path / str(tokens), tmp_path / "w", runtime=runtime, **options)
    one, two = (load_file(tmp_path / n / "model.safetensors") for n in ("20", "None"))
    assert all(torch.allclose(one[k], two[k], atol=1e-4) for k in one)


def test_policy_gradient_over_all_tokens_equals_the_gradient_of_exact_reverse_kl():
    """Gradients of token 1 of the golden values; k3 as a loss would give another one."""
    z_student = torch.tensor([[1.0, 2.0, 3.0, 0.0]], dtype=torch.float64)
    z_reference = torch.tensor([[3.0, 2.0, 1.0, 0.0]], dtype=torch.float64)
    objective = OBJECTIVES.get("sequence_reverse_kl")
    gradients = []
    for weights in ({"token_weight": 0.0}, {"sequence_weight": 0.0}):
        settings = resolve("sequence_reverse_kl", gamma=0.0, **weights)
        z = z_student.clone().requires_grad_()
        q = z_student.softmax(-1)[0]
        batch = TokenBatch(
            z.expand(4, 4), torch.arange(4), q.float(), torch.arange(4),
            z_reference.expand(4, 4), is_rollout=torch.ones(4, dtype=torch.bool),
        )  # fmt: skip
        objective.compute_loss(batch, OBJECTIVES.parse_options(settings)).backward()
        gradients.append(z.grad[0])
    expected = torch.tensor([-0.271327, -0.263778, 0.570804, -0.035699], dtype=torch.float64)
    for gradient in gradients:
        torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-5)


def test_advantages_are_means_of_what_follows_in_the_sequence():
    ratio, ids = torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([0, 0, 0, 1])
    expected = [(1 + 2 * 0.5 + 4 * 0.25) / 1.75, (2 + 4 * 0.5) / 1.5, 4, 8]
    assert compute_advantages(ratio, ids, 0.5).tolist() == pytest.approx(expected)
    assert compute_advantages(ratio, ids, 0.0).tolist() == ratio.tolist()


def test_the_fraction_of_distillm_rises_when_the_loss_stops_falling():
    options = AdaptiveSkewOptions(window=2, tolerance=0.1)
    state, fractions = start_fraction(options), []
    for loss in (4, 4, 3, 3, 3.1, 3.1, 3.15, 3.15):  # window means 4, 3, 3.1, 3.15
        state = advance_fraction(state, loss, 0.0, options)
        fractions.append(state["fraction"])
    assert fractions == [0, 0, 0, 0, 0, pytest.approx(0.1), pytest.approx(0.1), pytest.approx(0.1)]


def test_texts_of_a_group_have_one_prompt_and_opposite_advantages(local, tmp_path):
    asked = []

    def reward(row_id, text):
        asked.append(row_id)
        return len(asked) % 2

    rows, state = prepare_all(
        build_sampler(local, tmp_path, reward=reward), Rollouts(1.0, 1, 1.0, 2)
    )
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        assert first.ids[: first.n_prompt] == second.ids[: second.n_prompt]
        assert (first.advantage, second.advantage) == (1.0, -1.0)
    assert asked[::2] == asked[1::2] and len(set(asked)) > 3
    assert (state.total_reward, state.n_rollouts) == (10, 20)


def test_groups_that_do_not_fill_an_update_are_one_sentence(local, tmp_path):
    with pytest.raises(InputError, match="Set batch_size to a multiple of group_size"):
        prepare_all(build_sampler(local, tmp_path), Rollouts(1.0, 1, 1.0, 3))


def count_letter(row_id, text):
    return float(text.count("o"))


def test_a_rewarded_letter_becomes_likelier_and_the_log_has_the_curve(base, tmp_path):  # noqa: F811
    train = TrainOptions(batch_size=16, learning_rate=3e-2, lr_scheduler_type="constant")
    job = lm.TrainingJob(
        base, ROWS, tmp_path, train, n_updates=16, seed=0, device="cpu",
        objective=resolve("group_reward"), reward=count_letter, max_rollout_tokens=4,
    )  # fmt: skip
    log = lm.fine_tune(job)
    rewards = [line["reward"] for line in metrics(tmp_path)]
    assert sum(rewards[-4:]) > 1.5 * sum(rewards[:4])
    assert log.total_reward == pytest.approx(16 * sum(rewards)) and log.n_rollouts == 256
    assert log.max_target_tokens == 4


def test_equal_rewards_change_no_weight(base, tmp_path):  # noqa: F811
    job = lm.TrainingJob(
        base, ROWS, tmp_path, TrainOptions(batch_size=4, weight_decay=0.0), n_updates=2, seed=0,
        device="cpu", objective=resolve("group_reward"), reward=lambda row_id, text: 1.0,
        max_rollout_tokens=4,
    )  # fmt: skip
    lm.fine_tune(job)
    before, after = (load_file(f / "model.safetensors") for f in (base, tmp_path))
    assert all(torch.equal(before[name], after[name]) for name in after)


def test_expected_gradient_of_the_kl_of_kdrl_is_that_of_reverse_kl():
    z_student = torch.tensor([[1.0, 2.0, 3.0, 0.0]], dtype=torch.float64)
    z = z_student.clone().requires_grad_()
    batch = TokenBatch(
        z.expand(4, 4), torch.arange(4), z_student.softmax(-1)[0].float(), torch.arange(4),
        torch.tensor([[3.0, 2.0, 1.0, 0.0]]).expand(4, 4), advantages=torch.zeros(4),
    )  # fmt: skip
    settings = resolve("reward_and_kl", kl_weight=1.0)
    OBJECTIVES.get("reward_and_kl").compute_loss(
        batch, OBJECTIVES.parse_options(settings)
    ).backward()
    expected = torch.tensor([[-0.271327, -0.263778, 0.570804, -0.035699]], dtype=torch.float64)
    torch.testing.assert_close(z.grad, expected, atol=1e-6, rtol=1e-5)
