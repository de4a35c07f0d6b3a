"""A training as a small plot: the loss by update, and below it the result of each evaluation."""

from itertools import pairwise

from bridgekd.report.plots import draw_line, draw_text, render_svg
from bridgekd.report.report_data import TrainingSummary
from bridgekd.report.tables import format_percent

_TOP, _LOSS_HEIGHT, _GAP, _VALIDATION_HEIGHT = 20, 84, 34, 54  # pixels
_LOSS_BOTTOM = _TOP + _LOSS_HEIGHT
_VALIDATION_TOP = _LOSS_BOTTOM + _GAP
_BOTTOM = _VALIDATION_TOP + _VALIDATION_HEIGHT
_EDGE = 3.0  # free space at both sides, in percent
_MAX_LABELS = 4  # with more evaluations, only the kept one has a label


def plot_training(training: TrainingSummary) -> str:
    """Return the training as an SVG element."""
    parts = [
        draw_line(0, _LOSS_BOTTOM, 100, _LOSS_BOTTOM, "axis"),
        draw_line(0, _BOTTOM, 100, _BOTTOM, "axis"),
        *_plot_losses(training),
        *_plot_validations(training),
        draw_text(0, _BOTTOM + 18, "update 0", css_class="faint"),
        draw_text(100, _BOTTOM + 18, f"{training.n_updates:,}", "end", "faint"),
    ]
    return render_svg(_BOTTOM + 26, describe_training(training), parts)


def describe_training(t: TrainingSummary) -> str:
    """Return the values of the plot as a sentence."""
    loss = "no loss log"
    if t.losses:
        (first, high), (last, low) = t.losses[0], t.losses[-1]
        loss = f"loss {high:.3f} at update {first} and {low:.3f} at update {last}"
    if not t.validations:
        return f"{t.title}: {loss}; no validation split."
    format_value = "{:.3f}".format if t.has_eval_loss else format_percent
    values = ", ".join(format_value(value) for _, value in t.validations)
    return f"{t.title}: {loss}; {_get_measure(t)} {values}; weights of update {t.best_update} kept."


def _plot_losses(t: TrainingSummary) -> list[str]:
    if not t.losses:
        return [draw_text(0, _TOP + 30, "no loss log", css_class="faint")]
    highest = max(loss for _, loss in t.losses) or 1.0
    points = " ".join(
        f"{_scale_x(update, t):.2f},{100 * (1 - loss / highest):.2f}" for update, loss in t.losses
    )
    label = f"training loss, {t.losses[0][1]:.3f} to {t.losses[-1][1]:.3f}"
    return [
        draw_text(0, 12, label, css_class="faint"),
        f'<svg y="{_TOP}" width="100%" height="{_LOSS_HEIGHT}" viewBox="0 0 100 100" '
        f'preserveAspectRatio="none" overflow="visible"><polyline class="way" points="{points}"/>'
        "</svg>",
    ]


def _plot_validations(t: TrainingSummary) -> list[str]:
    if not t.validations:
        return [draw_text(0, _VALIDATION_TOP + 20, "no validation split", css_class="faint")]
    highest = (max(value for _, value in t.validations) if t.has_eval_loss else 1.0) or 1.0
    points = [
        (_scale_x(update, t), _BOTTOM - _VALIDATION_HEIGHT * value / highest)
        for update, value in t.validations
    ]
    label = _get_measure(t) + ("" if t.has_eval_loss else " in %")
    parts = [draw_text(0, _VALIDATION_TOP - 14, label, css_class="faint")]
    parts += [draw_line(*a, *b, "joined c0") for a, b in pairwise(points)]
    for (x, y), (update, value) in zip(points, t.validations, strict=True):
        is_kept = update == t.best_update
        css_class = "mark c0" if is_kept else "ring"
        parts.append(f'<circle class="{css_class}" cx="{x:.2f}%" cy="{y:.1f}" r="4.5"/>')
        if is_kept or len(points) <= _MAX_LABELS:
            position, anchor = _get_anchor(x)
            text = f"{value:.3f}" if t.has_eval_loss else f"{100 * value:.1f}"
            parts.append(draw_text(position, y - 9, text, anchor, "bold" if is_kept else ""))
    return parts


def _get_measure(t: TrainingSummary) -> str:
    return "evaluation loss" if t.has_eval_loss else "validation accuracy"


def _get_anchor(x: float) -> tuple[float, str]:
    """Return position and anchor of a label above a point; at the edges it stays in the plot."""
    if x > 85:
        return 100, "end"
    return (0, "start") if x < 12 else (x, "middle")


def _scale_x(update: int, t: TrainingSummary) -> float:
    return _EDGE + (100 - 2 * _EDGE) * update / max(1, t.n_updates)
