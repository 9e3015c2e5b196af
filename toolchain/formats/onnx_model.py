"""Makes an ONNX model of an artifact: an EPContext node for each engine, which NVIDIA's plugin runs.

The result of :func:`onnx_model` depends on its arguments alone, to the byte, so that a file can be made again and
compared.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import TensorProto, helper

from toolchain.formats.onnx_limits import require_runnable
from toolchain.formats.onnx_names import OnnxNames, kernels_name, onnx_names
from toolchain.formats.source import Source
from toolchain.graph.program import ArithmeticStep, CastStep, EngineStep, SizeStep, Step, ViewStep
from toolchain.graph.views import KINDS
from toolchain.manifest.models import DynamicSize, EngineEntry, ValueSpec

FORMAT = "1"
MANIFEST_KEY = "trtcross.manifest"
GRAPH_KEY = "trtcross.graph"
LIST_KEY = "trtcross.tensors:"
NAMES_KEY = "trtcross.names"
FORMAT_KEY = "trtcross.format"
DIGEST_KEY = "trtcross.manifest_sha256"
COMPATIBILITY_KEY = "ep_compatibility_info."
# The plugin's names: the one that its Python package registers, and the one of Windows ML.
EP_NAMES = ("nv_tensorrt_rtx", "NvTensorRTRTXExecutionProvider")
CONTEXT_OPERATOR, CONTEXT_DOMAIN = "EPContext", "com.microsoft"
CONTEXT = "ep_cache_context"
# The opset of the operators that are used, and an IR version that onnxruntime 1.23 reads.
_OPSET, _IR_VERSION = 21, 10

_DTYPES: dict[str, int] = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "bool": TensorProto.BOOL,
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "float8_e4m3fn": TensorProto.FLOAT8E4M3FN,
    # Only between engines: the plugin accepts neither as an input or output.
    "float64": TensorProto.DOUBLE,
    "int16": TensorProto.INT16,
}

_ARITHMETIC = {operator.add: "Add", operator.sub: "Sub", operator.mul: "Mul", max: "Max", min: "Min"}


@dataclass(frozen=True)
class Context:
    """Where an engine is: in the model, or in a file beside it.

    Attributes:
        data: the engine's bytes if it is in the model, otherwise the file's name.
        embedded: whether it is in the model.
        header: the engine's first bytes.
    """

    data: bytes
    embedded: bool
    header: bytes


def onnx_model(
    source: Source, contexts: Sequence[Context], state: Mapping[str, bytes], *, compatibility: bool = True
) -> onnx.ModelProto:
    """Makes an ONNX model: EPContext nodes for engines, and ONNX operators for the steps between them.

    Args:
        source: the artifact's manifest and graph.
        contexts: where each engine is, in the order of the manifest.
        state: each buffer's elements, by its name.
        compatibility: add the text by which onnxruntime recognizes GPUs that the engine does not list.

    Raises:
        IncompatibleError: ONNX or the plugin cannot express the model.
    """
    return _Writer(source, contexts, state).model(compatibility)


class _Writer:
    def __init__(self, source: Source, contexts: Sequence[Context], state: Mapping[str, bytes]) -> None:
        self._source = source
        self._manifest = source.manifest
        self._contexts = contexts
        self._state = state
        require_runnable(source)
        self._names = onnx_names(source)
        self._constants: list[TensorProto] = []

    def model(self, compatibility: bool) -> onnx.ModelProto:
        nodes = list(self._input_casts())
        nodes += [node for step in self._steps() for node in self._nodes(step)]
        nodes += [helper.make_node("Identity", [given], [name]) for given, name in self._names.copies]
        nodes += [helper.make_node("Cast", [given], [name], to=_DTYPES[to]) for given, to, name in self._names.casts]
        buffers = [
            helper.make_tensor(
                self._names.state[b.name], _DTYPES[b.stored.dtype], b.stored.shape, self._state[b.name], True
            )
            for b in self._source.state
        ]
        outputs = self._outputs()
        graph = helper.make_graph(
            nodes,
            self._manifest.model.name or "model",
            self._inputs(),
            outputs,
            [*buffers, *self._constants],
            value_info=list(self._between({info.name for info in outputs})),
        )
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(CONTEXT_DOMAIN, 1)]
        model = helper.make_model(
            graph,
            opset_imports=opsets,
            ir_version=_IR_VERSION,
            producer_name="trtcross",
            producer_version=self._manifest.producer.trtcross,
        )
        helper.set_model_props(model, self._properties(compatibility))
        return model

    def _properties(self, compatibility: bool) -> dict[str, str]:
        source = self._source
        properties = {
            FORMAT_KEY: FORMAT,
            DIGEST_KEY: source.manifest_sha256,
            NAMES_KEY: json.dumps(names_document(source, self._names)),
            MANIFEST_KEY: source.manifest_text.decode(),
            GRAPH_KEY: source.graph_text.decode(),
        }
        properties |= {f"{LIST_KEY}{name}": data.decode() for name, data in source.lists.items()}
        # For a model of several engines, the plugin itself makes no such text.
        if compatibility and len(self._contexts) == 1:
            header = self._contexts[0].header.hex()
            properties |= {f"{COMPATIBILITY_KEY}{name}": header for name in EP_NAMES}
        return properties

    def _inputs(self) -> list[onnx.ValueInfoProto]:
        infos = [
            _info(name, spec)
            for name, spec in zip(self._names.inputs, self._manifest.inputs, strict=True)
            if name is not None
        ]
        for buffer in self._source.state:
            name = self._names.state[buffer.name]
            infos.append(helper.make_tensor_value_info(name, _DTYPES[buffer.stored.dtype], buffer.stored.shape))
        return infos

    def _outputs(self) -> list[onnx.ValueInfoProto]:
        infos = []
        for name, spec in zip(self._names.outputs, self._manifest.outputs, strict=True):
            if name is not None:
                is_size = spec.dtype is None
                infos.append(
                    helper.make_tensor_value_info(name, TensorProto.INT64, []) if is_size else _info(name, spec)
                )
        for buffer in self._source.state:
            if buffer.update:
                name = self._names.updates[buffer.name]
                infos.append(helper.make_tensor_value_info(name, _DTYPES[buffer.stored.dtype], buffer.stored.shape))
        specs = dict(zip(self._names.inputs, self._manifest.inputs, strict=True))
        infos += [_info(after, specs[name]) for name, after in self._names.input_updates.items()]
        return infos

    def _between(self, outputs: set[str]) -> Iterator[onnx.ValueInfoProto]:
        """Yields the types of values between engines: ONNX cannot infer the outputs of an EPContext node."""
        for step in self._source.program.engine_steps:
            for binding in self._manifest.engines[step.engine].outputs:
                if binding.name not in outputs:
                    sizes = [None if size < 0 else size for size in binding.shape]
                    yield helper.make_tensor_value_info(binding.name, _DTYPES[binding.dtype], sizes)

    def _input_casts(self) -> Iterator[onnx.NodeProto]:
        for cast in self._source.program.casts:
            given, name = str(self._names.inputs[cast.index]), self._names.values[cast.output]
            yield helper.make_node("Cast", [given], [name], to=_DTYPES[cast.dtype])

    def _steps(self) -> Iterator[Step]:
        """Returns the steps whose results are used, in order."""
        program = self._source.program
        wanted = {output.name for output in program.outputs}
        wanted |= {value for _, value in (*program.state_updates, *program.input_updates)}
        kept: list[Step] = []
        for step in reversed(program.steps):
            if isinstance(step, EngineStep):
                wanted |= set(step.inputs)
            elif step.output not in wanted:
                continue
            elif isinstance(step, ArithmeticStep):
                wanted |= set(step.operands)  # type: ignore[arg-type]
            else:
                wanted |= {step.tensor, *(_texts(step.operands) if isinstance(step, ViewStep) else ())}
            kept.append(step)
        return reversed(kept)

    def _nodes(self, step: Step) -> list[onnx.NodeProto]:
        if isinstance(step, EngineStep):
            return [self._engine(step)]
        if isinstance(step, ViewStep):
            return self._view(step)
        if isinstance(step, CastStep):
            tensor, name = self._names.values[step.tensor], self._names.values[step.output]
            return [helper.make_node("Cast", [tensor], [name], to=_DTYPES[step.dtype])]
        if isinstance(step, SizeStep):
            name = self._names.values[step.output]
            sized, none = f"{name}.vector", self._constant(f"{name}.axes", [0], [1])
            return [
                helper.make_node(
                    "Shape", [self._names.values[step.tensor]], [sized], start=step.dim, end=_after(step.dim)
                ),
                helper.make_node("Squeeze", [sized, none], [name]),
            ]
        return self._arithmetic(step)

    def _view(self, step: ViewStep) -> list[onnx.NodeProto]:
        kind, name, tensor = KINDS[step.new_shape], self._names.values[step.output], self._names.values[step.tensor]
        if kind == "same":
            return []
        sizes = self._source.sizes[step.tensor]
        if kind == "reshape":
            shape, nodes = self._vector(f"{name}.shape", step.operands[0])
            return [*nodes, helper.make_node("Reshape", [tensor, shape], [name], allowzero=1)]
        if kind == "unsqueeze":
            axes = self._constant(f"{name}.axes", [step.operands[0]], [1])
            return [helper.make_node("Unsqueeze", [tensor, axes], [name])]
        if kind == "squeeze":
            given = step.operands[0] if step.operands else range(len(sizes))
            dims = sorted(dim % len(sizes) for dim in ([given] if isinstance(given, int) else given)) if sizes else []
            gone = [dim for dim in dims if sizes[dim] == 1]  # torch leaves dimensions of other sizes
            axes = self._constant(f"{name}.axes", gone, [len(gone)])
            return [helper.make_node("Squeeze", [tensor, axes], [name])]
        bounds = [*step.operands, *(0, -1)[len(step.operands) :]]
        start, end = (bound % len(sizes) if sizes else 0 for bound in bounds)
        head, rest, tail = f"{name}.head", self._constant(f"{name}.rest", [-1], [1]), f"{name}.tail"
        return [
            helper.make_node("Shape", [tensor], [head], start=0, end=start),
            helper.make_node("Shape", [tensor], [tail], start=end + 1),
            helper.make_node("Concat", [head, rest, tail], [f"{name}.shape"], axis=0),
            helper.make_node("Reshape", [tensor, f"{name}.shape"], [name], allowzero=1),
        ]

    def _vector(self, name: str, sizes: Sequence[int | str]) -> tuple[str, list[onnx.NodeProto]]:
        """Returns the name of a vector of sizes, and the nodes that compute it if some sizes vary."""
        if not any(isinstance(size, str) for size in sizes):
            return self._constant(name, list(sizes), [len(sizes)]), []  # type: ignore[arg-type]
        axes, parts, nodes = self._constant(f"{name}.axes", [0], [1]), [], []
        for index, size in enumerate(sizes):
            part = f"{name}.{index}"
            if isinstance(size, str):
                nodes.append(helper.make_node("Unsqueeze", [self._names.values[size], axes], [part]))
            else:
                self._constant(part, [size], [1])
            parts.append(part)
        return name, [*nodes, helper.make_node("Concat", parts, [name], axis=0)]

    def _arithmetic(self, step: ArithmeticStep) -> list[onnx.NodeProto]:
        name = self._names.values[step.output]
        operands = [
            self._names.values[value] if isinstance(value, str) else self._constant(f"{name}.{index}", [value], [])
            for index, value in enumerate(step.operands)
        ]
        if step.function is operator.neg:
            return [helper.make_node("Neg", operands, [name])]
        if step.function is operator.mod:  # the result has the divisor's sign, as in Python
            return [helper.make_node("Mod", operands, [name])]
        if step.function is operator.floordiv:  # ONNX's Div rounds toward zero
            rest, whole = f"{name}.rest", f"{name}.whole"
            return [
                helper.make_node("Mod", operands, [rest]),
                helper.make_node("Sub", [operands[0], rest], [whole]),
                helper.make_node("Div", [whole, operands[1]], [name]),
            ]
        return [helper.make_node(_ARITHMETIC[step.function], operands, [name])]

    def _constant(self, name: str, values: list[int], shape: list[int]) -> str:
        self._constants.append(helper.make_tensor(name, TensorProto.INT64, shape, values))
        return name

    def _engine(self, step: EngineStep) -> onnx.NodeProto:
        entry, context = self._manifest.engines[step.engine], self._contexts[step.engine]
        node = helper.make_node(
            CONTEXT_OPERATOR,
            [binding.name for binding in entry.inputs],
            [binding.name for binding in entry.outputs],
            name=entry.name,
            domain=CONTEXT_DOMAIN,
            main_context=0,
            embed_mode=int(context.embedded),
            ep_sdk_version=self._manifest.target.runtime,
            hardware_architecture=_architecture(self._manifest.target.compute_capabilities),
            partition_name=kernels_name(entry),
            onnx_model_filename="",
        )
        # No attribute `source`: it would have to name the plugin as the program that loads the model registers it.
        node.attribute.append(helper.make_attribute(CONTEXT, context.data))
        return node


def names_document(source: Source, names: OnnxNames) -> dict[str, Any]:
    """Maps the manifest's names to the model's: ``{"inputs": {"images.0": "images_0"}, ...}``; null is a constant."""
    manifest = source.manifest
    return {
        "inputs": {spec.name: name for spec, name in zip(manifest.inputs, names.inputs, strict=True)},
        "outputs": {spec.name: name for spec, name in zip(manifest.outputs, names.outputs, strict=True)},
        "state": {
            buffer.name: {"input": names.state[buffer.name], "output": names.updates.get(buffer.name)}
            for buffer in source.state
        },
        "changed_inputs": dict(names.input_updates),
    }


def _architecture(capabilities: list[str]) -> str:
    """Returns the GPUs of the engine in the plugin's spelling: ``80+`` for Ampere and later."""
    numbers = [capability.removeprefix("sm_") for capability in capabilities]
    return "80+" if "80" in numbers or not numbers else numbers[0]


def _info(name: str, spec: ValueSpec) -> onnx.ValueInfoProto:
    shape = [size.symbol if isinstance(size, DynamicSize) else size for size in spec.shape or []]
    return helper.make_tensor_value_info(name, _DTYPES[str(spec.dtype)], shape)


def _texts(operands: Any) -> Iterator[str]:
    """Yields the names of values among a view's operands."""
    for operand in operands:
        if isinstance(operand, str):
            yield operand
        elif isinstance(operand, (tuple, list)):
            yield from _texts(operand)


def _after(dim: int) -> int | None:
    """Returns the end of a slice that holds one dimension; None if that is the last one, counted from the end."""
    return None if dim == -1 else dim + 1


def context_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Returns a model's EPContext nodes, in order."""
    return [node for node in model.graph.node if node.op_type == CONTEXT_OPERATOR]


def engine_entries(source: Source) -> list[EngineEntry]:
    """Returns the manifest's engines in the order of the model's EPContext nodes."""
    return [source.manifest.engines[step.engine] for step in source.program.engine_steps]
