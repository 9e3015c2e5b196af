"""The lowest sizes asked for, told to torch as it starts to trace a model.

Torch lets a size be anything from 0 on until the model is traced, and compares with the ranges then. Of a height from
64 on it would not know that ``height // 8`` has a last row, and ``y[:, -1:]`` would have ``Max(0, ...)`` rows.
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
    """An input's name, of what torch calls it (``L['state']['key']``)."""
    return ".".join(first or second for first, second in _KEYS.findall(source))


def is_input(name: str, source: str) -> bool:
    """Whether a name of ours is that of torch's source."""
    found = input_of_source(source)
    return name in (found, found.replace(".", "_"))


@contextmanager
def lowest_sizes_told(lowest: Mapping[Size, int]) -> Iterator[None]:
    """Narrows the symbols of the model's inputs as they are made.

    The greatest sizes are left aside: they would narrow other sizes that depend on them, and a range that does not
    agree would be reported as the program's own.
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
