"""The page in order: what each section says, its tables, and the template that shows more."""

from dataclasses import dataclass

from bridgekd.report import grounds, results
from bridgekd.report.story import Story
from bridgekd.report.tables import Table


@dataclass(frozen=True, slots=True)
class Section:
    """`anchor` is its id on the page, `extra` the template of what stands above its tables."""

    title: str
    anchor: str
    text: str
    tables: tuple[Table, ...] = ()
    extra: str = ""


def sections(story: Story) -> list[Section]:
    """What there is to tell, in order; what a run has not is left out."""
    found = [
        Section("Accuracy on the test questions", "accuracy", "", _there(
            results.arms(story), results.versus(story), results.gains(story),
            results.seeds(story), results.pairs(story),
        ), "accuracy.html"),
        _money(story),
    ]  # fmt: skip
    if story.maps:
        found.append(Section(
            "What was chosen, and why", "choice",
            "Each point is a question of the pool; questions that are near one another are alike."
            + _first(story),
            tuple(grounds.picks(story)), "choice.html",
        ))  # fmt: skip
    if story.trainings:
        found.append(Section(
            "How the trainings went", "trainings",
            "Above the loss on the rows trained on, by update, from 0 to its highest; below what "
            "the model reached on the validation split at each evaluation. The filled point is "
            "the one whose weights were kept. A loss that falls while validation falls, too, is "
            "learning by heart.",
            _there(grounds.trainings(story)), "trainings.html",
        ))  # fmt: skip
    if tables := _there(results.domains(story), results.steps(story)):
        found.append(Section("Where the arms are strong and weak", "where", "", tables))
    found.append(Section("How the arms reason", "reasoning", "", (results.reasoning(story),)))
    if story.reliabilities:
        found.append(Section(
            "Whether the assistant's confidence means what it says", "confidence",
            "Held against gold answers. On the dashed line a rationale of confidence 0.8 is right "
            "8 times in 10. ECE is the mean distance from it; AUROC the chance that a right "
            "rationale is more confident than a wrong one (0.5 tells nothing).",
            tuple(grounds.bins(r) for r in story.reliabilities), "confidence.html",
        ))  # fmt: skip
    return found + _rows_and_making(story)


def _money(story: Story) -> Section:
    table = grounds.money(story)
    if table is None:
        return Section("Where the money went", "money", "Nothing was bought.")
    tables = _there(table, grounds.bought_domains(story))
    return Section("Where the money went", "money", "", tables, "money.html")


def _rows_and_making(story: Story) -> list[Section]:
    dropped = _there(grounds.dropped(story))
    return [
        Section(
            "The same questions, side by side", "examples", story.examples.rule + _first(story), (),
            "examples.html",
        ),
        Section(
            "What was dropped, and why", "dropped",
            ("" if dropped else "No rationale was dropped.") + _first(story), dropped,
        ),
        Section(
            "Whether test questions were seen in training", "seen", story.contamination.sentence,
            _there(grounds.seen(story), grounds.apart(story), grounds.likest(story)),
        ),
        Section(
            "How to make it again", "again",
            "What exists in the store is found and not made again; answers in the ledger are not "
            "paid again. An empty store and an empty ledger make all of it anew.",
            (grounds.stages(story),), "again.html",
        ),
    ]  # fmt: skip


def _first(story: Story) -> str:
    return " Shown is the first seed and budget." if story.several else ""


def _there(*tables: Table | None) -> tuple[Table, ...]:
    return tuple(table for table in tables if table is not None)
