"""BRIDGE (arXiv 2512.20403): select locally, pay for little, teach through an assistant."""

from bridgekd.io.artifact_store import Artifact
from bridgekd.methods import Method
from bridgekd.runs.run import Arm, Run
from bridgekd.variants import NoOptions

ASSISTANT_CARD = "The assistant of the method: it learned from the teacher's own rationales."


def build_bridge(
    run: Run,
    name: str,
    title: str,
    card_sentence: str,
    *,
    strategy: str | None = None,
    assistant_arm: tuple[str, str] = ("assistant", "Assistant, trained"),
) -> list[Arm]:
    """Return the arms: phase 1 gives the assistant, phase 2 the student."""
    pool = run.load_pool()
    warm = run.warm_up(pool)
    assistant = teach_assistant(run, pool, warm, strategy)
    rationales = run.annotate(pool, assistant)
    instructed = run.instruct_student()
    student = run.train_student(pool, instructed, [rationales])
    return [
        run.build_assistant_base_arm(),
        *run.build_warm_arm(warm),
        Arm(*assistant_arm, assistant, "assistant", card_sentence=ASSISTANT_CARD),
        *run.build_start_arms(instructed),
        Arm(
            name, title, student, "student", run.student_prompt_mode,
            is_result=True, card_sentence=card_sentence,
        ),
    ]  # fmt: skip


def teach_assistant(
    run: Run, pool: Artifact, warm: Artifact, strategy: str | None = None
) -> Artifact:
    """Return the assistant after selection, purchase and check; in `select.n_rounds` rounds, each
    trained from `warm` on everything that was purchased by then.
    """
    assistant, n_rounds = warm, run.recipe.select.n_rounds
    purchases: list[Artifact] = []
    rationales: list[Artifact] = []
    for k in range(n_rounds):
        part = (k / n_rounds, (k + 1) / n_rounds)
        scores, embeddings = run.score_pool(pool, assistant)
        ranking = run.select_questions(
            pool, scores, embeddings, purchases, strategy=strategy, part=part
        )
        purchases = [*purchases, run.query_teacher(pool, ranking, part=part)]
        rationales = [*rationales, run.check_rationales(pool, purchases[-1])]
        assistant = run.train_assistant(pool, warm, rationales)
    return assistant


def build(run: Run, options: NoOptions) -> list[Arm]:
    """Return BRIDGE with the recipe's own strategy."""
    return build_bridge(run, METHOD.name, "Student, BRIDGE", METHOD.card_sentence)


METHOD = Method(
    name="bridge",
    title="BRIDGE",
    summary="Selected questions teach a local assistant, which then teaches the student for free.",
    paper="arXiv 2512.20403",
    card_sentence="Method: BRIDGE (arXiv 2512.20403). A local assistant learned from the teacher's "
    "answers to questions selected by difficulty and diversity; the student learned from the "
    "rationales that the assistant then wrote for the whole pool.",
    rank=100,
    build=build,
)
