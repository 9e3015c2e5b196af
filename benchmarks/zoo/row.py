"""A row of the zoo: one architecture, as small as its structure allows, with the options that its users need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

# As a factory of `trtcross build` returns it: a model in eval mode, its arguments, perhaps keyword arguments.
Made = tuple[nn.Module, tuple[Any, ...]] | tuple[nn.Module, tuple[Any, ...], dict[str, Any]]

BATCH = "{}.0=1:1:4"


@dataclass(frozen=True)
class Row:
    """One architecture.

    Attributes:
        name: in the table and for ``ONLY``.
        group: the family that it is counted in.
        make: the factory. Its weights do not matter: ``weights.settle`` fills them.
        package: the distribution that the architecture comes from; None where it is written here.
        dynamic: as ``--dynamic`` takes them.
        precision: as ``--precision`` takes it.
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
        """Its options as on the command line, but for the ``--dynamic`` before each range of sizes."""
        words = [*self.dynamic]
        words += [f"--precision {self.precision}"] if self.precision else []
        words += [f"--{name.replace('_', '-')} {value}" for name, value in self.options.items()]
        return " ".join(words)


def batch(*names: str) -> tuple[str, ...]:
    """Batches from 1, of each of these inputs."""
    return tuple(BATCH.format(name) for name in names)


def image(name: str, sizes: str, least_batch: int = 1) -> tuple[str, ...]:
    """Batches from 1, and any height and width within a range."""
    return (f"{name}.0={least_batch}:1:4", f"{name}.2={sizes}", f"{name}.3={sizes}")


def unique(rows: Sequence[Row]) -> list[Row]:
    """The rows.

    Raises:
        ValueError: two have one name.
    """
    names = [row.name for row in rows]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two rows of one name: {', '.join(sorted(twice))}")
    return list(rows)
