"""Rollouts: targets that the trained model writes itself during its training (on-policy).

A *wave* is all rollouts of `updates_per_wave` updates. They are sampled at one time, with the
weights before the first of these updates: larger waves generate faster and are less on-policy. A
wave of several updates is on disk before its first update, so a training that resumes inside it has
the same targets. A wave of one update needs no file: the same weights write the same texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from statistics import fmean, pstdev

from pydantic import BaseModel, ConfigDict

from bridgekd.errors import InputError
from bridgekd.lm.checkpoint import CheckpointState, find_latest_checkpoint, write_durably
from bridgekd.lm.generate import PromptRow, sample_ids
from bridgekd.lm.load import LocalModel
from bridgekd.lm.objectives import Rollouts
from bridgekd.lm.tokenization import TokenizedSequence, find_stop_ids, find_turn_end_id
from bridgekd.lm.training_job import Reward
from bridgekd.lm.update_schedule import UpdateSchedule
from bridgekd.rng import make_rng

MIN_ROLLOUTS = 256  # without a complete text, that end a training
Place = tuple[int, int]  # (update, position in the update)


@dataclass(frozen=True, slots=True)
class SamplingSpec:
    """max_new_tokens: of a rollout. reward: of the text of a rollout; row_ids: of the rows."""

    max_new_tokens: int
    reward: Reward | None = None
    row_ids: Sequence[str] = ()


class StoredWave(BaseModel):
    """The new tokens of every sampled place of one wave and one process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    identity: str
    places: tuple[Place, ...]
    targets: tuple[tuple[int, ...], ...]


class RolloutSampler:
    """Replaces targets of a training by the model's own.

    shared_ids: the tokens that the reference model knows, too; a rollout is cut off before any
    other, and is the end of the turn alone if nothing is left. The random streams of a
    rollout depend on the seed and its place only, so batches, processes and resumed trainings
    change nothing. Waves are in `folder`.
    """

    def __init__(
        self,
        local: LocalModel,
        rows: Sequence[TokenizedSequence],
        schedule: UpdateSchedule,
        *,
        seed: int,
        spec: SamplingSpec,
        folder: Path,
        process: int = 0,
        shared_ids: frozenset[int] | None = None,
    ) -> None:
        self.local, self.rows, self.schedule = local, rows, schedule
        self.seed, self.spec = seed, spec
        self.folder, self.process, self.shared_ids = folder, process, shared_ids
        self.stop_ids = find_stop_ids(local.tokenizer, local.model)
        self.turn_end = find_turn_end_id(local.tokenizer)
        self._wave: int | None = None
        self._group_size = 1
        self._targets: dict[Place, tuple[int, ...]] = {}
        self._rewards: dict[Place, float] = {}
        self._advantages: dict[Place, float] = {}

    def prepare_rows(
        self, update: int, rollouts: Rollouts, state: CheckpointState
    ) -> tuple[list[int], list[TokenizedSequence]]:
        """Return the rows of this process in one update, some with a target of the model's own, and
        before them their numbers.

        At the first update of a wave all its rollouts are sampled and counted in `state`. Raises
        InputError if all targets are rollouts without a reward, and none of the last ones is
        complete.
        """
        self._check_groups(rollouts.group_size)
        wave = update // rollouts.updates_per_wave
        if wave != self._wave:
            self._start_wave(wave, rollouts, state)
            if update == wave * rollouts.updates_per_wave:
                self._count_wave(rollouts, state)
        numbers, rows = [], []
        for place in self._list_places(update):
            number = int(self.schedule.get_rows(update)[place[1]])
            row = self.rows[number]
            if place in self._targets:
                number, weight = self._get_prompt_row(place), sum(row.weights)
                target, advantage = self._targets[place], self._advantages.get(place, 0.0)
                row = build_rollout(self.rows[number], target, weight, advantage)
            numbers.append(number)
            rows.append(row)
        return numbers, rows

    def _check_groups(self, size: int) -> None:
        n_rows = len(self.schedule.get_rows(0))
        if size > 1 and (self.schedule.n_processes > 1 or n_rows % size):
            raise InputError(
                f"Rewards are compared in groups of {size} texts. Set batch_size to a multiple of "
                "group_size, and runtime.num_processes to 1."
            )

    def _get_prompt_row(self, place: Place) -> int:
        """Return the row whose prompt is answered in a place. A group has the prompt of one of its
        places, drawn at random, because the rows of an update are sorted by length.
        """
        (update, position), size = place, self._group_size
        first = position - position % size
        if size > 1:
            rng = make_rng(self.seed, f"group of update {update} position {first}")
            position = first + int(rng.integers(size))
        return int(self.schedule.get_rows(update)[position])

    def _list_places(self, update: int) -> list[Place]:
        n_rows = len(self.schedule.get_rows(update))
        return [(update, k) for k in range(self.process, n_rows, self.schedule.n_processes)]

    def _start_wave(self, wave: int, rollouts: Rollouts, state: CheckpointState) -> None:
        n_updates = len(self.schedule.updates)
        first = wave * rollouts.updates_per_wave
        updates = range(first, min(first + rollouts.updates_per_wave, n_updates))
        everywhere = [(u, k) for u in updates for k in range(len(self.schedule.get_rows(u)))]
        n_sampled = round(rollouts.fraction * len(everywhere))
        order = make_rng(self.seed, f"choose rollouts {wave}").permutation(len(everywhere))
        sampled = {everywhere[i] for i in order[:n_sampled].tolist()}
        own = [p for u in updates for p in self._list_places(u) if p in sampled]
        # A row without a prompt keeps its own target.
        self._group_size = rollouts.group_size
        places = tuple(p for p in own if self.rows[self._get_prompt_row(p)].n_prompt)
        file = self.folder / f"rollouts-{wave}-{self.process}.json"
        stored = StoredWave.model_validate_json(file.read_bytes()) if file.is_file() else None
        # The fraction may have changed since the start of a wave, and its places have not.
        if stored is None or stored.identity != state.identity:
            targets = tuple(map(self._finish, self._sample(places, rollouts.temperature)))
            stored = StoredWave(identity=state.identity, places=places, targets=targets)
            if rollouts.updates_per_wave > 1:
                write_durably(file, stored.model_dump_json())
        # The first process writes the checkpoints, so it alone can read them at any time.
        if self.process == 0 and rollouts.updates_per_wave > 1:
            self._remove_old_waves(rollouts.updates_per_wave, state.identity)
        self._wave, self._targets = wave, dict(zip(stored.places, stored.targets, strict=True))
        self._rewards = self._compute_rewards()
        self._advantages = self._compute_advantages()

    def _remove_old_waves(self, updates_per_wave: int, identity: str) -> None:
        """Remove the waves before that of the last checkpoint, inside which a training resumes."""
        latest = find_latest_checkpoint(self.folder, identity)
        first_kept = 0 if latest is None else latest[1].update // updates_per_wave
        for old in self.folder.glob("rollouts-*.json"):
            if int(old.name.split("-")[1]) < first_kept:
                old.unlink()

    def _sample(self, places: Sequence[Place], temperature: float) -> list[list[int]]:
        prompts = []
        for place in places:
            row = self.rows[self._get_prompt_row(place)]
            purpose = "sample update {} position {}".format(*place)
            prompts.append(PromptRow(row.ids[: row.n_prompt], self.seed, purpose))
        n_tokens = self.spec.max_new_tokens
        return sample_ids(self.local, prompts, n_tokens, self.stop_ids, temperature)

    def _compute_rewards(self) -> dict[Place, float]:
        if self.spec.reward is None:
            return {}
        decode = self.local.tokenizer.decode
        texts = [str(decode(list(t), skip_special_tokens=True)) for t in self._targets.values()]
        return {
            place: self.spec.reward(self.spec.row_ids[self._get_prompt_row(place)], text)
            for place, text in zip(self._targets, texts, strict=True)
        }

    def _compute_advantages(self) -> dict[Place, float]:
        groups: dict[Place, list[Place]] = {}
        for update, position in self._rewards:
            first = position - position % self._group_size
            groups.setdefault((update, first), []).append((update, position))
        return {
            place: advantage
            for group in groups.values()
            for place, advantage in zip(
                group, compare_rewards([self._rewards[place] for place in group]), strict=True
            )
        }

    def _finish(self, target: Sequence[int]) -> tuple[int, ...]:
        """Return a target with the token that ended it, unless it was cut off."""
        if self.shared_ids is not None:
            known = tuple(takewhile(self.shared_ids.__contains__, target))
            if len(known) < len(target):
                return known or (self.turn_end,)
        if len(target) == self.spec.max_new_tokens:
            return tuple(target)
        return (*target, self.turn_end)

    def _count_wave(self, rollouts: Rollouts, state: CheckpointState) -> None:
        targets = self._targets.values()
        n_complete = sum(t[-1] == self.turn_end and len(t) > 1 for t in targets)
        state.n_rollouts += len(targets)
        state.n_rollout_tokens += sum(map(len, targets))
        state.n_complete_rollouts += n_complete
        state.total_reward += sum(self._rewards.values())
        state.n_rollouts_since_complete = (
            0 if n_complete else state.n_rollouts_since_complete + len(targets)
        )
        is_alone = rollouts.fraction == 1 and self.spec.reward is None
        if is_alone and state.n_rollouts_since_complete >= MIN_ROLLOUTS:
            raise InputError(
                f"The last {state.n_rollouts_since_complete} texts that the model wrote in its "
                f"training are all empty or cut off at {self.spec.max_new_tokens} tokens. "
                "Start from a student that answers, or set on_policy below 1."
            )


def compare_rewards(rewards: Sequence[float]) -> list[float]:
    """Return the advantages of a group, (reward - mean) / standard deviation; 0 if all are equal.

    GRPO (arXiv 2402.03300); the deviation is that of the group itself.
    >>> compare_rewards([1, 0, 0, 1]), compare_rewards([1, 1])
    ([1.0, -1.0, -1.0, 1.0], [0.0, 0.0])
    """
    mean, deviation = fmean(rewards), pstdev(rewards)
    return [(reward - mean) / deviation if deviation else 0.0 for reward in rewards]


def build_rollout(
    row: TokenizedSequence, target: Sequence[int], weight: float, advantage: float = 0.0
) -> TokenizedSequence:
    """Return the row with another target, whose tokens share `weight`, that of the target before.

    So the weight of an update does not change. That rollouts of different length weigh the same is
    our reading; GKD (arXiv 2306.13649) divides by all tokens of an update.
    """
    weights = (0.0,) * row.n_prompt + (weight / len(target),) * len(target)
    ids = (*row.ids[: row.n_prompt], *target)
    return TokenizedSequence(ids, weights, row.n_prompt, is_rollout=True, advantage=advantage)
