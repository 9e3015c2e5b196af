"""The fast path of a call like an earlier one, whose arrays are on the GPU, where the only engine works in place.

The earlier call has computed everything that follows from the sizes. What is left is to check each array, to make the
results, and to enqueue the engine.
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

# The addresses of an engine's bindings. Those of the results are set last; the list then becomes the engine's own.
Addresses = list[int]


@dataclass(frozen=True, slots=True)
class DirectLeaf:
    """What a leaf of the call must be.

    Attributes:
        dtype: the dtype as the kind of array has it; None where the leaf is not an array.
        value: the value that the leaf must have where it is not an array.
        bindings: the indices of the engine's bindings that read it.
        size: its size in bytes.
    """

    dtype: Any
    value: Any
    bindings: tuple[int, ...] = ()
    size: int = 0


@dataclass(frozen=True, slots=True)
class DirectResult:
    """An output of the engine that the caller gets.

    Attributes:
        make: makes a new array for it.
        binding: the index of the engine's binding that writes it.
        size: its size in bytes.
    """

    make: Callable[[], Any]
    binding: int
    size: int


class DirectCall:
    """A call whose arrays are of one kind and have the sizes of an earlier call.

    Attributes:
        kind: the kind of the arrays.
        sizes: the shapes of all leaves.
        reads: the indices of the engine's bindings that read the caller's arrays, with their sizes in bytes.
        writes: the indices of the engine's bindings that write results, with their sizes in bytes.
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
        """Prepares calls with one set of input shapes.

        Args:
            gpu: the index of the GPU on which arrays must be.
            context: the execution context of the engine.
            fixed: the engine's addresses; those of state are set, the others are 0.
            shapes: the shapes of the engine's inputs.
            leaves: what each leaf of a call must be.
            results: the engine's outputs that the caller gets.
            outputs: for each output of the model a function that returns it from the leaves and the results; None where
                the results are the outputs.
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
        """Returns the engine's addresses for a call, or None where an array does not fit the fast path."""
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
        except RuntimeError:  # torch raises it for a tensor without memory of its own
            return None
        return found

    def results(self, addresses: Addresses) -> list[Any] | None:
        """Makes arrays for the engine's outputs, and puts their addresses into ``addresses``.

        Returns:
            The arrays, or None where one is not aligned.
        """
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
        """Returns the model's outputs."""
        return results if self._outputs is None else [output(leaves, results) for output in self._outputs]


def key_of(leaves: Sequence[Any]) -> Hashable:
    """Returns a key of calls that may use the same fast path: the class and the shape of each leaf."""
    return tuple([(type(leaf), getattr(leaf, "shape", None)) for leaf in leaves])


def direct_call(
    space: Workspace,
    kind: Kind,
    arguments: Sequence[Any],
    leaves: Sequence[Given | None],
    shapes: Mapping[str, Shape],
    sizes: Mapping[str, int],
) -> DirectCall | None:
    """Returns the fast path for calls like this one, or None where there is none.

    There is one where the only engine can read the caller's arrays, which are all of one kind, and write all results,
    and where nothing else needs a copy.

    Args:
        arguments: the call's leaves as the caller has passed them.
        leaves: what :func:`.arrays.read` returned for each of them; None where the input is not a tensor.
        shapes: the shapes of the values that this call has computed, by name.
        sizes: the whole numbers that this call has computed, by name.
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
