"""A trial of an operator: a function of tensors and inputs to try it with, which hypothesis draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

Args = tuple[Tensor, ...]

FLOATS = (torch.float32, torch.float16)
INTEGERS = (torch.int64, torch.int32)
ROWS, OTHER_ROWS = 4, (2, 7)  # of the example, and what else a size that varies from 2 to 8 may be


@dataclass(frozen=True)
class Trial:
    """A function that is built once, and the inputs to try it with.

    Attributes:
        function: the function of the inputs; it is exported with ``calls[0]``.
        calls: the inputs to compare with eager PyTorch, the example first.
        dynamic: for each input, the dimension that varies, or None.
        text: what distinguishes the trial, for a report.
    """

    function: Callable[..., Any]
    calls: tuple[Args, ...]
    dynamic: tuple[int | None, ...] = ()
    text: str = ""


Make = Callable[[int, str], Args]


class Draw:
    """Draws the parts of a trial."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self.said: list[str] = []
        self._tensors = 0

    def pick(self, *options: Any) -> Any:
        chosen = self._draw(st.sampled_from(options))
        self.said.append(str(chosen).removeprefix("torch."))
        return chosen

    def integer(self, low: int, high: int) -> int:
        return int(self.pick(*range(low, high + 1)))

    def maybe(self) -> bool:
        return bool(self._draw(st.booleans()))

    def sizes(self, least: int = 1, most: int = 3) -> list[int]:
        """Draws the sizes after the first dimension, which is the rows'."""
        sizes = self._draw(st.lists(st.sampled_from((1, 2, 3, 5)), min_size=least, max_size=most))
        self.said.append("x".join(map(str, sizes)))
        return list(sizes)

    def tensor(self, sizes: Sequence[int], dtype: torch.dtype, kind: str = "usual") -> Tensor:
        self._tensors += 1  # so that tensors differ even where hypothesis draws the least values
        generator = torch.Generator().manual_seed(self._draw(st.integers(0, 2**20)) + 2**24 * self._tensors)
        return values(sizes, dtype, kind, generator)

    def trial(
        self,
        function: Callable[..., Any],
        make: Make,
        kinds: Sequence[str] = ("usual",),
        rows_of: Sequence[int | None] = (0,),
    ) -> Trial:
        """Draws a trial with static sizes, or with rows that vary.

        Args:
            function: the function to try.
            make: makes inputs with a number of rows, of a kind of ``values``.
            kinds: the kinds of values that are tried.
            rows_of: for each input, the dimension that has the rows, or None.
        """
        calls = [make(ROWS, kind) for kind in kinds]
        dynamic: tuple[int | None, ...] = ()
        if any(dim is not None for dim in rows_of) and self.maybe():
            dynamic = tuple(rows_of)
            calls += [make(rows, kinds[0]) for rows in OTHER_ROWS]
            self.said.append("dynamic")
        return Trial(function, tuple(calls), dynamic, " ".join(self.said))


def values(sizes: Sequence[int], dtype: torch.dtype, kind: str, generator: torch.Generator) -> Tensor:
    """Returns random values: usual, large, tiny, special (infinite, NaN, both zeros), or halves of small integers."""
    sizes = list(sizes)
    if dtype is torch.bool:
        return torch.rand(sizes, generator=generator) > 0.5
    if dtype is torch.uint8:
        return torch.randint(0, 256, sizes, generator=generator, dtype=dtype)
    if not dtype.is_floating_point:
        limit = {"large": 2**20, "tiny": 2}.get(kind, 9)
        return torch.randint(-limit, limit + 1, sizes, generator=generator, dtype=dtype)
    usual = torch.randn(sizes, generator=generator)
    if kind == "large":
        usual = usual * (200 if dtype is torch.float16 else 1e4)
    elif kind == "tiny":
        usual = usual * 1e-3
    elif kind == "positive":
        usual = usual.abs() + 0.1
    elif kind == "unit":
        usual = torch.rand(sizes, generator=generator) * 1.8 - 0.9
    elif kind == "halves":
        usual = torch.randint(-9, 10, sizes, generator=generator) / 2
    elif kind == "special":
        specials = torch.tensor([float("inf"), float("-inf"), float("nan"), 0.0, -0.0, 1.0])
        where = torch.randint(0, 12, sizes, generator=generator)
        usual = torch.where(where < 6, specials[where % 6], usual)
    return usual.to(dtype)
