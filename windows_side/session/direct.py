"""The shortest way of a call: like an earlier one, of arrays on the GPU that the one engine reads and writes in place.

Everything that follows from sizes alone was found by the earlier call. What is left is to look at each array, to make
the results, and to enqueue the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from toolchain.graph.program import Output
from windows_side.engines.cuda import Stream
from windows_side.engines.engine import EngineContext, Shape
from windows_side.session.arrays import DeviceArrays, Given, Kind
from windows_side.session.device_array import DeviceArray
from windows_side.session.dtypes import size_in_bytes
from windows_side.session.plan import Workspace

# Addresses of bindings, of which the results' are still to come; it becomes the engine's own list.
Addresses = list[int]


@dataclass(frozen=True, slots=True)
class DirectLeaf:
    """A leaf of the call.

    Attributes:
        dtype: as the kind of array has it; None where the leaf is no array.
        value: that the leaf must have where it is no array.
        bindings: of the engine that read it.
        size: in bytes.
    """

    dtype: Any
    value: Any
    bindings: tuple[int, ...] = ()
    size: int = 0


@dataclass(frozen=True, slots=True)
class DirectResult:
    """An output of the engine that the caller gets.

    Attributes:
        make: a new array for it.
        binding: of the engine that writes it.
        size: in bytes.
    """

    make: Callable[[], Any]
    binding: int
    size: int


class DirectCall:
    """A call whose arrays are of one kind and have the sizes of an earlier call.

    Attributes:
        kind: of arrays.
        sizes: of all leaves.
        reads: the engine's bindings that are the caller's arrays, and their bytes.
        writes: the same of results.
    """

    def __init__(
        self,
        kind: Kind,
        sizes: tuple[Shape, ...],
        gpu: int,
        context: EngineContext,
        fixed: Addresses,
        shapes: list[Shape],
        leaves: Sequence[DirectLeaf],
        results: Sequence[DirectResult],
        outputs: Sequence[Callable[[Sequence[Any], list[Any]], Any]] | None,
    ) -> None:
        """Prepares a call for one set of input shapes.

        Args:
            gpu: the index of the GPU on which arrays must be.
            fixed: the engine's addresses, with those of state in their places.
            shapes: of the engine's inputs.
            outputs: give each output of the model from the leaves and the results; None where the results are those.
        """
        self.kind = kind
        self.sizes = sizes
        self.reads = [(binding, leaf.size) for leaf in leaves for binding in leaf.bindings]
        self.writes = [(result.binding, result.size) for result in results]
        self._gpu = gpu
        self._context = context
        self._shapes = shapes
        self._leaves = leaves
        self._results = results
        self._outputs = outputs
        self._fixed = fixed

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
        pointer_of = self.kind.pointer
        for result in self._results:
            array = result.make()
            pointer = pointer_of(array)
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


def direct_call(
    space: Workspace,
    kind: Kind,
    arguments: Sequence[Any],
    leaves: Sequence[Given | None],
    shapes: Mapping[str, Shape],
    sizes: Mapping[str, int],
) -> DirectCall | None:
    """How calls like this one go the shortest way; None where there is none.

    There is one where the one engine can read the caller's arrays, all of one kind, and write all results, and nothing
    else is to be copied.

    Args:
        arguments: the call's leaves as the caller has passed them, and
        leaves: what was read of them.
        shapes: of values, and
        sizes: whole numbers, which this call has found.
    """
    step, program = space.plan.only_engine, space.plan.program
    if step is None or program.input_updates or program.casts or space.plan.casts_outputs:
        return None
    context = space.contexts[step.engine]
    written = dict(zip(step.outputs, context.aliases, strict=True))
    shared = {name: step.inputs[alias] for name, alias in written.items() if alias is not None}
    if any(shared.get(name) != target for target, name in program.state_updates):
        return None
    own = {name: space.state[name].pointer for name in (*step.inputs, *shared.values()) if name in space.state}
    results = [name for name, alias in written.items() if alias is None]
    named = [output.name for output in program.outputs]
    if any(name not in named for name in results) or any(name not in own for name in shared.values()):
        return None
    if any(name not in own and name not in program.inputs for name in step.inputs):
        return None
    bindings = [*step.inputs, *step.outputs]
    found = [_leaf(kind, value, leaf, name, bindings)
             for value, leaf, name in zip(arguments, leaves, program.inputs, strict=True)]  # fmt: skip
    outputs = [_output(output, results, sizes, program.inputs) for output in program.outputs]
    if not all(found) or not all(outputs):
        return None
    return DirectCall(
        kind, tuple(leaf.shape if leaf else () for leaf in leaves), space.gpu.index, context,
        [own.get(shared.get(name, name), 0) for name in bindings],
        [shapes[name] for name in step.inputs],
        [leaf for leaf in found if leaf],
        [_result(space, kind, name, shapes[name], bindings.index(name)) for name in results],
        None if named == results else [output for output in outputs if output],
    )  # fmt: skip


def _leaf(kind: Kind, value: Any, leaf: Given | None, name: str | None, bindings: Sequence[str]) -> DirectLeaf | None:
    if leaf is None:
        return DirectLeaf(None, value)
    if leaf.kind is not kind or leaf.dtype.startswith("complex"):
        return None
    places = tuple(place for place, other in enumerate(bindings) if other == name)
    return DirectLeaf(kind.dtype(leaf.dtype), None, places, size_in_bytes(leaf.shape, leaf.dtype))


def _result(space: Workspace, kind: Kind, name: str, shape: Shape, binding: int) -> DirectResult:
    dtype = space.plan.dtypes[name]
    if isinstance(kind, DeviceArrays):
        stream = space.stream if space.named else None
        make: Callable[[], Any] = partial(DeviceArray, space.memory, space.gpu, shape, dtype, stream)
    else:
        make = kind.maker(shape, dtype)
    return DirectResult(make, binding, size_in_bytes(shape, dtype))


def _output(
    output: Output, results: Sequence[str], sizes: Mapping[str, int], inputs: Sequence[str | None]
) -> Callable[[Sequence[Any], list[Any]], Any] | None:
    name = output.name
    if name is None or name in sizes:
        constant = output.constant if name is None else sizes[name]
        return lambda leaves, made: constant
    if name in results:
        place = results.index(name)
        return lambda leaves, made: made[place]
    if name in inputs:
        index = inputs.index(name)
        return lambda leaves, made: leaves[index]
    return None
