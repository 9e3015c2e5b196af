"""The only file that uses names of Torch-TensorRT, many of which are private.

It is written for Torch-TensorRT 2.14. ``tests/contract`` binds each call in this file to the sources of the supported
releases, so that a change upstream fails a test before it fails a build.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import textwrap
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache, cached_property
from types import SimpleNamespace
from typing import Any

import torch

from linux_side.guards.fixed import fixed_value
from linux_side.guards.tracing import no_own_guards
from toolchain.engine.info import AliasedIO, EngineInfo
from toolchain.graph.writer import EngineSource, engine_from_buffer
from toolchain.targets import ComputeCapability


def import_torch_tensorrt(gpu: ComputeCapability) -> Any:
    """Imports ``torch_tensorrt`` as if the current device had this compute capability.

    The import queries a GPU although building needs none. Stand-ins answer during the import. The answers stay in the
    module for the life of the process, which is one reason why each build has its own process.
    """
    with _stand_ins(gpu):
        return importlib.import_module("torch_tensorrt")


@contextlib.contextmanager
def _stand_ins(gpu: ComputeCapability) -> Iterator[None]:
    properties = SimpleNamespace(major=gpu.major, minor=gpu.minor, name=str(gpu))
    stand_ins: dict[str, Callable[..., Any]] = {
        # torch_tensorrt/_utils.py, is_tegra_platform() and is_thor(): which lowering passes there are
        "get_device_capability": lambda *_: (gpu.major, gpu.minor),
        # torch_tensorrt/dynamo/_defaults.py, default_device(): the default of CompilationSettings.device
        "current_device": lambda: 0,
        # torch_tensorrt/_Device.py and dynamo/runtime: the properties of the default settings' device
        "get_device_properties": lambda *_: properties,
    }
    originals = {name: getattr(torch.cuda, name) for name in stand_ins}
    for name, stand_in in stand_ins.items():
        setattr(torch.cuda, name, stand_in)
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(torch.cuda, name, original)


def compilation_settings(
    *,
    min_block_size: int,
    torch_executed_ops: Collection[str],
    workspace_size: int,
    disable_tf32: bool,
    hardware_compatible: bool,
    cross_compile_for_windows: bool,
) -> Any:
    """Returns the ``CompilationSettings`` of one build."""
    from torch_tensorrt import Device
    from torch_tensorrt.dynamo._settings import CompilationSettings

    return CompilationSettings(
        device=Device(gpu_id=0),
        min_block_size=min_block_size,
        torch_executed_ops=set(torch_executed_ops),
        workspace_size=workspace_size,
        disable_tf32=disable_tf32,
        hardware_compatible=hardware_compatible,
        enable_cross_compile_for_windows=cross_compile_for_windows,
        truncate_double=True,
        attn_bias_is_causal=False,  # True treats any bias of memory-efficient attention as a causal mask
        offload_module_to_cpu=True,
    )


Decompositions = dict[torch._ops.OpOverload, Callable[..., Any]]


Decompose = Callable[[torch.export.ExportedProgram, Decompositions], torch.export.ExportedProgram]


def decompose(
    program: torch.export.ExportedProgram,
    settings: Any,
    correct: Callable[[Decompositions], Decompositions],
    run: Decompose,
) -> torch.export.ExportedProgram:
    """Runs the first half of Torch-TensorRT's lowering: decomposes a program into core operators without side effects.

    Args:
        program: the program.
        settings: the build's ``CompilationSettings``.
        correct: returns the decompositions to use, given upstream's.
        run: decomposes a program, as ``ExportedProgram.run_decompositions`` does.
    """
    from torch_tensorrt.dynamo.lowering import get_decompositions, pre_export_lowering

    program = pre_export_lowering(program, settings)
    decompositions = get_decompositions(
        settings.enable_experimental_decompositions,
        settings.decompose_attention,
        settings.use_distributed_mode_trace,
        use_fp32_acc=settings.use_fp32_acc,
    )
    with no_own_guards(program):
        return run(program, correct(decompositions))


def lower(gm: torch.fx.GraphModule, settings: Any) -> torch.fx.GraphModule:
    """Runs the second half of Torch-TensorRT's lowering: its passes over the graph."""
    from torch_tensorrt.dynamo.lowering import post_lowering

    _leave_complex_numbers()
    return post_lowering(gm, settings)


@cache
def _leave_complex_numbers() -> None:
    """Removes the pass that turns complex numbers into pairs: it fails for Fourier transforms and for products."""
    from torch_tensorrt.dynamo.lowering.passes._aten_lowering_pass import (
        ATEN_POST_LOWERING_PASSES,
        complex_lowering_pass,
    )

    ATEN_POST_LOWERING_PASSES.passes.remove(complex_lowering_pass)


def forbid_aliasing(write: torch.fx.Node) -> None:
    """Prevents the converters from writing this node's result into the memory of its first argument."""
    write.meta["_trt_no_kv_alias"] = True


_IN_TORCH = "trtcross_in_torch"


def keep_in_torch(node: torch.fx.Node, reason: str) -> None:
    """Marks a node of a lowered graph to stay out of every engine, with the reason for messages."""
    node.meta[_IN_TORCH] = reason


def why_in_torch(node: torch.fx.Node) -> str | None:
    """Returns the reason for which :func:`keep_in_torch` marked this node; None if it did not."""
    return node.meta.get(_IN_TORCH)


def partition(gm: torch.fx.GraphModule, settings: Any) -> torch.fx.GraphModule:
    """Splits a lowered graph into ``_run_on_acc_*`` and ``_run_on_gpu_*`` submodules."""
    from torch_tensorrt.dynamo import partitioning
    from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_CONVERTERS

    _check_registry_once()
    _allow_dynamic_sizes()
    _let_nodes_stay()
    _keep_int64_in_select()
    _resize_to_any_sizes()
    _compare_sizes()
    _attend_to_constants()
    DYNAMO_CONVERTERS.set_compilation_settings(settings)
    supported, total = partitioning.get_graph_converter_support(gm, settings.torch_executed_ops)
    if not total:  # the partitioner fails on a graph without operators
        return gm
    partitioned, _ = partitioning.fast_partition(
        gm,
        min_block_size=settings.min_block_size,
        torch_executed_ops=settings.torch_executed_ops,
        require_full_compilation=False,  # we name the operators ourselves
        skip_fusion=supported == total,
    )
    return partitioned


@cache
def _check_registry_once() -> None:
    """Checks the converters' registry once; upstream checks all of it at each look-up of a converter."""
    from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_CONVERTERS

    DYNAMO_CONVERTERS.validate_invariants()
    DYNAMO_CONVERTERS.validate_invariants = lambda: None


@cache
def _allow_dynamic_sizes() -> None:
    """Allows ``gather``, ``clone`` and casts in engines with dynamic sizes.

    Their converters add one layer that does not depend on sizes, but upstream does not mark them as supporting dynamic
    shapes. For ``clone`` and casts, that concerns those that are all that an engine does, which is known only after
    partitioning. Without ``gather``, a BERT of dynamic length becomes two engines with a gather of token types between
    them.
    """
    from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_CONVERTERS

    for name in ("gather", "clone", "_to_copy"):
        for registry in DYNAMO_CONVERTERS.registries:
            for support in registry.get(getattr(torch.ops.aten, name).default, ()):
                # The entry is frozen, and the registry has no method to replace it.
                object.__setattr__(support, "supports_dynamic_shapes", True)


@cache
def _let_nodes_stay() -> None:
    """Makes converters refuse nodes that :func:`keep_in_torch` marked; upstream can exclude whole operators only."""
    from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_CONVERTERS

    def unless_marked(valid: Callable[[torch.fx.Node, Any], bool]) -> Callable[[torch.fx.Node, Any], bool]:
        return lambda node, settings: not why_in_torch(node) and valid(node, settings)

    for target in DYNAMO_CONVERTERS.unique_targets():
        for registry in DYNAMO_CONVERTERS.registries:
            for support in registry.get(target, ()):
                # The entry is frozen, and the registry has no method to replace it.
                object.__setattr__(support, "capability_validator", unless_marked(support.capability_validator))


@cache
def _keep_int64_in_select() -> None:
    """Keeps int64 values of ``where`` as they are; upstream's converter truncates them to int32."""
    from torch_tensorrt.dynamo.conversion.impl.condition import ops

    promote = ops.promote_trt_tensors_to_same_dtype

    def promote_but_int64(ctx: Any, lhs: Any, rhs: Any, name_prefix: str) -> tuple[Any, Any]:
        if lhs.dtype == rhs.dtype:
            return lhs, rhs
        return promote(ctx, lhs, rhs, name_prefix)

    ops.promote_trt_tensors_to_same_dtype = promote_but_int64


@cache
def _resize_to_any_sizes() -> None:
    """Allows resizing to dynamic sizes with a dynamic batch; upstream supports only one of the two."""
    from torch_tensorrt.dynamo.conversion.impl import upsample
    from torch_tensorrt.dynamo.conversion.impl.shape import shape

    def sizes(ctx: Any, target: Any, source_ir: Any, name: str, wanted: Sequence[Any], tensor: Any) -> Any:
        known = [
            shape(ctx, target, source_ir, f"{name}_{dim}", tensor, dim) if isinstance(size, int) and size < 0 else size
            for dim, size in enumerate(wanted)
        ]
        return upsample.unify_trt_shape_tensors(ctx, target, name, known, concat_axis=0, force_trt_output=True)

    upsample.get_shape_with_dynamic_shape = sizes


@cache
def _compare_sizes() -> None:
    """Adds converters for the maximum and the minimum of two sizes, which upstream does not have."""
    from torch_tensorrt.dynamo._SourceIR import SourceIR
    from torch_tensorrt.dynamo.conversion._ConverterRegistry import dynamo_tensorrt_converter
    from torch_tensorrt.dynamo.conversion.impl import elementwise

    for target, layer in ((torch.sym_max, elementwise.max), (torch.sym_min, elementwise.min)):

        def compare(ctx: Any, target: Any, args: Any, kwargs: Any, name: str, layer: Callable[..., Any] = layer) -> Any:
            return layer(ctx, target, SourceIR.ATEN, name, *args)

        dynamo_tensorrt_converter(target, supports_dynamic_shapes=True)(compare)


@cache
def _attend_to_constants() -> None:
    """Allows constant queries, keys and values, such as a detector's queries; upstream expects TensorRT tensors."""
    from torch_tensorrt.dynamo.conversion.converter_utils import get_trt_tensor
    from torch_tensorrt.dynamo.conversion.impl import attention

    layer = attention.scaled_dot_product_attention

    def attend(ctx: Any, target: Any, source_ir: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        for part in ("query", "key", "value"):
            kwargs[part] = get_trt_tensor(ctx, kwargs[part], f"{name}_{part}")
        return layer(ctx, target, source_ir, name, *args, **kwargs)

    attention.scaled_dot_product_attention = attend


ENGINE_PREFIX = "_run_on_acc_"


def partition_inputs(partition: torch.fx.GraphModule, profiles: Sequence[dict[str, dict[str, int]]]) -> list[Any]:
    """Returns the ``torch_tensorrt.Input`` of each input of a partition.

    Args:
        partition: the partition.
        profiles: for each optimization profile, each symbol's ``min``, ``opt`` and ``max``.
    """
    from torch_tensorrt.dynamo.partitioning import construct_submodule_inputs

    return list(
        construct_submodule_inputs(partition, profile_source_bounds=list(profiles) or None, num_profiles=len(profiles))
    )


def output_dtypes(partition: torch.fx.GraphModule) -> list[Any]:
    """Returns the dtypes that a partition's outputs must have."""
    from torch_tensorrt.dynamo.conversion._conversion import infer_module_output_dtypes

    return list(infer_module_output_dtypes(partition, truncate_double=True))


def interpreter(
    partition: torch.fx.GraphModule,
    inputs: Sequence[Any],
    settings: Any,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> Any:
    """Returns an interpreter that converts a partition to a TensorRT network, and records the results of each node.

    Unlike upstream's, it makes every output a tensor of its own, and corrects shapes and dtypes.

    Args:
        partition: the partition.
        inputs: the result of :func:`partition_inputs`.
        settings: the build's ``CompilationSettings``.
        input_names: the names of the network's inputs; None for those of the partition.
        output_names: the names of the outputs, at least as many as there are; None for upstream's own.
    """
    import tensorrt
    from torch_tensorrt.dynamo.conversion._TRTInterpreter import TRTInterpreter

    class Interpreter(TRTInterpreter):
        @cached_property
        def _node_results(self) -> list[tuple[torch.fx.Node, Any]]:
            return []

        @cached_property
        def _layer_nodes(self) -> list[torch.fx.Node]:
            return []

        def run_node(self, n: torch.fx.Node) -> Any:
            result, value = super().run_node(n), n.meta.get("val")
            if isinstance(result, (list, tuple)) and isinstance(value, (list, tuple)):
                values = [*value, *(None for _ in result)]
                result = [self._shaped(n, *pair) for pair in zip(result, values, strict=False)]
            elif n.op != "output":
                result = self._shaped(n, result, value)
            self._node_results.append((n, result))
            self._layer_nodes.extend([n] * (self.ctx.net.num_layers - len(self._layer_nodes)))
            return result

        def _shaped(self, node: torch.fx.Node, result: Any, value: Any) -> Any:
            """Reshapes a tensor to the sizes of its node's value.

            Upstream's converters return some scalars with one dimension. TensorRT also does not infer every fixed size,
            such as that of the last four rows of an image of any height, or one that the model compares with a number.
            """
            if not isinstance(value, torch.Tensor) or not isinstance(result, tensorrt.ITensor):
                return result
            result = self._exactly_cast(value.dtype, result)
            wanted = [-1 if (known := fixed_value(size)) is None else known for size in value.shape]
            sizes = list(result.shape)
            unknown = len(sizes) == len(wanted) and all(s in (-1, w) for s, w in zip(sizes, wanted, strict=True))
            if sizes == wanted or not (unknown or (not wanted and sizes == [1])):
                return result
            layer = self.ctx.net.add_shuffle(result)
            layer.reshape_dims = [0 if size == -1 else size for size in wanted]  # 0 copies the size
            layer.name = f"{node.name} in its shape"
            return layer.get_output(0)

        def _exactly_cast(self, dtype: torch.dtype, result: Any) -> Any:
            """Casts int32 to the node's int64 or bool, because upstream computes constants and products in int32."""
            wanted = {torch.int64: tensorrt.int64, torch.bool: tensorrt.bool}.get(dtype)
            if wanted is None or result.dtype != tensorrt.int32:
                return result
            return self.ctx.net.add_cast(result, wanted).get_output(0)

        def output(self, target: str, args: Any, kwargs: Any) -> list[Any]:
            # Upstream marks a tensor that is two outputs only once, and an input that is an output not at all. The
            # graph would then read an output that the engine does not have.
            results = args[0] if isinstance(args[0], (list, tuple)) else (args[0],)
            return super().output(target, (tuple(self._distinct(results)),), kwargs)

        def _distinct(self, results: Sequence[Any]) -> Iterator[Any]:
            network = self.ctx.net
            taken = {network.get_input(index).name for index in range(network.num_inputs)}
            for result in results:
                name = getattr(result, "name", None)
                if name is None or name not in taken:
                    taken.add(name)
                    yield result
                else:
                    yield network.add_identity(result).get_output(0)

    return Interpreter(
        partition,
        inputs,
        output_dtypes=output_dtypes(partition),
        compilation_settings=settings,
        input_binding_names=input_names,
        output_binding_names=output_names,
    )


def builder_config(interpreter: Any) -> Any:
    """Returns an ``IBuilderConfig`` with the interpreter's settings."""
    return interpreter._populate_trt_builder_config()


def construct_network(interpreter: Any) -> None:
    """Converts every node of the interpreter's partition into its network."""
    interpreter._construct_trt_network_def()


def node_at_fault(interpreter: Any) -> torch.fx.Node | None:
    """Returns the node whose converter raised in :func:`construct_network`; None if it was not an operator's."""
    node: torch.fx.Node | None = interpreter._cur_node
    return node if node is not None and node.op == "call_function" else None


def named_nodes(ours: Any, text: str) -> list[torch.fx.Node]:
    """Returns the operators whose layers are named in a message of TensorRT.

    Args:
        ours: an interpreter from :func:`interpreter` with a constructed network.
        text: the message.
    """
    layers = enumerate(ours._layer_nodes)
    found = {node: None for i, node in layers if (name := network_of(ours).get_layer(i).name) and name in text}
    return [node for node in found if node.op == "call_function"]


@contextlib.contextmanager
def builder_errors() -> Iterator[list[str]]:
    """Collects the error messages that TensorRT reports within the block."""
    from torch_tensorrt.logging import _LOGGER

    messages: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    listener = Listener(logging.ERROR)
    _LOGGER.addHandler(listener)
    try:
        yield messages
    finally:
        _LOGGER.removeHandler(listener)


def words(messages: Sequence[str]) -> str:
    """Joins TensorRT's messages into one line of at most 300 characters."""
    texts = (text.removeprefix("IBuilder::buildSerializedNetwork: ") for text in messages)
    return textwrap.shorten("; ".join(dict.fromkeys(texts)), 300)


def converted_nodes(ours: Any) -> Iterator[tuple[torch.fx.Node, list[Any]]]:
    """Yields each node of a partition with the ``ITensor`` of each of its results; None for any other result.

    Args:
        ours: an interpreter from :func:`interpreter` with a constructed network.
    """
    import tensorrt

    for node, result in ours._node_results:
        results = result if isinstance(result, (list, tuple)) else [result]
        yield node, [item if isinstance(item, tensorrt.ITensor) else None for item in results]


def network_of(interpreter: Any) -> Any:
    """Returns an interpreter's ``INetworkDefinition``."""
    return interpreter.ctx.net


def binding_names(interpreter: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the names of the input and the output bindings, in the order of the partition."""
    return tuple(interpreter._input_names), tuple(interpreter._output_names)


def aliased_io(interpreter: Any) -> tuple[AliasedIO, ...]:
    """Returns the outputs that share an input's memory."""
    return tuple(AliasedIO(out, name, kind) for out, (name, kind) in interpreter._aliased_io.items())


def requires_output_allocator(interpreter: Any) -> bool:
    """Returns whether sizes of the engine's outputs depend on values."""
    return bool(interpreter.ctx.requires_output_allocator)


def weights_size(interpreter: Any) -> int:
    """Returns the bytes of the network's weights."""
    weights = {weight.data_ptr(): weight.nbytes for weight in interpreter.ctx.cpu_weights_reference_holder}
    return sum(weights.values())


def release_weights(interpreter: Any) -> None:
    """Frees the host copies of the weights, which the interpreter keeps until the engine is built."""
    interpreter.ctx.clear_cpu_weights_reference_holder()


def engine_of_upstream_module(module: Any) -> tuple[EngineInfo, EngineSource, Any]:
    """Returns the engine info, the plan and the live engine of a ``TorchTensorRTModule``."""
    fields = module._pack_engine_info()
    plan = engine_from_buffer(fields[3])
    fields[3] = ""
    return EngineInfo.parse([str(field) for field in fields], where=f"engine {module.name}"), plan, module.engine
