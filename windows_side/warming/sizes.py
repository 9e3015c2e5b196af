"""Finds the calls for which kernels are compiled, by the sizes that the user named, or by the profiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolchain.errors import UsageError
from toolchain.manifest.models import DynamicSize, Manifest, ValueSpec, allows
from windows_side.calling.input_rules import SizeRules

# Sizes of dimensions that may vary, by the names that `--dynamic` and guards use: "x.0".
Sizes = Mapping[str, int]


@dataclass(frozen=True)
class SizedCall:
    """A call, described by its sizes.

    Attributes:
        sizes: the sizes of the dimensions that may vary, by name.
        shapes: the shape of every input; None for one that is not a tensor.
    """

    sizes: dict[str, int]
    shapes: tuple[tuple[int, ...] | None, ...]


def calls_for(manifest: Manifest, wanted: Sequence[Sizes] | None) -> list[SizedCall]:
    """Returns the calls to make, without duplicates.

    Args:
        wanted: the sizes of each call; a size that is left out is that of the first profile. None means one call for
            each profile, at its ``opt``.

    Raises:
        UsageError: there is no such dimension, or the model does not take such a size.
    """
    profiles = _profile_sizes(manifest)
    chosen = profiles if wanted is None else [profiles[0] | _by_symbol(manifest, sizes) for sizes in wanted]
    calls = [_call(manifest, by_symbol) for by_symbol in chosen]
    return [call for index, call in enumerate(calls) if call not in calls[:index]]


def dynamic_dimensions(manifest: Manifest) -> dict[str, DynamicSize]:
    """Returns the dimensions that may vary, by name."""
    return {
        f"{spec.name}.{dim}": size
        for spec in manifest.inputs
        for dim, size in enumerate(spec.shape or [])
        if isinstance(size, DynamicSize)
    }


def parse_sizes(text: str) -> dict[str, int]:
    """Parses sizes such as ``x.0=8,y.1=64``.

    Raises:
        UsageError: the text has a different form, or names a dimension twice.
    """
    found = {}
    for part in text.split(","):
        name, _, size = part.strip().partition("=")
        if not name or not (size.isascii() and size.isdecimal()):
            raise UsageError(
                f"{part!r} is no size", where="--size", remedy="write NAME.DIM=N, as in --size x.0=8,y.1=64"
            )
        if name in found:
            raise UsageError(f"{name} is there twice", where="--size", remedy="give another --size for another call")
        found[name] = int(size)
    return found


def _by_symbol(manifest: Manifest, sizes: Sizes) -> dict[str, int]:
    known, found = dynamic_dimensions(manifest), dict[str, int]()
    for name, size in sizes.items():
        if name not in known:
            there = ", ".join(known) or "none: all its sizes are fixed"
            raise UsageError(f"no dimension {name!r} may vary", where="--size", remedy=f"the model has {there}")
        dynamic = known[name]
        if not allows(dynamic, size):
            most = "any size" if dynamic.max is None else dynamic.max
            raise UsageError(f"{name} cannot be {size}", where="--size", remedy=f"it is {dynamic.min} to {most}")
        if found.setdefault(dynamic.symbol, size) != size:
            raise UsageError(
                f"{name} cannot be {size}: it is the same size as another, which is {found[dynamic.symbol]}",
                where="--size",
                remedy="`trtcross inspect` shows equal sizes by the same symbol",
            )
    return found


def _call(manifest: Manifest, by_symbol: Mapping[str, int]) -> SizedCall:
    shapes = tuple(_shape(spec, by_symbol) for spec in manifest.inputs)
    SizeRules(manifest.inputs, manifest.guards)([shape or () for shape in shapes])
    return SizedCall(
        {name: by_symbol[dynamic.symbol] for name, dynamic in dynamic_dimensions(manifest).items()}, shapes
    )


def _shape(spec: ValueSpec, by_symbol: Mapping[str, int]) -> tuple[int, ...] | None:
    if spec.shape is None:
        return None
    return tuple(by_symbol[size.symbol] if isinstance(size, DynamicSize) else size for size in spec.shape)


def _profile_sizes(manifest: Manifest) -> list[dict[str, int]]:
    """Returns the ``opt`` sizes of each profile by symbol; where none are known, the least sizes of the model."""
    dimensions = dynamic_dimensions(manifest)
    lowest = {dynamic.symbol: dynamic.min for dynamic in dimensions.values()}
    known = _opt_of_build(manifest) or _opt_of_engines(manifest)
    count = max(map(len, known.values()), default=1)
    return [
        lowest | {dimensions[name].symbol: sizes[min(index, len(sizes) - 1)] for name, sizes in known.items() if sizes}
        for index in range(count)
    ]


def _opt_of_build(manifest: Manifest) -> dict[str, list[int]]:
    """Returns the ``opt`` sizes that ``build --dynamic`` gave for each dimension, profile by profile."""
    dimensions, found = dynamic_dimensions(manifest), dict[str, list[int]]()
    dynamic: Any = manifest.settings.get("dynamic")
    for item in dynamic if isinstance(dynamic, list) else []:
        try:
            name, sizes = f"{item['input']}.{item['dim']}", [int(each["opt"]) for each in item["ranges"]]
        except (LookupError, TypeError, ValueError):
            continue  # written by another release of trtcross
        if name in dimensions and all(allows(dimensions[name], size) for size in sizes):
            found[name] = sizes
    return found


def _opt_of_engines(manifest: Manifest) -> dict[str, list[int]]:
    """Returns the ``opt`` sizes in the profiles of engines that take the model's own inputs."""
    dimensions, found = dynamic_dimensions(manifest), dict[str, list[int]]()
    for engine in manifest.engines:
        for spec in manifest.inputs:
            ranges = [profile[spec.name].opt for profile in engine.profiles if spec.name in profile]
            for dim in range(len(spec.shape or [])):
                name = f"{spec.name}.{dim}"
                sizes = [opt[dim] for opt in ranges if dim < len(opt)]
                if name in dimensions and sizes and all(allows(dimensions[name], size) for size in sizes):
                    found.setdefault(name, sizes)
    return found
