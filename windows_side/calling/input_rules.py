"""Checks a call's inputs by the manifest: the same rules and error messages for every runtime."""

from __future__ import annotations

from collections.abc import Sequence

from toolchain.errors import UsageError
from toolchain.guards.describe import complaint
from toolchain.guards.evaluate import Guards
from toolchain.guards.grammar import Size
from toolchain.manifest.models import DynamicSize, ValueSpec, allows, size_ranges

Shape = Sequence[int]


class SizeRules:
    """The rules that relate sizes of several inputs: sizes with one symbol are equal, and every guard is true."""

    def __init__(self, specs: Sequence[ValueSpec], guards: Sequence[str] = ()) -> None:
        self._specs = specs
        self._equal_sizes = _equal_sizes(specs)
        self._guards = Guards.parse(guards, size_ranges(specs))
        self._guarded = [_place(size, specs) for size in self._guards.sizes]
        self._last_sizes: Shape | None = None

    def __call__(self, shapes: Sequence[Shape]) -> None:
        """Checks the shapes of all inputs, in the manifest's order. The shape of an input without one is ignored.

        Raises:
            UsageError: sizes that must be equal differ, or sizes violate a guard.
        """
        for places in self._equal_sizes:
            self._require_equal(places, shapes)
        if self._guarded:
            self._require_guards([shapes[index][dim] for index, dim in self._guarded])

    def __bool__(self) -> bool:
        """Whether there is a rule to check."""
        return bool(self._equal_sizes or self._guarded)

    def _require_guards(self, sizes: Shape) -> None:
        if sizes == self._last_sizes:
            return
        if (rule := self._guards.violated(sizes)) is not None:
            raise UsageError(
                complaint(rule, dict(zip(self._guards.sizes, sizes, strict=True))),
                where="inputs",
                remedy="`trtcross inspect` lists what sizes must be",
            )
        self._last_sizes = sizes

    def _require_equal(self, places: list[tuple[int, int]], shapes: Sequence[Shape]) -> None:
        sizes = {shapes[index][dim] for index, dim in places}
        if len(sizes) > 1:
            words = [
                f"{self._specs[index].name!r} has size {shapes[index][dim]} in dimension {dim}" for index, dim in places
            ]
            raise UsageError(
                f"sizes that must be equal are not: {', '.join(words)}",
                where="inputs",
                remedy="`trtcross inspect` shows equal sizes by the same symbol",
            )


def check_shape(spec: ValueSpec, shape: Shape) -> None:
    """Checks a tensor's shape by the sizes and ranges of its spec.

    Raises:
        UsageError: the number of dimensions or one of the sizes is not what the spec allows.
    """
    wanted_shape = spec.shape or []
    if len(shape) != len(wanted_shape):
        raise wrong_input(spec, f"has {len(shape)} dimensions, not {len(wanted_shape)}")
    for dim, (size, wanted) in enumerate(zip(shape, wanted_shape, strict=True)):
        if not allows(wanted, size):
            only = f"outside {wanted.min} to {wanted.max}" if isinstance(wanted, DynamicSize) else f"not {wanted}"
            raise wrong_input(spec, f"has size {size} in dimension {dim}, {only}")


def check_fixed_value(spec: ValueSpec, value: object) -> None:
    """Checks an input that was not a tensor at export, so that its value is part of the model.

    Raises:
        UsageError: the value or its type is not the one at export.
    """
    if value != spec.value or type(value) is not type(spec.value):
        raise wrong_input(spec, f"is {value!r}; it was fixed at {spec.value!r} when the model was exported")


def wrong_input(spec: ValueSpec, problem: str) -> UsageError:
    """Returns the error for an input that the artifact does not accept."""
    return UsageError(
        f"the input {spec.name!r} {problem}",
        where=f"input {spec.name}",
        remedy="`trtcross inspect` lists dtypes, devices and ranges",
    )


def wrong_call(names: Sequence[str], count: int, keywords: Sequence[str]) -> UsageError:
    """Returns the error for a call whose structure is not the exported one.

    Args:
        names: the names of the arguments that the model takes.
        count: the number of positional arguments in the call.
        keywords: the names of the keyword arguments in the call.
    """
    given = f"{count} positional" + (f" and {', '.join(keywords)}" if keywords else "")
    return UsageError(
        f"the model was called with {given} arguments, not in the structure that it was exported with",
        where=f"arguments {', '.join(names)}",
        remedy="call it as the original model; `trtcross inspect` lists its inputs",
    )


def with_positional(
    names: Sequence[str], args: tuple[object, ...], kwargs: dict[str, object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    """Moves arguments that were positional at export, and that the caller named, to their positions.

    Args:
        names: the names of all arguments that were positional at export.

    Returns:
        The positional arguments and the keywords that remain.
    """
    rest = dict(kwargs)
    return (*args, *(rest.pop(name) for name in names[len(args) :] if name in rest)), rest


def _place(size: Size, specs: Sequence[ValueSpec]) -> tuple[int, int]:
    """Returns the input's index and the dimension of a size."""
    return next(index for index, spec in enumerate(specs) if spec.name == size.input), size.dim


def _equal_sizes(specs: Sequence[ValueSpec]) -> list[list[tuple[int, int]]]:
    """Returns, for each symbol that several dimensions have, their inputs' indices and dimensions."""
    places: dict[str, list[tuple[int, int]]] = {}
    for index, spec in enumerate(specs):
        for dim, size in enumerate(spec.shape or []):
            if isinstance(size, DynamicSize):
                places.setdefault(size.symbol, []).append((index, dim))
    return [found for found in places.values() if len(found) > 1]
