"""Computes the shapes of views. The elements are in C order and stay where they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from toolchain.graph.torch_free import VIEWS

Shape = tuple[int, ...]
NewShape = Callable[..., Shape]


def _viewed(shape: Shape, sizes: Sequence[int]) -> Shape:
    known = prod(size for size in sizes if size != -1)
    rest = prod(shape) // known if known else 0
    found = tuple(rest if size == -1 else size for size in sizes)
    if prod(found) != prod(shape) or list(sizes).count(-1) > 1:
        raise ValueError(f"a tensor of the sizes {shape} has none of {tuple(sizes)}")
    return found


def _unsqueezed(shape: Shape, dim: int) -> Shape:
    dim += (len(shape) + 1) * (dim < 0)
    return (*shape[:dim], 1, *shape[dim:])


def _squeezed(shape: Shape, dims: int | Sequence[int] | None = None) -> Shape:
    wanted = range(len(shape)) if dims is None else [dims] if isinstance(dims, int) else dims
    gone = {dim % len(shape) for dim in wanted} if shape else set()
    return tuple(size for dim, size in enumerate(shape) if size != 1 or dim not in gone)


def _flattened(shape: Shape, start: int = 0, end: int = -1) -> Shape:
    if not shape:
        return (1,)
    start, end = start % len(shape), end % len(shape)
    return (*shape[:start], prod(shape[start : end + 1]), *shape[end + 1 :])


def _same(shape: Shape, *_: object) -> Shape:
    return shape


_BY_NAME: dict[str, NewShape] = {
    "view": _viewed, "reshape": _viewed, "_unsafe_view": _viewed, "_reshape_copy": _viewed, "unsqueeze": _unsqueezed,
    "squeeze": _squeezed, "flatten": _flattened, "alias": _same, "detach": _same, "clone": _same,
}  # fmt: skip
# The kind of each, as ``engines.json`` names it.
KINDS: dict[NewShape, str] = {
    _viewed: "reshape", _unsqueezed: "unsqueeze", _squeezed: "squeeze", _flattened: "flatten", _same: "same",
}  # fmt: skip
NEW_SHAPES: dict[str, NewShape] = {target: _BY_NAME[target.split(".")[3]] for target in VIEWS}
