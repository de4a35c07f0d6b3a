"""A report's story with something in every section, some of it hostile."""

from bridgekd.core.chance import Chance
from bridgekd.core.crossed import Estimate
from bridgekd.report.evidence import (
    Compared,
    Contamination,
    Dropped,
    Likeness,
    Purchase,
    Reliability,
    Shown,
    SideBySide,
    StageRow,
    Training,
)
from bridgekd.report.story import Against, ArmRow, Gain, Pair, Reasoning, SeedRow, Story
from bridgekd.stats.metrics import Metrics, PairDifference

HOSTILE = "</title></svg><script>alert('x')</script> \"quoted\" \x00\x08\u202e & <b>"


def some_metrics(**changes):
    """Figures of no arm; `changes` replace fields."""
    fields = {"arms": {}, "pairs": (), "vs_reference": (), "chance": Chance(0.1, "guessing")}
    return Metrics(**(fields | changes))


def a_pair(arm, reference, p=0.01):
    """The test of two arms."""
    fields = {"n_test": 600, "n_seeds": 1, "difference": 0.1, "ci95": (0.05, 0.15)}
    return PairDifference(
        arm=arm, reference=reference, p=p, test="McNemar", p_by_seed=(p,), **fields
    )


def an_arm(name, accuracy, low, high, **changes):
    told = Estimate(accuracy, low, high)
    fields = {
        "by_domain": {"clinic": told, "statute": told},
        "by_steps": {"2": told, "3 to 12": told},
        "reasoning": Reasoning(Estimate(40, 38, 42), told, Estimate(41, 40, 42), told, (180,)),
    } | changes
    return ArmRow(name, name.title(), accuracy, low, high, 600, 200, 0.25, 61.0, **fields)


def a_training(**changes):
    fields = {
        "title": "Bridge", "folder": "train_student-1", "n_rows": 180, "n_too_long": 1,
        "n_updates": 8, "best_update": 4, "seconds": 2.0,
        "losses": ((2, 3.0), (4, 1.5), (6, 1.0), (8, 0.5)), "validations": ((4, 0.6), (8, 0.55)),
    } | changes  # fmt: skip
    return Training(**fields)


def a_story(**changes):
    """Two arms; `changes` replace fields."""
    told = Estimate(0.5, 0.4, 0.6)
    gain = Gain("Student, untouched", Estimate(20, 15, 25), "gain", Estimate(0.01, 0.008, 0.02),
                Estimate(10, 8, 12), told)  # fmt: skip
    row = SideBySide("Q?", "a", "clinic", (("Bridge", "<script>x</script>", False),))
    fields = {
        "name": "tiny",
        "headline": "It went well.",
        "arms": (
            an_arm("teacher", 0.9, 0.87, 0.92),
            an_arm("bridge", 0.6, 0.56, 0.64, gain=gain, by_seed=(SeedRow(0, told, 200, 0.25),)),
        ),
        "chance": (0.25, "always answering 'ann'"),
        "pairs": (Pair("Bridge minus Teacher", -0.3, 1e-9, 600),),
        "versus": (Against("Bridge", "Direct", 0.1, 0.05, 0.15, 0.02),),
        "purchases": (
            Purchase("Chosen by: bridge", 200, 0.25, "queries", 180, {"wrong answer": 20},
                     {"clinic": (150, 1000), "statute": (50, 1000)}, usd_kept=0.2),
            Purchase("The teacher on test questions", 50, 0.1, "queries", 0, {}, {}, measures=True),
        ),
        "examples": Shown("Nobody picked these.", (row,)),
        "stages": (StageRow("select", "select-1", 0.1, "n_chosen 200"),),
        "contamination": Contamination(
            "0 of 600 test questions stand word for word in the train file.",
            600,
            (Compared("The train file's questions", 4000, 12, 3, 1),),
            (Likeness("The train file's questions", 0.85, "Who is | where?", HOSTILE),),
            "Bridge",
            (("no run shared", 588, told), ("80 % or more", 0, told)),
        ),
        "recipe_yaml": "name: tiny",
        "command": "bridgekd run tiny.yaml",
        "libraries": "torch 2",
        "reliabilities": (
            Reliability("Rationales", 60, 0.1, 0.8, ((0.2, 0.3, 20), (0.9, 0.8, 40))),
        ),
        "trainings": (
            a_training(),
            a_training(title="Direct", losses=(), validations=()),
            a_training(title="Bridge, seed 1", by_loss=True, first=False),
        ),
        "dropped": (
            Dropped("The teacher's rationales", "wrong answer", 20, 200, "Q?", HOSTILE, "wrong: b"),
        ),
        "n_in_domain": {"clinic": 400, "statute": 200},
        "n_with_steps": {"2": 350, "3 to 12": 250},
        "steps_told_by": "teacher",
        "tests": "McNemar",
    } | changes  # fmt: skip
    return Story(**fields)
