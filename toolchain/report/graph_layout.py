"""Places a graph's boxes and lines in layers from top to bottom, so that a chain fits a narrow window.

All lengths are in pixels, since text keeps its size; a picture that is wider than the window is scrolled.
"""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from toolchain.report.page import Box, Edge, Graph
from toolchain.text import printable

_CHARACTER_WIDTH = 6.9  # the width of a character of 12 px text
_BOLD = 1.08
_COLUMNS = 42
_LINE = 17
_PADDING = 10
_SPACING, _MARGIN = 26, 4  # the space between boxes of a layer, and the picture's margin
_LABEL_GAP = 18  # the space above and below the texts between two layers
_LABEL_LIMIT = 3  # how many tensors are named beside a line
_LINE_WIDTH = 14  # the width that a line takes in a layer that it passes


@dataclass
class PlacedBox:
    """A box with its place, or (without ``kind``) the place where a line passes a layer."""

    layer: int
    width: float
    height: float
    kind: str = ""
    title: str = ""
    lines: Sequence[str] = ()
    x: float = 0
    y: float = 0

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


@dataclass
class PlacedLine:
    """A line between two boxes as an SVG path, with the places of its arrow and its texts."""

    path: str
    arrow: tuple[float, float]
    texts: list[tuple[float, float, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Drawing:
    """A graph's boxes and lines at their places, and the size of the whole picture."""

    width: int
    height: int
    boxes: list[PlacedBox]
    lines: list[PlacedLine]


def drawing(graph: Graph) -> Drawing:
    """Places a graph's boxes and lines; edges must lead from a box to a later one in ``graph.boxes``."""
    layers = _layers(graph)
    boxes = {box.key: _sized(box, layers[box.key]) for box in graph.boxes}
    routes = [_route(edge, boxes) for edge in graph.edges]
    rows = _rows([*boxes.values(), *(stop for route in routes for stop in route[1:-1])])
    _order(rows, routes)
    width = _across(rows)
    height = _down(rows, routes, graph.edges)
    lines = _lines(routes, graph.edges, width)
    return Drawing(round(width), round(height), list(boxes.values()), lines)


def _layers(graph: Graph) -> dict[str, int]:
    layers = {box.key: 0 for box in graph.boxes}
    for box in graph.boxes:  # sources precede targets
        for edge in graph.edges:
            if edge.target == box.key:
                layers[box.key] = max(layers[box.key], layers[edge.source] + 1)
    return layers


def _sized(box: Box, layer: int) -> PlacedBox:
    lines = [part for line in box.lines for part in _wrapped(printable(line, 400))]
    title = _cut(box.title, round(_COLUMNS / _BOLD))
    longest = max([*map(len, lines), len(title) * _BOLD])
    width = max(150.0, longest * _CHARACTER_WIDTH + 2 * _PADDING)
    height = (1 + len(lines)) * _LINE + 2 * _PADDING - 4
    return PlacedBox(layer, round(width), height, box.kind, title, lines)


def _cut(text: str, columns: int = _COLUMNS) -> str:
    """Leaves out the middle of a one-line text that is too long."""
    text, half = printable(text, 4 * columns), columns // 2
    return text if len(text) <= columns else f"{text[:half]}\u2026{text[1 - half :]}"


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, _COLUMNS, subsequent_indent="  ") or [""]


def _route(edge: Edge, boxes: dict[str, PlacedBox]) -> list[PlacedBox]:
    source, target = boxes[edge.source], boxes[edge.target]
    between = [PlacedBox(layer, _LINE_WIDTH, 0) for layer in range(source.layer + 1, target.layer)]
    return [source, *between, target]


def _rows(places: Iterable[PlacedBox]) -> list[list[PlacedBox]]:
    rows: dict[int, list[PlacedBox]] = defaultdict(list)
    for place in places:
        rows[place.layer].append(place)
    return [rows[layer] for layer in sorted(rows)]


def _order(rows: list[list[PlacedBox]], routes: Sequence[Sequence[PlacedBox]]) -> None:
    """Sorts each row by the mean position of its neighbours, a few times, so that lines run straight."""
    above: dict[int, list[PlacedBox]] = defaultdict(list)
    below: dict[int, list[PlacedBox]] = defaultdict(list)
    for route in routes:
        for upper, lower in pairwise(route):
            above[id(lower)].append(upper)
            below[id(upper)].append(lower)
    for neighbours, order in ((above, rows), (below, rows[::-1]), (above, rows)):
        for row in order:
            _across(rows)
            row.sort(key=lambda place: _mean([item.middle for item in neighbours[id(place)]], place.middle))


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _across(rows: Sequence[Sequence[PlacedBox]]) -> float:
    """Centers each row and returns the width of the picture."""
    widths = [sum(place.width for place in row) + _SPACING * (len(row) - 1) for row in rows]
    widest = max(widths, default=0)
    for row, width in zip(rows, widths, strict=True):
        x = _MARGIN + (widest - width) / 2
        for place in row:
            place.x = round(x, 1)
            x += place.width + _SPACING
    return widest + 2 * _MARGIN


def _down(rows: Sequence[Sequence[PlacedBox]], routes: Sequence[Sequence[PlacedBox]], edges: Sequence[Edge]) -> float:
    """Places the rows, with room for the texts of the lines between them, and returns the height of the picture."""
    texts: dict[int, int] = defaultdict(int)
    for route, edge in zip(routes, edges, strict=True):
        texts[route[0].layer] += len(_labels(edge))
    y = float(_MARGIN)
    for layer, row in enumerate(rows):
        height = max(place.height for place in row)
        for place in row:
            place.y = y
            if not place.kind:
                place.height = height
        y += height + (2 * _LABEL_GAP + texts[layer] * _LINE if layer + 1 < len(rows) else _MARGIN)
    return y


def _labels(edge: Edge) -> list[str]:
    named = [_cut(text) for text in edge.lines]
    left = len(named) - _LABEL_LIMIT
    return named if left <= 0 else [*named[:_LABEL_LIMIT], f"and {left} more"]


def _lines(routes: Sequence[Sequence[PlacedBox]], edges: Sequence[Edge], width: float) -> list[PlacedLine]:
    starts = _ports(routes, 0, -1)
    ends = _ports(routes, -1, 0)
    used: dict[int, int] = defaultdict(int)
    placed = []
    for index, (route, edge) in enumerate(zip(routes, edges, strict=True)):
        points = [(starts[index], route[0].y + route[0].height)]
        for stop in route[1:-1]:
            points += [(stop.middle, stop.y), (stop.middle, stop.y + stop.height)]
        points.append((ends[index], route[-1].y))
        line = PlacedLine(_path(points), points[-1])
        top = max(place.y + place.height for place in _row_of(route[0], routes))
        for text in _labels(edge):
            y = top + _LABEL_GAP + (used[route[0].layer] + 0.5) * _LINE
            half = min(len(text) * _CHARACTER_WIDTH, width) / 2
            x = min(max(_x_at(points[0], points[1], y), half), width - half)
            line.texts.append((round(x, 1), round(y + 4, 1), text))
            used[route[0].layer] += 1
        placed.append(line)
    return placed


def _row_of(box: PlacedBox, routes: Sequence[Sequence[PlacedBox]]) -> list[PlacedBox]:
    return [place for route in routes for place in route if place.layer == box.layer]


def _ports(routes: Sequence[Sequence[PlacedBox]], end: int, other: int) -> dict[int, float]:
    """Returns where each line leaves or meets its box: side by side, in the order of the boxes at the other ends."""
    at: dict[int, list[int]] = defaultdict(list)
    for index, route in enumerate(routes):
        at[id(route[end])].append(index)
    ports = {}
    for indices in at.values():
        indices.sort(key=lambda index: routes[index][1 if end == 0 else -2].middle)
        for place, index in enumerate(indices):
            box = routes[index][end]
            ports[index] = round(box.x + box.width * (0.2 + 0.6 * (place + 0.5) / len(indices)), 1)
    return ports


def _path(points: Sequence[tuple[float, float]]) -> str:
    (x, y), *rest = points
    text = f"M{x:g} {y:g}"
    for to_x, to_y in rest:
        middle = (y + to_y) / 2
        text += f"C{x:g} {middle:g} {to_x:g} {middle:g} {to_x:g} {to_y:g}"
        x, y = to_x, to_y
    return text


def _x_at(start: tuple[float, float], end: tuple[float, float], y: float) -> float:
    """Returns where a curve of :func:`_path` is at a height, found by bisection."""
    (x0, y0), (x1, y1) = start, end
    low, high = 0.0, 1.0
    for _ in range(12):
        t = (low + high) / 2
        # The handles are at half the height, so both coordinates are simple in t.
        at = y0 * (1 - t) ** 3 + 1.5 * (y0 + y1) * t * (1 - t) + y1 * t**3
        low, high = (t, high) if at < y else (low, t)
    t = (low + high) / 2
    return x0 + (x1 - x0) * (3 * t * t - 2 * t * t * t)
