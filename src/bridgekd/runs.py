"""A run: one recipe over one store. It holds what a method needs, and writes down what was made
where.
"""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

from pydantic import BaseModel

from bridgekd import stages
from bridgekd.config import Backend, Recipe
from bridgekd.edges.sources import data_source, model_source
from bridgekd.edges.store import Artifact, Maker, Stage, Store
from bridgekd.io.disk import translate_disk_errors, write_atomic
from bridgekd.report.stage import report
from bridgekd.settings import Evaluate, Predict, Report, Settings
from bridgekd.stages.live import Live
from bridgekd.teacher.transports import resolve_teacher


@dataclass(frozen=True, slots=True)
class Arm:
    """A model to be measured, whose it is, and how it is to be asked: the way it was trained."""

    model: Artifact
    size: Literal["assistant", "student"]
    ask: Literal["explain", "answer"] = "explain"


P = ParamSpec("P")
S = TypeVar("S", bound=BaseModel)
IN_PROCESS: Backend = "transformers"  # the student is too small to be worth a server
Arms = dict[str, Arm]
Method = Callable[["Run"], Arms]


class Run:
    """What a method sees: `make`, the settings of each stage (`of`), and what the person brought.

    Relative paths in the recipe are relative to `folder`.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        store: Maker,
        live: Live,
        *,
        told: Mapping[str, Any] | None = None,
    ) -> None:
        """`told` is what the journal says of the run beside its recipe; None: it has no journal."""
        self.recipe = recipe
        self.folder = folder
        self.head = None if told is None else _head(recipe, folder, live) | dict(told)
        self.of = Settings(recipe, folder)
        self.live = live
        self.store = store
        self.journal: list[dict[str, str]] = []
        self.train_data = data_source(recipe.data.train, folder)
        self.test_data = data_source(recipe.data.test, folder)
        self.assistant = model_source(recipe.assistant.model, folder, recipe.assistant.revision)
        self.student = model_source(recipe.student.model, folder, recipe.student.revision)
        encoder = recipe.select.encoder
        self.encoder = None if encoder is None else model_source(encoder, folder, None)
        instruct, shots = recipe.student.instruct, recipe.teacher.prompt.examples
        self.instructions = data_source(instruct, folder) if instruct else None
        self.shots = (data_source(shots, folder),) if shots else ()

    def varied(self, recipe: Recipe) -> "Run":
        """The same run under another seed or budget: same sources, same store, same journal."""
        other = copy.copy(self)
        other.recipe, other.of = recipe, Settings(recipe, self.folder)
        return other

    def make(self, stage: Stage[S, P], settings: S, *args: P.args, **kwargs: P.kwargs) -> Artifact:
        """The artifact of this stage; the run's journal says which folder that is."""
        made = self.store.make(stage, settings, self.live, *args, **kwargs)
        entry = {"stage": made.stage, "folder": made.path.name}
        if entry not in self.journal:
            self.journal.append(entry)
        self.write_journal("running")
        return made

    @property
    def student_ask(self) -> Literal["explain", "answer"]:
        """How the trained student is asked: for the answer alone where it learnt it as a task of
        its own.
        """
        return "answer" if self.recipe.student.form == "two_task" else "explain"

    def pool(self) -> Artifact:
        """The pool and the validation split."""
        return self.make(stages.load_pool, self.of.load_pool, self.train_data)

    def warmed(self, pool: Artifact) -> Artifact:
        """The assistant after its warm-up; untouched where the recipe's warm-up is 0."""
        if self.recipe.assistant.warm_up in (0, "0%"):
            return self.assistant
        return self.make(stages.warm_up, self.of.warm_up, pool, self.assistant)

    def warm_arm(self, warm: Artifact) -> Arms:
        """The warm assistant as an arm, asked for the answer alone, if it was warmed up at all."""
        if warm == self.assistant:
            return {}
        return {"assistant_warm": Arm(warm, "assistant", ask="answer")}

    def scored(self, pool: Artifact, assistant: Artifact) -> tuple[Artifact, Artifact | None]:
        """Scores of the pool and, where the recipe names an encoder, embeddings apart from them."""
        others = [
            self.make(stages.warm_up, self.of.warm_up_of(member), pool, self.assistant)
            for member in range(1, self.of.n_committee)
        ]
        scores = self.make(stages.score_pool, self.of.score_pool, pool, assistant, *others)
        if self.encoder is None:
            return scores, None
        return scores, self.make(stages.embed_pool, self.of.embed_pool, pool, self.encoder)

    def judge(self, pool: Artifact) -> Artifact | None:
        """Who weighs the teacher's rationales, if the recipe wants that: the warm assistant."""
        return self.warmed(pool) if self.recipe.check.keep == "confident" else None

    def instructed(self) -> Artifact:
        """The instruction-tuned student; the untouched one where the recipe names no instruction
        set.
        """
        if self.instructions is None:
            return self.student
        return self.make(
            stages.instruct_student, self.of.instruct_student, self.student, self.instructions
        )

    def untouched(self) -> Arms:
        """Both models as the person brought them."""
        return {
            "assistant_base": Arm(self.assistant, "assistant"),
            "student_base": Arm(self.student, "student"),
        }

    def test(self) -> Artifact:
        """The test set."""
        return self.make(stages.load_test, self.of.load_test, self.pool(), self.test_data)

    def teacher_measured(self) -> dict[str, Artifact]:
        """The teacher's own answers to test questions, if the recipe pays for that."""
        if self.recipe.evaluate.teacher_queries in (0, "0%"):
            return {}
        asked, pool = self.of.measure_teacher, self.pool()
        return {"teacher": self.make(stages.measure_teacher, asked, pool, self.test(), *self.shots)}

    def predicted(self, arms: Arms) -> dict[str, Artifact]:
        """Every arm's answers to the test questions."""
        pool, test = self.pool(), self.test()
        return {name: self.answered(arm, pool, test) for name, arm in arms.items()}

    def answered(self, arm: Arm, pool: Artifact, test: Artifact) -> Artifact:
        """A model's answers to questions that stand in `test`, asked the way it was trained."""
        sized = self.recipe.assistant if arm.size == "assistant" else self.recipe.student
        how = Predict(
            ask=arm.ask,
            max_new_tokens=sized.max_new_tokens,
            role=arm.size,
            backend=self.recipe.assistant.backend if arm.size == "assistant" else IN_PROCESS,
        )
        return self.make(stages.predict, how, pool, test, arm.model)

    def evaluate(self, predictions: Sequence[tuple[str, Artifact]]) -> Artifact:
        """metrics.json over all of these, each with its arm's name."""
        names = tuple(name for name, _ in predictions)
        how = Evaluate(arms=names, steps=self.recipe.evaluate.steps)
        return self.make(stages.evaluate, how, self.test(), *(made for _, made in predictions))

    def report(
        self,
        evaluation: Artifact,
        methods: Sequence[str],
        n_seeds: int = 1,
        budgets: Sequence[int | str] = (),
    ) -> Artifact:
        """The page, and on it the command that makes it again."""
        recipe = self.recipe.model_dump(mode="json")
        for name in ("base_url", "expected_tokens"):  # these change no result
            del recipe["teacher"][name]
        recipe["teacher"]["transport"] = resolve_teacher(self.recipe.teacher).transport.name
        del recipe["assistant"]["server"], recipe["pilot"], recipe["runtime"]
        how = Report(recipe=recipe, methods=tuple(methods), n_seeds=n_seeds, budgets=tuple(budgets))
        return self.make(report, how, evaluation)

    def write_journal(self, state: str) -> None:
        """runs/<name>.json: which folders are this run's, and whether it is over."""
        if self.head is not None and isinstance(self.store, Store):
            path = self.store.folder / f"{self.recipe.name}.json"
            known = self.head | {"state": state, "stages": self.journal}
            with translate_disk_errors(self.store.folder):
                write_atomic(path, json.dumps(known, indent=1))


def open_run(recipe: Recipe, folder: Path, live: Live, methods: Sequence[str], **told: Any) -> Run:
    """A run of `methods` that does its work in the recipe's store; `told` is for its journal."""
    store = Store(folder / Path(recipe.store).expanduser(), live.note)
    return Run(recipe, folder, store, live, told={"methods": list(methods), **told})


def _head(recipe: Recipe, folder: Path, live: Live) -> dict[str, Any]:
    return {
        "name": recipe.name,
        "ledger": str(live.ledger),
        "folder": str(folder.resolve()),
        "recipe": recipe.model_dump(mode="json"),
    }


def live_of(recipe: Recipe, folder: Path) -> Live:
    """The recipe's way to the world, without anybody looking on."""
    return Live(
        run=recipe.name,
        teacher=recipe.teacher,
        ledger=folder / Path(recipe.ledger).expanduser(),
        hard_stop_usd=recipe.hard_stop_usd,
        device=recipe.device,
        runtime=recipe.runtime,
        server=recipe.assistant.server,
        folder=folder,
    )
