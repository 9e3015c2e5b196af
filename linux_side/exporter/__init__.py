"""The exporter: turns a compiled GraphModule into an exported program. It replaces Torch-TensorRT's own exporter."""

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
    """Exports a compiled module. The module itself is not changed.

    Args:
        gm: a graph that calls engine submodules and PyTorch submodules, as ``torch_tensorrt.dynamo`` or our own build
            compiles it.
        cross_compile: True makes placeholder nodes with the engines in base64 (cross mode); False makes
            ``execute_engine`` nodes with the engines as custom objects (live mode).
        structure: the pytree specs of inputs and outputs; None for those of ``gm``.
        range_constraints: the original program's ranges of sizes; None for those of the inputs' shape environment.
        original: the original program's input specs by target, which record whether a buffer is persistent.
        engine_field: returns what a placeholder node contains instead of base64, such as a token for an engine that is
            written later.
        allow_no_engine: whether a module without engines becomes a plain program.

    Returns:
        The exported program.

    Raises:
        BuildFailedError: the module has no engine, or, in live mode, an engine that was not set up.
    """
    structure = structure or call_structure(gm)
    call = placeholder_call(engine_field or engine_base64) if cross_compile else execute_call
    transformed = transform(gm, call, allow_no_engine=allow_no_engine)
    return create_program(transformed, structure, range_constraints, original)


def transform(gm: torch.fx.GraphModule, call: EngineCall, *, allow_no_engine: bool = False) -> torch.fx.GraphModule:
    """Returns a copy of a compiled module with its engine and PyTorch submodules inlined, cleaned and checked.

    Args:
        gm: the compiled module.
        call: makes the call of an engine.
        allow_no_engine: whether a module without engines is allowed.

    Raises:
        BuildFailedError: the module has no engine.
    """
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
    """Returns what makes the calls of cross mode: the placeholder operator with engine info and the engine as text.

    Args:
        engine_field: returns the engine as text, given the engine and its index.
    """
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
    """Makes a call of live mode: the engine is an attribute of the module that a ``get_attr`` node reads.

    Raises:
        BuildFailedError: the engine was not set up.
    """
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
    """Returns the engine as base64 text."""
    return pybase64.b64encode(b"".join(bytes(chunk) for chunk in engine.plan.chunks())).decode("ascii")
