"""The exporter: a compiled GraphModule in, an exported program out. Torch-TensorRT's own is never called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pybase64
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputSpec

from linux_side.exporter.engine_module import CompiledEngine
from linux_side.exporter.inline_engines import EngineCall, inline_engines
from linux_side.exporter.inline_torch import inline_torch_modules
from linux_side.exporter.program import CallStructure, call_structure, create_program
from linux_side.fx.graph_copy import copy_graph_module, has_attribute
from linux_side.fx.values import annotate_calls
from toolchain.errors import BuildFailedError
from toolchain.names import unique_name

EngineField = Callable[[CompiledEngine, int], str]


def export(
    gm: torch.fx.GraphModule,
    *,
    cross_compile: bool = False,
    structure: CallStructure | None = None,
    range_constraints: Mapping[Any, Any] | None = None,
    original: Mapping[str, InputSpec] | None = None,
    engine_field: EngineField | None = None,
    allow_no_engine: bool = False,
) -> ExportedProgram:
    """Exports a compiled module; the module itself is not changed.

    Args:
        gm: as ``torch_tensorrt.dynamo`` compiled it, or as our own build did: a graph that calls engine
            submodules and PyTorch submodules.
        cross_compile: False gives ``execute_engine`` nodes and engines as custom objects (live mode); True gives
            placeholder nodes with the engine as base64 (cross mode).
        structure: pytree specs in and out, where ``gm`` does not carry its own.
        range_constraints: the original program's, where known.
        original: the original program's input specs by target, which know each buffer's persistence.
        engine_field: what a placeholder node holds instead of base64: a token, where the engine is streamed later.
        allow_no_engine: make a plain program of a module without engines.

    Raises:
        BuildFailedError: the module holds no engine, or one that was never set up in live mode.
    """
    structure = structure or call_structure(gm)
    call = placeholder_call(engine_field or engine_base64) if cross_compile else execute_call
    transformed = transform(gm, call, allow_no_engine=allow_no_engine)
    return create_program(transformed, structure, range_constraints, original)


def transform(gm: torch.fx.GraphModule, call: EngineCall, *, allow_no_engine: bool = False) -> torch.fx.GraphModule:
    """Inlines engine submodules, then PyTorch submodules, then cleans and checks the graph; works on a copy."""
    gm = copy_graph_module(gm)
    annotate_calls(gm)
    if not inline_engines(gm, call) and not allow_no_engine:
        raise BuildFailedError(
            "there is no TensorRT engine in this graph",
            where="export",
            remedy="save it with torch.export.save: it needs no TensorRT to run",
        )
    inline_torch_modules(gm)
    gm.graph.eliminate_dead_code()
    gm.delete_all_unused_submodules()
    gm.graph.lint()
    gm.recompile()
    return gm


def placeholder_call(engine_field: EngineField) -> EngineCall:
    """Cross mode: the engine info, the engine as text, in a call of the placeholder operator."""
    count = 0

    def call(gm: torch.fx.GraphModule, inputs: Sequence[torch.fx.Node], engine: CompiledEngine) -> torch.fx.Node:
        nonlocal count
        engine.info.check_names()
        fields = engine.info.fields(engine_field(engine, count))
        count += 1
        operator = torch.ops.tensorrt.no_op_placeholder_for_execute_engine.default
        return gm.graph.call_function(operator, (list(inputs), *fields))

    return call


def execute_call(gm: torch.fx.GraphModule, inputs: Sequence[torch.fx.Node], engine: CompiledEngine) -> torch.fx.Node:
    """Live mode: the engine as an attribute, read by a ``get_attr`` node."""
    if engine.live is None:
        raise BuildFailedError(
            f"the engine {engine.info.name} was not set up, so it cannot be exported live",
            where="export",
            remedy="compile on a machine with a GPU, or export with cross_compile=True",
        )
    name = unique_name(engine.info.name, partial(has_attribute, gm))
    setattr(gm, name, engine.live)
    node = gm.graph.get_attr(name)
    return gm.graph.call_function(torch.ops.tensorrt.execute_engine.default, (list(inputs), node))


def engine_base64(engine: CompiledEngine, index: int) -> str:
    """The engine as base64 text, whole in memory."""
    return pybase64.b64encode(b"".join(bytes(chunk) for chunk in engine.plan.chunks())).decode("ascii")
