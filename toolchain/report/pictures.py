"""Computes the geometry of histograms.

Horizontal positions are in percent, so that text keeps its size in a narrow window; vertical ones are in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from toolchain.report.page import Histogram, Mark

HEIGHT = 120  # the height of the columns, in pixels; ticks and the limit's name have rows of their own


@dataclass(frozen=True)
class Column:
    """A histogram's column: ``x`` and ``width`` in percent, ``y`` and ``height`` in pixels."""

    x: float
    width: float
    y: float
    height: float
    mark: Mark
    title: str


@dataclass(frozen=True)
class Label:
    """A text beside a picture: ``x`` in percent, and the SVG ``text-anchor`` of the text there."""

    x: float
    text: str
    anchor: str


@dataclass(frozen=True)
class Picture:
    """A placed histogram; ``height`` is in pixels."""

    height: int
    columns: list[Column]
    ticks: list[Label]
    limit: Label | None


def columns(histogram: Histogram) -> Picture:
    """Places a histogram's columns, ticks and limit; a bin that is not empty is at least three pixels high."""
    return Picture(HEIGHT, list(_columns(histogram)), list(_ticks(histogram)), _limit(histogram))


def _columns(histogram: Histogram) -> Iterator[Column]:
    width = 100 / max(len(histogram.bins), 1)
    highest = math.log1p(max((item.count for item in histogram.bins), default=0)) or 1.0
    for index, item in enumerate(histogram.bins):
        if item.count:
            height = max(3.0, round(HEIGHT * math.log1p(item.count) / highest, 1))
            title = f"{item.label}: {item.count:,}"
            x = round(index * width + 0.1 * width, 3)
            yield Column(x, round(0.8 * width, 3), HEIGHT - height, height, item.mark, title)


def _ticks(histogram: Histogram) -> Iterator[Label]:
    for index, item in enumerate(histogram.bins):
        if item.tick:
            yield _label(100 * index / len(histogram.bins), item.tick)


def _limit(histogram: Histogram) -> Label | None:
    if histogram.limit is None or not histogram.bins:
        return None
    position, text = histogram.limit
    return _label(100 * min(max(position / len(histogram.bins), 0.0), 1.0), text)


def _label(x: float, text: str) -> Label:
    """Places a text so that it stays inside the picture."""
    return Label(round(x, 3), text, "start" if x < 15 else "end" if x > 85 else "middle")
