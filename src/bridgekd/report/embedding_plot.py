"""The map of a pool as SVG: its embeddings on two principal components.

Both axes have the same scale, so distances on the map are distances on the plane. The question of
a point is its tooltip. The SVG has no script, id or link, so a page can contain several maps.
"""

from collections.abc import Sequence
from html import escape

import numpy as np

from bridgekd.report.report_data import EmbeddingMap, MapPoint
from bridgekd.report.tables import to_single_line

INK, OUTLINE = "#1b1f24", "#d4380d"
VIRIDIS = (  # perceptually uniform and safe for color blindness; dark is hard
    "#fde725", "#b5de2b", "#6ece58", "#35b779", "#1f9e89",
    "#26828e", "#31688e", "#3e4989", "#482878", "#440154",
)  # fmt: skip
_WIDTH, _MIN_HEIGHT, _MAX_HEIGHT, _MARGIN = 720, 260, 640, 22
_N_BARS = 48
_N_NUMBERED = 15
_MIN_DISTANCE = 30  # between two numbers; a phone shows larger letters

Position = tuple[float, float]


def project(sample: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Return `rows` [k, d] on the first two principal components of `sample` [n, d].

    The result is float64 [k, 2] and the fraction of the sample's variance that each component
    explains. With one column, or without variance, a component is 0. The sign is scikit-learn's.
    """
    from sklearn.decomposition import PCA  # slow to import

    plane = np.zeros((len(rows), 2))
    sample = sample.astype(np.float64)
    if not sample.var(axis=0).any():
        return plane, (0.0, 0.0)
    n_components = min(2, *sample.shape)
    pca = PCA(n_components, svd_solver="covariance_eigh").fit(sample)
    plane[:, :n_components] = pca.transform(rows)
    first, second = (*map(float, pca.explained_variance_ratio_), 0.0)[:2]
    return plane, (first, second)


def get_color(difficulty: float) -> str:
    """Return the color of a difficulty in [0, 1], interpolated in VIRIDIS."""
    position = min(max(difficulty, 0.0), 1.0) * (len(VIRIDIS) - 1)
    index = min(int(position), len(VIRIDIS) - 2)
    low, high = (bytes.fromhex(color[1:]) for color in VIRIDIS[index : index + 2])
    mixed = (round(a + (position - index) * (b - a)) for a, b in zip(low, high, strict=True))
    return "#" + bytes(mixed).hex()


def build_caption(data: EmbeddingMap) -> str:
    """Return sentences about the axes and the shown questions."""
    first, second = data.explained_variance
    n_points, n_selected = len(data.points), len(data.selected)
    n_others = data.n_pool - data.n_selected
    fitted = f", fitted on {data.n_fitted:,} questions" if data.n_fitted < data.n_pool else ""
    return (
        f"The axes are the first two principal components of the question embeddings. They "
        f"explain {first + second:.1%} of the variance ({first:.1%} and {second:.1%}{fitted}), so "
        f"near points are only roughly similar. The map shows {n_points + n_selected:,} of "
        f"{data.n_pool:,} questions: {n_selected:,} of {data.n_selected:,} selected questions and "
        f"{n_points:,} of {n_others:,} others."
    ).replace("%", " %")


def plot_embedding_map(data: EmbeddingMap) -> str:
    """Return the map as an SVG element.

    Selected questions are outlined diamonds on top, the first ones with numbers. Others are dots.
    """
    positions, height = _compute_positions(data.points + data.selected)
    others, selected = positions[: len(data.points)], positions[len(data.points) :]
    label = escape(f"Map of the pool. {data.title}. {build_caption(data)}", quote=True)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="map" viewBox="0 0 {_WIDTH} {height:.0f}"'
        f' width="100%" role="img" aria-label="{label}" font-family="inherit" font-size="15">',
        f'<g stroke="{INK}" stroke-opacity=".45" stroke-width=".5">',
        *map(_draw_dot, data.points, others),
        f'</g><g stroke="{OUTLINE}" stroke-width="1.5" stroke-linejoin="round">',
        *map(_draw_diamond, reversed(data.selected), reversed(selected)),
        f'</g><g fill="{INK}" stroke="#fff" stroke-width="4" stroke-linejoin="round"'
        ' paint-order="stroke" font-weight="650" pointer-events="none">',
        *_draw_numbers(selected[:_N_NUMBERED]),
        "</g></svg>",
    ]
    return "\n".join(parts)


def draw_color_bar() -> str:
    """Return the color scale from difficulty 0 to 1 as an SVG element without text."""
    width = 100 / _N_BARS
    bars = (
        f'<rect x="{i * width:.2f}" width="{width + 0.2:.2f}" height="10" '
        f'fill="{get_color(i / (_N_BARS - 1))}"/>'
        for i in range(_N_BARS)
    )
    return (
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" width="160" height="14" '
        f'shape-rendering="crispEdges" aria-hidden="true">{"".join(bars)}</svg>'
    )


def draw_point_marker(is_selected: bool) -> str:
    """Return the marker of a selected or another question as an SVG element for a legend."""
    fill = f'fill="{get_color(0.6)}"'
    marker = (
        f'<path d="{_draw_path(9, 9)}" {fill} stroke="{OUTLINE}" stroke-width="1.5"/>'
        if is_selected
        else f'<circle cx="9" cy="9" r="4" {fill}/>'
    )
    return f'<svg viewBox="0 0 18 18" width="18" height="18" aria-hidden="true">{marker}</svg>'


def _compute_positions(points: Sequence[MapPoint]) -> tuple[list[Position], float]:
    """Return the positions of the points in the SVG, and its height, in pixels."""
    plane = np.array([(p.x, -p.y) for p in points]).reshape(-1, 2)
    low, high = (plane.min(axis=0), plane.max(axis=0)) if len(plane) else (np.zeros(2),) * 2
    span = np.where(high > low, high - low, 1e-12)
    width = _WIDTH - 2 * _MARGIN
    height = float(np.clip(width * span[1] / span[0] + 2 * _MARGIN, _MIN_HEIGHT, _MAX_HEIGHT))
    scale = min(width / span[0], (height - 2 * _MARGIN) / span[1])
    pixels = (plane - (low + high) / 2) * scale + np.array([_WIDTH, height]) / 2
    return [(float(x), float(y)) for x, y in pixels], height


def _draw_dot(point: MapPoint, position: Position) -> str:
    x, y = position
    attributes = f'cx="{x:.1f}" cy="{y:.1f}" r="2.7" fill="{get_color(point.difficulty)}"'
    return f"<circle {attributes}>{_draw_title(point)}</circle>"


def _draw_diamond(point: MapPoint, position: Position) -> str:
    attributes = f'd="{_draw_path(*position)}" fill="{get_color(point.difficulty)}"'
    return f"<path {attributes}>{_draw_title(point)}</path>"


def _draw_numbers(positions: Sequence[Position]) -> list[str]:
    """Return numbers from 1 beside the positions, without those that would touch an earlier one."""
    placed: list[Position] = []
    texts = []
    for number, (x, y) in enumerate(positions, start=1):
        if all(abs(x - a) > _MIN_DISTANCE or abs(y - b) > _MIN_DISTANCE for a, b in placed):
            placed.append((x, y))
            anchor = f'x="{x - 7:.1f}" text-anchor="end"' if x > _WIDTH / 2 else f'x="{x + 7:.1f}"'
            texts.append(f'<text {anchor} y="{y - 4:.1f}">{number}</text>')
    return texts


def _draw_path(x: float, y: float) -> str:
    return f"M{x:.1f} {y - 5.5:.1f}l5.5 5.5l-5.5 5.5l-5.5 -5.5z"


def _draw_title(point: MapPoint) -> str:
    rank = "Not selected" if point.rank is None else f"Selected as number {point.rank + 1}"
    domain = f", {to_single_line(point.domain)}" if point.domain else ""
    text = f"{rank}, difficulty {point.difficulty:.2f}{domain}: {to_single_line(point.question)}"
    return f"<title>{escape(text, quote=True)}</title>"
