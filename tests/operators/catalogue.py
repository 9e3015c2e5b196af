"""Collects all operators, by kind."""

from __future__ import annotations

from collections.abc import Callable

from tests.operators import elementwise, indexing, neural, reductions, shapes
from tests.operators.trial import Draw, Trial

KINDS: dict[str, dict[str, Callable[[Draw], Trial]]] = {
    "Elements": elementwise.OPERATORS,
    "Reductions, scans and sorts": reductions.OPERATORS,
    "Shapes and constants": shapes.OPERATORS,
    "Indexing": indexing.OPERATORS,
    "Layers": neural.OPERATORS,
}
ALL: dict[str, Callable[[Draw], Trial]] = {name: make for kind in KINDS.values() for name, make in kind.items()}
