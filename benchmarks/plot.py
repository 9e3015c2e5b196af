"""Draws a line plot with logarithmic axes as SVG text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape

FONTS = "Segoe UI, Roboto, Helvetica Neue, Arial, DejaVu Sans, sans-serif"  # `sans-serif` may be one with serifs

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 900, 520
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 290, 40, 60
_COLOURS = ("#c0392b", "#1f6fb2", "#7f8c8d", "#e67e22", "#16a085", "#8e44ad", "#34495e", "#b7950b")


def log_plot(series: Mapping[str, Points], *, title: str, x_title: str, y_title: str) -> str:
    """Draws each series as a line with a mark at each point.

    The x axis is labelled where there are points, and the y axis at powers of ten.
    """
    drawn = {name: points for name, points in series.items() if points}
    xs = sorted({x for points in drawn.values() for x, _ in points})
    ys = [y for points in drawn.values() for _, y in points]
    low, high = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))

    def x_at(x: float) -> float:
        span = math.log(xs[-1] / xs[0]) or 1
        return _LEFT + math.log(x / xs[0]) / span * (_WIDTH - _LEFT - _RIGHT)

    def y_at(y: float) -> float:
        return _HEIGHT - _BOTTOM - (math.log10(y) - low) / ((high - low) or 1) * (_HEIGHT - _TOP - _BOTTOM)

    def lines() -> Iterator[str]:
        yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="{FONTS}">'
        yield f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>'
        yield _text(_LEFT, 24, title, size=16)
        for x in xs:
            yield _line(x_at(x), _TOP, x_at(x), _HEIGHT - _BOTTOM)
            yield _text(x_at(x), _HEIGHT - _BOTTOM + 18, f"{x:g}", anchor="middle")
        for power in range(low, high + 1):
            yield _line(_LEFT, y_at(10**power), _WIDTH - _RIGHT, y_at(10**power))
            yield _text(_LEFT - 8, y_at(10**power) + 4, f"{10.0**power:g}", anchor="end")
        yield _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 16, x_title, anchor="middle")
        yield _text(_LEFT - 8, _TOP - 8, y_title, anchor="end")
        for index, (name, points) in enumerate(drawn.items()):
            colour = _COLOURS[index % len(_COLOURS)]
            corners = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in points)
            yield f'<polyline points="{corners}" fill="none" stroke="{colour}" stroke-width="2"/>'
            for x, y in points:
                yield f'<circle cx="{x_at(x):.1f}" cy="{y_at(y):.1f}" r="3.5" fill="{colour}"/>'
            place = _TOP + 10 + 22 * index
            yield f'<rect x="{_WIDTH - _RIGHT + 20}" y="{place - 9}" width="14" height="4" fill="{colour}"/>'
            yield _text(_WIDTH - _RIGHT + 42, place, name)
        yield "</svg>"

    return "\n".join(lines()) + "\n"


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 13) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'
