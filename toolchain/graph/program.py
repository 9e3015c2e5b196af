"""Reads a graph that needs no PyTorch as steps: engines, arithmetic on sizes, views and casts.

Casts of the model's inputs and outputs are kept apart from the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolchain.errors import MalformedArtifactError
from toolchain.graph.document import is_placeholder, nodes, read_placeholder
from toolchain.graph.torch_free import ARITHMETIC, CAST, SIZE, used_inside
from toolchain.graph.values import SCALAR_TYPES
from toolchain.graph.views import NEW_SHAPES, NewShape


@dataclass(frozen=True)
class EngineStep:
    """Runs an engine.

    Attributes:
        engine: the engine's index in the artifact.
        inputs: the names of its inputs' values, in the order of its bindings.
        outputs: the names of its outputs' values, in the order of its bindings.
    """

    engine: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class SizeStep:
    """Takes a tensor's size in a dimension."""

    output: str
    tensor: str
    dim: int


@dataclass(frozen=True)
class ArithmeticStep:
    """Computes a whole number from others; a string among the operands is the name of a value."""

    output: str
    function: Callable[..., int]
    operands: tuple[str | int, ...]


@dataclass(frozen=True)
class ViewStep:
    """Gives a tensor a new shape; its elements stay where they are.

    Attributes:
        output: the name of the result.
        tensor: the name of the tensor.
        new_shape: computes the new shape from the tensor's shape and the operands.
        operands: the operator's further arguments; a string among them, or within one of them, names a whole number.
    """

    output: str
    tensor: str
    new_shape: NewShape
    operands: tuple[Any, ...]


@dataclass(frozen=True)
class CastStep:
    """Casts a tensor to a different dtype between engines. A session refuses graphs with such steps."""

    output: str
    tensor: str
    dtype: str


@dataclass(frozen=True)
class InputCast:
    """Casts a leaf of the call to a different dtype, before the steps.

    Attributes:
        output: the name of the result.
        index: the index of the leaf.
        dtype: the dtype of the result.
    """

    output: str
    index: int
    dtype: str


@dataclass(frozen=True)
class Output:
    """One of the model's outputs: a value or a constant.

    Attributes:
        name: the value's name; None for a constant.
        constant: the constant.
        cast: the output's dtype, if it is not the value's own.
    """

    name: str | None
    constant: Any = None
    cast: str | None = None


Step = EngineStep | SizeStep | ArithmeticStep | ViewStep | CastStep


@dataclass(frozen=True)
class Program:
    """What a call computes.

    Attributes:
        state: torch's names of the weights and buffers that the call uses, by the names of their values.
        inputs: the names of the leaves' values, None for a leaf that is no tensor.
        casts: the casts of leaves, which come before the steps.
        used: the names of the tensors that steps, outputs and updates use.
        steps: the steps, in order.
        outputs: the model's outputs, in the manifest's order.
        state_updates: after a call, the state of the first name gets the value of the second.
        input_updates: after a call, the leaf of this index gets the value of this name.
    """

    state: Mapping[str, str]
    inputs: tuple[str | None, ...]
    casts: tuple[InputCast, ...]
    used: frozenset[str]
    steps: tuple[Step, ...]
    outputs: tuple[Output, ...]
    state_updates: tuple[tuple[str, str], ...]
    input_updates: tuple[tuple[int, str], ...]

    @property
    def engine_steps(self) -> list[EngineStep]:
        """The engines' calls, in order."""
        return [step for step in self.steps if isinstance(step, EngineStep)]


def read_program(document: dict[str, Any], tokens: Sequence[str], where: str) -> Program:
    """Reads a parsed graph that needs no PyTorch.

    Args:
        document: the graph.
        tokens: the tokens of the artifact's engines, in order.
        where: the file and entry, for errors.

    Raises:
        MalformedArtifactError: neither trtcross nor Torch-TensorRT writes such a graph.
    """
    try:
        return _Reader(document, tokens, where).program()
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise MalformedArtifactError(
            f"the graph cannot be read: {type(error).__name__}: {error}", where=where
        ) from error


class _Reader:
    """Reads one graph. Every value must be defined before it is used, and only once."""

    def __init__(self, document: dict[str, Any], tokens: Sequence[str], where: str) -> None:
        module = document["graph_module"]
        self._nodes = nodes(document)
        self._signature = module["signature"]
        self._used_inside = used_inside(document)
        self._tokens = tokens
        self._where = where
        self._state: dict[str, str] = {}
        self._inputs: list[str | None] = []
        self._casts: list[InputCast] = []
        self._cast_outputs: dict[str, tuple[str, str]] = {}  # output -> its source and dtype
        self._known: set[str] = set()

    def program(self) -> Program:
        for spec in self._signature["input_specs"]:
            self._read_input(spec)
        steps = tuple(step for node in self._nodes if (step := self._step(node)))
        outputs: list[Output] = []
        state_updates: list[tuple[str, str]] = []
        input_updates: list[tuple[int, str]] = []
        for spec in self._signature["output_specs"]:
            [(kind, content)] = spec.items()
            if kind in ("user_output", "loss_output"):
                outputs.append(self._output(content["arg"]))
            elif kind == "buffer_mutation":
                state_updates.append((self._state_name(content["buffer_name"]), self._use(content["arg"]["name"])))
            elif kind == "user_input_mutation":
                index = self._inputs.index(content["user_input_name"])
                input_updates.append((index, self._use(content["arg"]["name"])))
            else:
                raise ValueError(f"an output of the kind {kind!r}")
        used = {name for step in steps if isinstance(step, EngineStep) for name in step.inputs}
        used |= {output.name for output in outputs if output.name} | {name for name, _ in state_updates}
        used |= {name for _, name in (*state_updates, *input_updates)}
        used |= {step.tensor for step in steps if isinstance(step, (SizeStep, ViewStep, CastStep))}
        used |= {name for index, _ in input_updates if (name := self._inputs[index])}
        return Program(
            state={name: fqn for name, fqn in self._state.items() if name in used},
            inputs=tuple(self._inputs),
            casts=tuple(self._casts),
            used=frozenset(used),
            steps=steps,
            outputs=tuple(outputs),
            state_updates=tuple(state_updates),
            input_updates=tuple(input_updates),
        )

    def _read_input(self, spec: dict[str, Any]) -> None:
        [(kind, content)] = spec.items()
        if kind == "user_input":
            [(tag, value)] = content["arg"].items()
            self._inputs.append(self._new(value["name"]) if tag == "as_tensor" else None)
        elif kind == "constant_input":
            self._inputs.append(None)
        elif kind in ("parameter", "buffer", "tensor_constant"):
            self._state[self._new(content["arg"]["name"])] = str(content[f"{kind}_name"])
        else:
            raise ValueError(f"an input of the kind {kind!r}")

    def _step(self, node: dict[str, Any]) -> Step | None:
        target = node["target"]
        if is_placeholder(node):
            placeholder = read_placeholder(node, self._where)
            inputs = tuple(self._use(value["name"]) for value in placeholder.inputs)
            outputs = tuple(self._new(value["name"]) for value in placeholder.outputs)
            return EngineStep(self._tokens.index(placeholder.token), inputs, outputs)
        [result] = node["outputs"]
        if target == CAST:
            return self._read_cast(node, str(result["as_tensor"]["name"]))
        if target in NEW_SHAPES:
            tensor, *operands = [self._operand(argument["arg"]) for argument in node["inputs"]]
            return ViewStep(self._new(result["as_tensor"]["name"]), str(tensor), NEW_SHAPES[target], tuple(operands))
        arguments = [self._operand(argument["arg"]) for argument in node["inputs"]]
        output = self._new(result["as_sym_int"]["as_name"])
        if target == SIZE:
            tensor, dim = arguments
            return SizeStep(output, str(tensor), int(dim))
        return ArithmeticStep(output, ARITHMETIC[target], tuple(arguments))

    def _read_cast(self, node: dict[str, Any], output: str) -> CastStep | None:
        arguments = {argument["name"]: argument["arg"] for argument in node["inputs"]}
        source = self._use(arguments["self"]["as_tensor"]["name"])
        dtype = SCALAR_TYPES[arguments["dtype"]["as_scalar_type"]]
        if source in self._inputs:
            self._casts.append(InputCast(self._new(output), self._inputs.index(source), dtype))
        elif output in self._used_inside:
            return CastStep(self._new(output), source, dtype)
        else:
            self._cast_outputs[output] = source, dtype
        return None

    def _operand(self, argument: dict[str, Any]) -> Any:
        [(tag, value)] = argument.items()
        if tag == "as_int":
            return int(value)
        if tag == "as_ints":
            return tuple(int(item) for item in value)
        if tag == "as_sym_ints":
            return tuple(self._operand({"as_sym_int": item}) for item in value)
        if tag in ("as_memory_format", "as_none"):
            return None  # clone's argument, without effect: every value is in C order
        if tag == "as_tensor":
            return self._use(value["name"])
        [(tag, value)] = argument["as_sym_int"].items()
        return self._use(value) if tag == "as_name" else int(value)

    def _output(self, argument: dict[str, Any]) -> Output:
        [(tag, value)] = argument.items()
        if tag == "as_tensor":
            if value["name"] in self._cast_outputs:
                source, dtype = self._cast_outputs[value["name"]]
                return Output(source, cast=dtype)
            return Output(self._use(value["name"]))
        if tag == "as_sym_int":
            [(tag, value)] = value.items()
            return Output(self._use(value)) if tag == "as_name" else Output(None, int(value))
        if tag == "as_none":
            return Output(None, None)
        if tag in ("as_int", "as_float", "as_bool", "as_string"):
            return Output(None, value)
        raise ValueError(f"an output of the kind {tag!r}")

    def _state_name(self, fqn: str) -> str:
        return next(name for name, other in self._state.items() if other == fqn)

    def _new(self, name: str) -> str:
        if name in self._known:
            raise ValueError(f"two values are called {name!r}")
        self._known.add(name)
        return name

    def _use(self, name: str) -> str:
        if name not in self._known:
            raise ValueError(f"{name!r} is used before it is there")
        return name
