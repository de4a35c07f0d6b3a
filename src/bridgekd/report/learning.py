"""A training as a small picture: the loss by update, and below it what each evaluation said."""

from itertools import pairwise

from bridgekd.report.charts import drawing, line, said
from bridgekd.report.evidence import Training
from bridgekd.report.grounds import judged

_TOP, _LOSS, _GAP, _JUDGED = 20, 84, 34, 54  # pixels: margin, first panel, between, second panel
_EDGE = 3.0  # percents left free at both sides
_MANY = 4  # evaluations that can all have their number


def curve(t: Training) -> str:
    """The training as an SVG element."""
    parts = _losses(t) + _validations(t)
    base = _TOP + _LOSS + _GAP + _JUDGED
    parts += [
        said(0, base + 18, "update 0", kind="faint"),
        said(100, base + 18, f"{t.n_updates:,}", "end", "faint"),
    ]
    return drawing(base + 26, in_words(t), parts)


def in_words(t: Training) -> str:
    """What the picture shows, in a sentence."""
    loss = "no log of its loss was kept"
    if t.losses:
        (first, high), (last, low) = t.losses[0], t.losses[-1]
        loss = f"loss {high:.3f} at update {first} and {low:.3f} at update {last}"
    if not t.validations:
        return f"{t.title}: {loss}; nothing was set aside to judge it by."
    return f"{t.title}: {loss}; validation {judged(t)}; weights of update {t.best_update} kept."


def _losses(t: Training) -> list[str]:
    bottom = _TOP + _LOSS
    axis = line(0, bottom, 100, bottom, "axis")
    if not t.losses:
        return [axis, said(0, _TOP + 30, "no log of its loss was kept", kind="faint")]
    most = max(loss for _, loss in t.losses) or 1.0
    way = " ".join(
        f"{_across(update, t):.2f},{100 * (1 - loss / most):.2f}" for update, loss in t.losses
    )
    return [
        axis,
        said(0, 12, f"loss, {t.losses[0][1]:.3f} to {t.losses[-1][1]:.3f}", kind="faint"),
        f'<svg y="{_TOP}" width="100%" height="{_LOSS}" viewBox="0 0 100 100" '
        f'preserveAspectRatio="none" overflow="visible"><polyline class="way" points="{way}"/>'
        "</svg>",
    ]


def _validations(t: Training) -> list[str]:
    top = _TOP + _LOSS + _GAP
    bottom = top + _JUDGED
    axis = line(0, bottom, 100, bottom, "axis")
    if not t.validations:
        return [axis, said(0, top + 20, "not judged while it went on", kind="faint")]
    values = [value for _, value in t.validations]
    most = (max(values) if t.by_loss else 1.0) or 1.0
    what = "held-out loss" if t.by_loss else "validation accuracy"
    at = [(_across(u, t), bottom - _JUDGED * v / most) for u, v in t.validations]
    parts = [axis, said(0, top - 14, what, kind="faint")]
    parts += [line(*one, *other, "joined c0") for one, other in pairwise(at)]
    for (x, y), (update, value) in zip(at, t.validations, strict=True):
        kept = update == t.best_update
        parts.append(
            f'<circle class="{"mark c0" if kept else "ring"}" cx="{x:.2f}%" cy="{y:.1f}" r="4.5"/>'
        )
        if kept or len(values) <= _MANY:
            shown = f"{value:.3f}" if t.by_loss else f"{100 * value:.1f} %"
            place, anchor = _beside(x)
            parts.append(said(place, y - 9, shown, anchor, "bold" if kept else ""))
    return parts


def _beside(x: float) -> tuple[float, str]:
    """Where a number stands over a point: inside the picture at its edges."""
    if x > 85:
        return 100, "end"
    return (0, "start") if x < 12 else (x, "middle")


def _across(update: int, t: Training) -> float:
    return _EDGE + (100 - 2 * _EDGE) * update / max(1, t.n_updates)
