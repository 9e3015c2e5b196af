"""A row of the zoo: one architecture, as small as its structure allows, with the options that its users need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

# What a factory of `trtcross build` returns: a model, its arguments and, where there are any, its keyword arguments.
Made = tuple[nn.Module, tuple[Any, ...]] | tuple[nn.Module, tuple[Any, ...], dict[str, Any]]

BATCH = "{}.0=1:1:4"
# A result whose error is at most this many times eager PyTorch's in the same precision is as right as can be expected.
TIMES_EAGER = 4.0


@dataclass(frozen=True)
class Row:
    """One architecture.

    Attributes:
        name: the row's name in the table and for ``ONLY``.
        group: the family under which the table lists it.
        make: the factory.
        package: the distribution that the architecture comes from; None where it is written here.
        dynamic: the ranges of sizes, as ``--dynamic`` takes them.
        precision: the precision, as ``--precision`` takes it.
        options: further fields of ``BuildOptions``.
        settled: whether ``weights.settle`` fills the weights.
    """

    name: str
    group: str
    make: Callable[[], Made]
    package: str | None = None
    dynamic: tuple[str, ...] = ()
    precision: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    settled: bool = True

    def words(self) -> str:
        """Returns the row's options as on the command line, without the ``--dynamic`` before each range of sizes."""
        words = [*self.dynamic]
        words += [f"--precision {self.precision}"] if self.precision else []
        words += [f"--{name.replace('_', '-')} {value}" for name, value in self.options.items()]
        return " ".join(words)


def batch(*names: str) -> tuple[str, ...]:
    """Returns ranges for batches from 1, for each of these inputs."""
    return tuple(BATCH.format(name) for name in names)


def image(name: str, sizes: str, least_batch: int = 1) -> tuple[str, ...]:
    """Returns ranges for batches from ``least_batch``, and for any height and width within ``sizes``."""
    return (f"{name}.0={least_batch}:1:4", f"{name}.2={sizes}", f"{name}.3={sizes}")


def unique(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows as a list, and checks that their names differ.

    Raises:
        ValueError: two rows have the same name.
    """
    names = [row.name for row in rows]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two rows have the same name: {', '.join(sorted(twice))}")
    return list(rows)
