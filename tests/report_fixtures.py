"""Report data with content in every section, some of it hostile."""

from bridgekd.report.page import make_environment
from bridgekd.report.report_data import (
    Contamination,
    DroppedRationales,
    OverlapAccuracy,
    OverlapSummary,
    PredictionRow,
    PurchaseSummary,
    ReportData,
    SampledPredictions,
    ShownAnswer,
    TrainingSummary,
)
from bridgekd.stats.calibration import Calibration
from bridgekd.stats.chance_baseline import ChanceBaseline
from bridgekd.stats.metrics import (
    AnswerMetrics,
    ArmMetrics,
    GroupAccuracy,
    MeanEstimate,
    Metrics,
    PairDifference,
    ReferenceDifference,
)
from bridgekd.stats.mixed_effects import Estimate
from bridgekd.throughput import GenerationSpeed

PLOTS = make_environment().get_template("plots.html").module
HOSTILE = "</title></svg><script>alert('x')</script> \"quoted\" \x00\x08\u202e & <b>"
_PAIR = {"n_test": 600, "n_seeds": 1, "difference": 0.1, "ci95": (0.05, 0.15), "test": "McNemar"}


def some_metrics(arms=None, **changes):
    """Metrics of these arms, by label; `changes` replace fields."""
    fields = {"pairs": (), "vs_reference": (), "chance": ChanceBaseline(0.1, "guessing")}
    return Metrics(**(fields | {"arms": arms or {}} | changes))


def a_pair(arm, reference, p=0.01):
    """The paired test of two arms."""
    return PairDifference(arm=arm, reference=reference, p=p, p_by_seed=(p,), **_PAIR)


def make_arm(name, accuracy, low, high, **changes):
    """The metrics of one arm; `changes` replace fields."""
    group = GroupAccuracy(accuracy=accuracy, ci95=(low, high), n_test=300)
    fields = {
        "arm": name, "title": name, "budget": "", "is_trained": True,
        "accuracy": accuracy, "ci95": (low, high),
        "interval": "Wilson", "n_test": 600, "n_seeds": 1, "n_correct": 300, "n_queries": 200,
        "spend_usd": 0.25, "seconds": 61.0, "by_domain": {"clinic": group, "statute": group},
        "by_steps": {}, "rationale_words": MeanEstimate(mean=40, ci95=(38, 42)),
        "answers": AnswerMetrics(
            tokens=MeanEstimate(mean=57.5, ci95=(54.3, 60.7)),
            cut_off=MeanEstimate(mean=0.02, ci95=(0.01, 0.035)),
            without_answer=MeanEstimate(mean=0.05, ci95=(0.035, 0.071)),
            repetitive=MeanEstimate(mean=0, ci95=(0, 0.006)),
        ),
        "samples": None, "memorization": None,
        "wrong_steps": None, "training_set": None, "by_seed": (), "gain": None,
        "gap_recovered": None,
    }  # fmt: skip
    return ArmMetrics(**(fields | changes))


def make_training(**changes):
    fields = {
        "title": "Bridge", "n_updates": 8, "best_update": 4,
        "losses": ((2, 3.0), (4, 1.5), (6, 1.0), (8, 0.5)), "validations": ((4, 0.6), (8, 0.55)),
    } | changes  # fmt: skip
    return TrainingSummary(**fields)


def make_report_data(arms=None, **changes):
    """Three arms, or `arms`; `changes` replace fields."""
    arms = arms or (
        make_arm("teacher", 0.9, 0.87, 0.92, title="Teacher", is_trained=False),
        make_arm("direct", 0.5, 0.46, 0.54, title="Direct"),
        make_arm("bridge", 0.6, 0.56, 0.64, title="Bridge"),
    )
    difference = ReferenceDifference(
        arm="bridge", reference="direct", p=0.01, p_by_seed=(0.01,), budget="", p_holm=0.02, **_PAIR
    )
    metrics = some_metrics(
        {arm.arm: arm for arm in arms},
        vs_reference=(difference,),
        chance=ChanceBaseline(0.25, "always answering 'ann'"),
    )
    answer = ShownAnswer("Bridge", "<script>x</script>", False)
    accuracy = Estimate(0.5, 0.4, 0.6)
    fields = {
        "name": "tiny",
        "headline": "It went well.",
        "metrics": metrics,
        "lead": "bridge",
        "purchases": (
            PurchaseSummary("Selection: BRIDGE", 200, 0.25, "query limit", 180,
                            {"wrong answer": 20}, kept_usd=0.2),
            PurchaseSummary("The teacher on test questions", 50, 0.1, "query limit", is_eval=True),
        ),
        "examples": SampledPredictions(
            "A sample.", (PredictionRow("Q?", "a", "clinic", (answer,)),)
        ),
        "contamination": Contamination(
            "0 of 600 test questions are in the train file.",
            600,
            (OverlapSummary("Questions of the train file", 4000, 12, 3, 1),),
            "Bridge",
            (OverlapAccuracy("none shared", 588, accuracy),
             OverlapAccuracy("80 % or more", 0, accuracy)),
        ),
        "recipe_yaml": "name: tiny",
        "command": "bridgekd run tiny.yaml",
        "libraries": "torch 2",
        "trainings": (
            make_training(),
            make_training(title="Direct", losses=(), validations=()),
            make_training(title="Bridge, seed 1", has_eval_loss=True, is_first=False),
        ),
        "dropped": (
            DroppedRationales("The teacher's rationales", "wrong answer", 20, 200,
                              "Who is | where?", HOSTILE, "wrong: b"),
        ),
        "calibrations": (("Rationales", Calibration(60, 0.1, None, ())),),
        "cut_off": (("The assistant's own rationales, Bridge",
                     GenerationSpeed(150, 9000, 14400, 60.0, 240.0, n_cut_off=149)),),
    } | changes  # fmt: skip
    return ReportData(**fields)
