"""Positions and colors of the points on the map of a pool.

Both axes have the same scale, so distances on the map are distances on the plane.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bridgekd.report.report_data import EmbeddingMap, MapPoint

VIRIDIS = (  # perceptually uniform and safe for color blindness; dark is hard
    "#fde725", "#b5de2b", "#6ece58", "#35b779", "#1f9e89",
    "#26828e", "#31688e", "#3e4989", "#482878", "#440154",
)  # fmt: skip
_WIDTH, _MIN_HEIGHT, _MAX_HEIGHT, _MARGIN = 720, 260, 640, 22
_N_NUMBERED = 15
_MIN_DISTANCE = 30  # between two numbers; a phone shows larger letters

Position = tuple[float, float]


@dataclass(frozen=True, slots=True)
class MapLayout:
    """The size of a map in pixels, its points with their positions, and (number, position)."""

    width: float
    height: float
    others: list[tuple[MapPoint, Position]]
    selected: list[tuple[MapPoint, Position]]
    numbers: list[tuple[int, Position]]


def get_color(difficulty: float) -> str:
    """Return the color of a difficulty in [0, 1], interpolated in VIRIDIS."""
    position = min(max(difficulty, 0.0), 1.0) * (len(VIRIDIS) - 1)
    index = min(int(position), len(VIRIDIS) - 2)
    low, high = (bytes.fromhex(color[1:]) for color in VIRIDIS[index : index + 2])
    mixed = (round(a + (position - index) * (b - a)) for a, b in zip(low, high, strict=True))
    return "#" + bytes(mixed).hex()


def compute_layout(data: EmbeddingMap) -> MapLayout:
    """Return the layout of a map."""
    points = data.points + data.selected
    plane = np.array([(p.x, -p.y) for p in points]).reshape(-1, 2)
    low, high = (plane.min(axis=0), plane.max(axis=0)) if len(plane) else (np.zeros(2),) * 2
    span = np.where(high > low, high - low, 1e-12)
    width = _WIDTH - 2 * _MARGIN
    height = float(np.clip(width * span[1] / span[0] + 2 * _MARGIN, _MIN_HEIGHT, _MAX_HEIGHT))
    scale = min(width / span[0], (height - 2 * _MARGIN) / span[1])
    pixels = (plane - (low + high) / 2) * scale + np.array([_WIDTH, height]) / 2
    placed = [(p, (float(x), float(y))) for p, (x, y) in zip(points, pixels, strict=True)]
    others, selected = placed[: len(data.points)], placed[len(data.points) :]
    numbers = _place_numbers([position for _, position in selected[:_N_NUMBERED]])
    return MapLayout(_WIDTH, height, others, selected, numbers)


def _place_numbers(positions: Sequence[Position]) -> list[tuple[int, Position]]:
    """Return numbers from 1 with positions, without those that would touch an earlier one."""
    placed: list[tuple[int, Position]] = []
    for number, (x, y) in enumerate(positions, start=1):
        if all(abs(x - a) > _MIN_DISTANCE or abs(y - b) > _MIN_DISTANCE for _, (a, b) in placed):
            placed.append((number, (x, y)))
    return placed
