"""BRIDGE (arXiv 2512.20403): pay the teacher for a few selected questions, teach a local assistant
with its answers, and let the assistant teach the student for free.
"""

from collections.abc import Sequence

from bridgekd.io.artifact_store import Artifact
from bridgekd.methods import Method
from bridgekd.runs.run import Arm, Run
from bridgekd.variants import NoOptions


def build_bridge(
    run: Run, method: Method, label: str = "BRIDGE", strategy: str | None = None
) -> list[Arm]:
    """Return the models of phase 1 (assistant) and phase 2 (student). `label` is in their titles,
    and `strategy` replaces the recipe's select.strategy.
    """
    pool = run.load_pool()
    warm = run.warm_up(pool)
    assistant, purchased = teach_assistant(run, pool, warm, strategy)
    rationales = write_rationales(run, pool, assistant, purchased)
    instructed = run.instruct_student()
    student = run.train_student(pool, instructed, rationales)
    return [
        run.build_assistant_base_arm(),
        *run.build_warm_arm(warm),
        build_assistant_arm(assistant, strategy, label),
        *run.build_start_arms(instructed),
        method.build_result_arm(f"Student, {label}", student, run.student_prompt_mode),
    ]


def teach_assistant(
    run: Run, pool: Artifact, warm: Artifact, strategy: str | None = None
) -> tuple[Artifact, list[Artifact]]:
    """Return the assistant after `select.n_rounds` rounds of selection, purchase and training, and
    the teacher's rationales of every round.

    Each round trains the warm assistant again, on the rationales of all rounds so far.
    """
    assistant, n_rounds = warm, run.recipe.select.n_rounds
    purchases: list[Artifact] = []
    rationales: list[Artifact] = []
    for k in range(n_rounds):
        budget_slice = (k / n_rounds, (k + 1) / n_rounds)
        scores, embeddings = run.score_pool(pool, assistant)
        ranking = run.select_questions(
            pool, scores, embeddings, purchases, strategy=strategy, budget_slice=budget_slice
        )
        purchases.append(run.query_teacher(pool, ranking, budget_slice=budget_slice))
        rationales.append(run.check_rationales(pool, purchases[-1]))
        assistant = run.train_assistant(pool, warm, rationales)
    return assistant, rationales


def write_rationales(
    run: Run, pool: Artifact, assistant: Artifact, purchased: Sequence[Artifact]
) -> Sequence[Artifact]:
    """Return what the student learns from, by student.rationales: the assistant's rationales of the
    pool, the teacher's, `purchased`, or both. The last two are ours.
    """
    source = run.recipe.student.rationales
    written = [] if source == "teacher" else [run.annotate(pool, assistant)]
    rationales = written if source == "assistant" else [*purchased, *written]
    return run.select_rationales(pool, rationales, assistant)


def build_assistant_arm(assistant: Artifact, strategy: str | None = None, label: str = "") -> Arm:
    """Return the trained assistant as an arm. A strategy that replaces the recipe's names it."""
    name = "assistant" if strategy is None else f"{strategy}_assistant"
    title = "Assistant, trained" if strategy is None else f"Assistant, {label}"
    card = "The assistant of the method: it learned from the teacher's own rationales."
    return Arm(name, title, assistant, "assistant", card_sentence=card)


def define_bridge_variant(
    strategy: str, label: str, *, title: str, summary: str, difference: str, rank: int
) -> Method:
    """Return the method `bridge_<strategy>`: BRIDGE with another selection strategy.

    `label` names its models, and `difference` says in the card what differs from BRIDGE.
    """

    def build(run: Run, options: NoOptions) -> list[Arm]:
        return build_bridge(run, method, label, strategy)

    method = Method(
        name=f"bridge_{strategy}",
        title=title,
        summary=summary,
        paper="arXiv 2512.20403",
        card_sentence=describe_variant(difference),
        rank=rank,
        build=build,
    )
    return method


def describe_variant(difference: str) -> str:
    """Return the card sentence of BRIDGE with one difference."""
    return (
        f"Method: BRIDGE (arXiv 2512.20403) {difference}. A local assistant learned from the "
        "teacher's answers; the student learned from the rationales that the assistant then wrote "
        "for the whole pool."
    )


def build(run: Run, options: NoOptions) -> list[Arm]:
    """Return BRIDGE with the recipe's strategy."""
    return build_bridge(run, METHOD)


METHOD = Method(
    name="bridge",
    title="BRIDGE",
    summary="Selected questions teach a local assistant, which then teaches the student for free.",
    paper="arXiv 2512.20403",
    card_sentence=describe_variant("with questions selected by difficulty and diversity"),
    rank=100,
    build=build,
)
