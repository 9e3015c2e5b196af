"""What a manifest says of a call's inputs, compared with shapes: the same rules and words for every runtime."""

from __future__ import annotations

from collections.abc import Sequence

from toolchain.errors import UsageError
from toolchain.guards.describe import complaint
from toolchain.guards.evaluate import Guards
from toolchain.guards.grammar import Size
from toolchain.manifest.models import DynamicSize, ValueSpec, allows, size_ranges

Shape = Sequence[int]


class SizeRules:
    """What the sizes of several inputs must be together: equal where they have one symbol, and as the guards say."""

    def __init__(self, specs: Sequence[ValueSpec], guards: Sequence[str] = ()) -> None:
        self._specs = specs
        self._equal_sizes = _equal_sizes(specs)
        self._guards = Guards.parse(guards, size_ranges(specs))
        self._guarded = [_place(size, specs) for size in self._guards.sizes]
        self._last_sizes: Shape | None = None

    def __call__(self, shapes: Sequence[Shape]) -> None:
        """Checks the shapes of all inputs; that of an input that is no tensor is not looked at.

        Raises:
            UsageError: sizes that must be equal are not, or violate a guard.
        """
        for places in self._equal_sizes:
            self._require_equal(places, shapes)
        if self._guarded:
            self._require_guards([shapes[index][dim] for index, dim in self._guarded])

    def __bool__(self) -> bool:
        """Whether there is anything to check."""
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
    """Checks a tensor's sizes against its spec's sizes and ranges.

    Raises:
        UsageError: a tensor's number of dimensions or one of its sizes is not what its spec allows.
    """
    wanted_shape = spec.shape or []
    if len(shape) != len(wanted_shape):
        raise wrong_input(spec, f"has {len(shape)} dimensions, not {len(wanted_shape)}")
    for dim, (size, wanted) in enumerate(zip(shape, wanted_shape, strict=True)):
        if not allows(wanted, size):
            only = f"outside {wanted.min} to {wanted.max}" if isinstance(wanted, DynamicSize) else f"not {wanted}"
            raise wrong_input(spec, f"has size {size} in dimension {dim}, {only}")


def check_fixed_value(spec: ValueSpec, value: object) -> None:
    """Checks an input that was no tensor at export.

    Raises:
        UsageError: an input that is no tensor has another value than at export.
    """
    if value != spec.value or type(value) is not type(spec.value):
        raise wrong_input(spec, f"is {value!r}; it was fixed at {spec.value!r} when the model was exported")


def wrong_input(spec: ValueSpec, problem: str) -> UsageError:
    """The error of an input that the artifact does not take."""
    return UsageError(
        f"the input {spec.name!r} {problem}",
        where=f"input {spec.name}",
        remedy="`trtcross inspect` lists dtypes, devices and ranges",
    )


def wrong_call(names: Sequence[str], count: int, keywords: Sequence[str]) -> UsageError:
    """The error of a call that has another structure than the one that was exported.

    Args:
        names: of the arguments that the model takes.
        count: of the positional arguments in the call.
        keywords: in the call.
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
    """A call in which arguments that were positional at export are taken from the keywords.

    Args:
        names: of all that were positional at export.
    """
    rest = dict(kwargs)
    return (*args, *(rest.pop(name) for name in names[len(args) :] if name in rest)), rest


def _place(size: Size, specs: Sequence[ValueSpec]) -> tuple[int, int]:
    """An input's index and the dimension."""
    return next(index for index, spec in enumerate(specs) if spec.name == size.input), size.dim


def _equal_sizes(specs: Sequence[ValueSpec]) -> list[list[tuple[int, int]]]:
    """For each symbol that several dimensions have, their inputs and dimensions."""
    places: dict[str, list[tuple[int, int]]] = {}
    for index, spec in enumerate(specs):
        for dim, size in enumerate(spec.shape or []):
            if isinstance(size, DynamicSize):
                places.setdefault(size.symbol, []).append((index, dim))
    return [found for found in places.values() if len(found) > 1]
