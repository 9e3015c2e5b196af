"""Gives torch the lowest requested sizes before it traces a model.

Torch traces with sizes from 0 on, and applies the ranges afterwards. For a height of at least 64 it would not know that
``height // 8`` has a last row, and ``y[:, -1:]`` would have ``Max(0, ...)`` rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

from toolchain.guards.grammar import Size

_KEYS = re.compile(r"\['?(\w+)'?\]|\.(\w+)")


def input_of_source(source: str) -> str:
    """Returns an input's name (``state.key``), given torch's name for it (``L['state']['key']``)."""
    return ".".join(first or second for first, second in _KEYS.findall(source))


def is_input(name: str, source: str) -> bool:
    """Returns whether an input's name and torch's name for a source mean the same input."""
    found = input_of_source(source)
    return name in (found, found.replace(".", "_"))


@contextmanager
def lower_bounds_set(lowest: Mapping[Size, int]) -> Iterator[None]:
    """Sets the lower bounds of the model's input symbols when torch creates them.

    Upper bounds are not set. They would narrow other sizes that depend on them, and a contradicting range would then be
    reported as the program's own.

    Args:
        lowest: the lowest requested value of each varying size.
    """
    original = ShapeEnv._produce_dyn_sizes_from_int_tuple

    def produce(env: ShapeEnv, sizes: Sequence[Any], source: Any, *others: Any, **options: Any) -> list[Any]:
        symbols = original(env, sizes, source, *others, **options)
        for place, low in lowest.items():
            if is_input(place.input, source.name) and place.dim < len(symbols) and symbols[place.dim].is_Symbol:
                env.var_to_range[symbols[place.dim]] &= ValueRanges(low, int_oo)
        return symbols

    with patch.object(ShapeEnv, "_produce_dyn_sizes_from_int_tuple", produce):
        yield
