"""The shortest way of a call: like an earlier one, of arrays on the GPU that the one engine reads and writes in place.

Everything that follows from sizes alone was found by the earlier call. What is left is to look at each array, to make
the results, and to enqueue the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from windows_side.session.arrays import Kind
from windows_side.session.cuda import Stream
from windows_side.session.engine import EngineContext, Shape

# Addresses of bindings, of which the results' are still to come; it becomes the engine's own list.
Addresses = list[int]


@dataclass(frozen=True, slots=True)
class DirectLeaf:
    """A leaf of the call.

    Attributes:
        dtype: as the kind of array has it; None where the leaf is no array.
        value: that the leaf must have where it is no array.
        bindings: of the engine that read it.
    """

    dtype: Any
    value: Any
    bindings: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DirectResult:
    """An output of the engine that the caller gets.

    Attributes:
        make: a new array for it.
        dtype: as the kind has it.
        binding: of the engine that writes it.
    """

    make: Callable[[], Any]
    dtype: Any
    binding: int


class DirectCall:
    """A call whose arrays are of one kind and have the sizes of an earlier call.

    Attributes:
        kind: of arrays.
    """

    def __init__(
        self,
        kind: Kind,
        gpu: int,
        context: EngineContext,
        shapes: list[Shape],
        leaves: Sequence[DirectLeaf],
        results: Sequence[DirectResult],
        outputs: Sequence[Callable[[Sequence[Any], list[Any]], Any]] | None,
    ) -> None:
        """
        Args:
            gpu: the index of the GPU on which arrays must be.
            context: the engine's, just after the earlier call: what no array stands for keeps its address.
            shapes: of the engine's inputs.
            outputs: give each output of the model from the leaves and the results; None where the results are those.
        """
        self.kind = kind
        self._gpu = gpu
        self._context = context
        self._shapes = shapes
        self._leaves = leaves
        self._results = results
        self._outputs = outputs
        self._fixed = list(context.addresses)

    def addresses(self, leaves: Sequence[Any]) -> Addresses | None:
        """The engine's addresses for a call, or None where it must go the long way: an array is of another kind."""
        found = self._fixed.copy()
        address, gpu = self.kind.address, self._gpu
        try:
            for leaf, known in zip(leaves, self._leaves, strict=True):
                if known.dtype is None:
                    if leaf != known.value or type(leaf) is not type(known.value):
                        return None
                    continue
                pointer = address(leaf, known.dtype, gpu)
                if not pointer or pointer & 255:
                    return None
                for binding in known.bindings:
                    found[binding] = pointer
        except RuntimeError:  # torch's, of a tensor that has no elements of its own
            return None
        return found

    def results(self, addresses: Addresses) -> list[Any] | None:
        """New arrays for the engine's outputs, their addresses noted; None where one is not aligned."""
        made = []
        address, gpu = self.kind.address, self._gpu
        for result in self._results:
            array = result.make()
            pointer = address(array, result.dtype, gpu)
            if not pointer or pointer & 255:
                return None
            addresses[result.binding] = pointer
            made.append(array)
        return made

    def enqueue(self, stream: Stream, addresses: Addresses) -> None:
        self._context.use_shapes(stream, self._shapes)
        self._context.enqueue(stream, addresses)

    def outputs(self, leaves: Sequence[Any], results: list[Any]) -> list[Any]:
        """The model's outputs."""
        return results if self._outputs is None else [output(leaves, results) for output in self._outputs]


def key_of(leaves: Sequence[Any]) -> Hashable:
    """What calls have in common that may go the same way: the sizes of arrays, and of what class they are."""
    return tuple([(type(leaf), getattr(leaf, "shape", None)) for leaf in leaves])
