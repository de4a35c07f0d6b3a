"""The pool as a map: its embeddings on two axes, written as SVG by hand so that every point can say
what it is.

The one idea: both axes share one scale, so that what is far apart on the map is far apart on the
plane. No script, no id and no address is written, so that maps can stand on one page.
"""

import unicodedata
from html import escape

import numpy as np
from scipy.linalg import eigh

from bridgekd.report.evidence import MapPoint, PoolMap

INK, OUTLINE = "#1b1f24", "#d4380d"
VIRIDIS = (  # perceptually even and safe for colour-blind eyes; here dark is hard
    "#fde725", "#b5de2b", "#6ece58", "#35b779", "#1f9e89",
    "#26828e", "#31688e", "#3e4989", "#482878", "#440154",
)  # fmt: skip
LONGEST = 160  # characters of a question in a title and in a table
_WIDTH, _LOWEST, _HIGHEST, _MARGIN = 720, 260, 640, 22
_BARS = 48
_ROOM = 30  # between two numbers, for the larger letters on a phone too
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # of directions


def projected(sample: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """`rows` [k, d] on the two principal axes of `sample` [n, d]: float64 [k, 2], and the share of
    the sample's variance that each axis holds, in [0, 1].

    The sign of an axis is such that its largest component (the first of equals) is positive. One
    column gives one axis, the other is 0; so it is where nothing varies.
    """
    mean = sample.mean(axis=0, dtype=np.float64)
    moved = sample - mean
    d = moved.shape[1]
    n_axes = min(2, d)
    spread, axes = eigh(moved.T @ moved, subset_by_index=[d - n_axes, d - 1])
    spread, axes = np.maximum(spread[::-1], 0), axes[:, ::-1]
    largest = np.abs(axes).round(6).argmax(axis=0)
    axes = axes * np.where(axes[largest, np.arange(n_axes)] < 0, -1, 1)
    found = np.zeros((len(rows), 2))
    found[:, :n_axes] = (rows - mean) @ axes
    total = float((moved**2).sum())
    shares = [float(s) / total if total > 0 else 0.0 for s in spread]
    return found, (shares[0], shares[1] if n_axes > 1 else 0.0)


def colour(difficulty: float) -> str:
    """The colour of a difficulty in [0, 1], between the two nearest stops of VIRIDIS."""
    place = min(max(difficulty, 0.0), 1.0) * (len(VIRIDIS) - 1)
    at = min(int(place), len(VIRIDIS) - 2)
    low, high = (bytes.fromhex(stop[1:]) for stop in VIRIDIS[at : at + 2])
    mixed = (round(a + (place - at) * (b - a)) for a, b in zip(low, high, strict=True))
    return "#" + bytes(mixed).hex()


def plain(text: str) -> str:
    """`text` on one line of at most LONGEST characters, without control characters and without
    those that turn the direction of what follows; not escaped.
    """
    kept = (
        " " if unicodedata.category(c) in ("Cc", "Cs") or c in _TURNING else c
        for c in text[: 8 * LONGEST]
    )
    line = " ".join("".join(kept).split())
    cut = len(line) > LONGEST or len(text) > 8 * LONGEST
    return line[: LONGEST - 1].rstrip() + "…" if cut else line


def caption(pool_map: PoolMap) -> str:
    """What the axes hold and what is shown, in sentences."""
    first, second = pool_map.shares
    n_dots, n_picks = len(pool_map.points), len(pool_map.picks)
    n_others = pool_map.n_pool - pool_map.n_chosen
    fitted = (
        f", as {pool_map.n_fitted:,} of them tell" if pool_map.n_fitted < pool_map.n_pool else ""
    )
    return (
        f"The two axes hold {first + second:.1%} of the variance of the questions' embeddings "
        f"({first:.1%} and {second:.1%}{fitted}), so that near is only roughly alike. "
        f"Shown are {n_dots + n_picks:,} of {pool_map.n_pool:,} questions: "
        f"{n_picks:,} of {pool_map.n_chosen:,} picks and {n_dots:,} of {n_others:,} others."
    ).replace("%", " %")


def drawn_map(pool_map: PoolMap) -> str:
    """The map as an SVG element: others as dots, picks as outlined diamonds on top, the first of
    them with their places where there is room.
    """
    places, height = _placed(pool_map.points + pool_map.picks)
    dots, diamonds = places[: len(pool_map.points)], places[len(pool_map.points) :]
    label = escape(f"Map of the pool, {pool_map.title}. {caption(pool_map)}", quote=True)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="map" viewBox="0 0 {_WIDTH} {height:.0f}"'
        f' width="100%" role="img" aria-label="{label}" font-family="inherit" font-size="15">',
        f'<g stroke="{INK}" stroke-opacity=".45" stroke-width=".5">',
        *(_dot(p, x, y) for p, (x, y) in zip(pool_map.points, dots, strict=True)),
        f'</g><g stroke="{OUTLINE}" stroke-width="1.5" stroke-linejoin="round">',
        *(
            _diamond(p, x, y)
            for p, (x, y) in reversed(list(zip(pool_map.picks, diamonds, strict=True)))
        ),
        f'</g><g fill="{INK}" stroke="#fff" stroke-width="4" stroke-linejoin="round"'
        ' paint-order="stroke" font-weight="650" pointer-events="none">',
        *_numbers(diamonds[: len(pool_map.reasons)]),
        "</g></svg>",
    ]
    return "\n".join(parts)


def legend_bar() -> str:
    """The scale of difficulty from 0 to 1 as an SVG element without text."""
    width = 100 / _BARS
    bars = (
        f'<rect x="{i * width:.2f}" width="{width + 0.2:.2f}" height="10" '
        f'fill="{colour(i / (_BARS - 1))}"/>'
        for i in range(_BARS)
    )
    return (
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" width="160" height="14" '
        f'shape-rendering="crispEdges" aria-hidden="true">{"".join(bars)}</svg>'
    )


def legend_mark(pick: bool) -> str:
    """A pick's or another question's mark as a small SVG element."""
    mark = (
        f'<path d="{_path(9, 9)}" fill="{colour(0.6)}" stroke="{OUTLINE}" stroke-width="1.5"/>'
        if pick
        else f'<circle cx="9" cy="9" r="4" fill="{colour(0.6)}"/>'
    )
    return f'<svg viewBox="0 0 18 18" width="18" height="18" aria-hidden="true">{mark}</svg>'


def _placed(points: tuple[MapPoint, ...]) -> tuple[list[tuple[float, float]], float]:
    """Where the points stand in the picture, and its height; up on the plane is up there."""
    plane = np.array([(p.x, -p.y) for p in points]).reshape(-1, 2)
    low, high = (plane.min(axis=0), plane.max(axis=0)) if len(plane) else (np.zeros(2),) * 2
    span = np.where(high > low, high - low, 1e-12)
    room = _WIDTH - 2 * _MARGIN
    height = float(np.clip(room * span[1] / span[0] + 2 * _MARGIN, _LOWEST, _HIGHEST))
    scale = min(room / span[0], (height - 2 * _MARGIN) / span[1])
    middle = np.array([_WIDTH, height]) / 2
    found = (plane - (low + high) / 2) * scale + middle
    return [(float(x), float(y)) for x, y in found], height


def _dot(point: MapPoint, x: float, y: float) -> str:
    fill = colour(point.difficulty)
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.7" fill="{fill}">{_title(point)}</circle>'


def _diamond(point: MapPoint, x: float, y: float) -> str:
    return f'<path d="{_path(x, y)}" fill="{colour(point.difficulty)}">{_title(point)}</path>'


def _numbers(places: list[tuple[float, float]]) -> list[str]:
    """1 and on beside `places`; a number that would touch an earlier one is left out."""
    written: list[tuple[float, float]] = []
    found = []
    for number, (x, y) in enumerate(places, start=1):
        if all(abs(x - a) > _ROOM or abs(y - b) > _ROOM for a, b in written):
            written.append((x, y))
            at = f'x="{x - 7:.1f}" text-anchor="end"' if x > _WIDTH / 2 else f'x="{x + 7:.1f}"'
            found.append(f'<text {at} y="{y - 4:.1f}">{number}</text>')
    return found


def _path(x: float, y: float) -> str:
    return f"M{x:.1f} {y - 5.5:.1f}l5.5 5.5l-5.5 5.5l-5.5 -5.5z"


def _title(point: MapPoint) -> str:
    place = "Not picked" if point.rank is None else f"Pick {point.rank + 1}"
    domain = f", {plain(point.domain)}" if point.domain else ""
    told = f"{place}, difficulty {point.difficulty:.2f}{domain}: {plain(point.question)}"
    return f"<title>{escape(told, quote=True)}</title>"
