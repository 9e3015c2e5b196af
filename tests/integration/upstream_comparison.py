"""Makes the table in docs/build/upstream.md: each graph is built by Torch-TensorRT 2.14's own path and by ours.

    python -m tests.integration.upstream_comparison [NAME ...]

Upstream's ``compile_module`` and legacy exporter run unchanged on a machine without a GPU, except for what needs one:
the current device has a number and a name, engines are built without being loaded, PyTorch parts stay on the CPU, and
``set_output_tensors_as_unowned`` does nothing (unchanged, it fails for every model whose engine output is a graph
output). Upstream's own exporter for this path, which is not the legacy one, fails for every model with an input, so it
is not run. The saved program is loaded again and run like ours: each engine by the partition from which it was built.
"""

from __future__ import annotations

import copy
import io
import logging
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch.utils import _pytree as pytree

from linux_side import upstream
from linux_side.frontend.source import export_source
from linux_side.options import BuildOptions, DynamicDimension
from tests.integration.graphs import GRAPHS, Graph
from tests.integration.harness import imported_builder
from tests.integration.test_graphs import assert_right, build_graph
from tests.integration.test_graphs_upstream import UPSTREAM

PLACEHOLDER = "tensorrt.no_op_placeholder_for_execute_engine.default"


class Interpreter(torch.fx.Interpreter):
    """An interpreter that runs placeholder nodes by their partitions."""

    def __init__(self, gm: torch.fx.GraphModule, partitions: dict[str, torch.fx.GraphModule]) -> None:
        super().__init__(gm)
        self._partitions = partitions

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if str(target) != PLACEHOLDER:
            return super().call_function(target, args, kwargs)
        result = self._partitions[args[2]](*args[0])
        return list(result) if isinstance(result, (tuple, list)) else [result]


@contextmanager
def _without_a_gpu(partitions: dict[str, torch.fx.GraphModule]) -> Iterator[None]:
    from torch_tensorrt.dynamo import _compiler
    from torch_tensorrt.dynamo.conversion._conversion import extract_symbolic_shape_expressions
    from torch_tensorrt.dynamo.runtime import TorchTensorRTModule

    builder = imported_builder()
    options = BuildOptions()

    def convert(submodule: Any, inputs: Any, settings: Any, name: str, engine_cache: Any) -> Any:
        partitions[f"{name}_engine"] = copy.deepcopy(submodule)
        shapes = extract_symbolic_shape_expressions(submodule)
        interpreter = upstream.interpreter(submodule, inputs, settings)
        upstream.construct_network(interpreter)
        plan = builder.build(interpreter, options.target, options.capabilities)
        ins, outs = upstream.binding_names(interpreter)
        settings.enable_cross_compile_for_windows = True  # only so that the engine is not loaded here
        return TorchTensorRTModule(
            bytes(plan), list(ins), list(outs), name=name, settings=settings, symbolic_shape_expressions=shapes
        )

    with (
        mock.patch.object(_compiler, "convert_module", convert),
        mock.patch.object(_compiler, "to_torch_device", lambda _: torch.device("cpu")),
        mock.patch.object(torch.cuda, "current_device", lambda: 0),
        mock.patch.object(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(major=8, minor=6, name="A")),
        mock.patch.object(TorchTensorRTModule, "set_output_tensors_as_unowned", lambda *_: None),
    ):
        yield


def upstream_program(graph: Graph) -> tuple[Any, dict[str, torch.fx.GraphModule]]:
    """Returns the program of upstream's legacy exporter, and each engine's partition by the engine's name."""
    from torch_tensorrt.dynamo import _compiler
    from torch_tensorrt.dynamo._exporter import export

    options = dict(graph.options)
    parsed = BuildOptions(dynamic=[DynamicDimension.parse(text) for text in options.pop("dynamic", ())], **options)
    program = export_source("test", graph.model(), graph.args, graph.kwargs, parsed).program
    names = [f"torch.ops.{name}" for name in parsed.torch_executed_ops]
    settings = upstream.compilation_settings(
        min_block_size=1,
        torch_executed_ops=names,
        workspace_size=0,
        disable_tf32=False,
        hardware_compatible=False,
        cross_compile_for_windows=False,
    )
    decomposed = upstream.decompose(program, settings, dict, torch.export.ExportedProgram.run_decompositions)
    gm = upstream.lower(decomposed.module(), settings)
    partitions: dict[str, torch.fx.GraphModule] = {}
    with _without_a_gpu(partitions):
        compiled = _compiler.compile_module(gm, [], {}, settings, graph_signature=decomposed.graph_signature)
        exported = export(
            compiled,
            arg_inputs=graph.args,
            kwarg_inputs=graph.kwargs,
            cross_compile_module=True,
            use_legacy_exporter=True,
        )
    return exported, partitions


def upstream_path(graph: Graph) -> None:
    """Builds a graph by upstream's cross-compile path, and compares it with the original model."""
    exported, partitions = upstream_program(graph)
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    _compare(graph, torch.export.load(file), partitions)


def _compare(graph: Graph, program: Any, partitions: dict[str, torch.fx.GraphModule]) -> None:
    flat = program.module(check_guards=False)
    flat.graph.set_codegen(torch.fx.graph.CodeGen())
    model = graph.model()
    for args, kwargs in graph.all_calls():
        ours, theirs = copy.deepcopy((args, kwargs)), copy.deepcopy((args, kwargs))
        want = model(*theirs[0], **theirs[1])
        leaves = program._get_flat_args_with_check(*ours)[0]
        got = [*Interpreter(flat, partitions).run(*leaves, enable_io_processing=False), *pytree.tree_leaves(ours)]
        expected = [*pytree.tree_leaves(want), *pytree.tree_leaves(theirs)]  # a model may write into its inputs
        if len(got) != len(expected):
            raise ValueError(f"{len(got)} outputs for {len(expected)}")
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
        if program.call_spec.out_spec != pytree.tree_structure(want):
            raise ValueError("the outputs' structure is lost")
    if graph.options.get("dynamic") and not program.range_constraints:
        raise ValueError("the ranges are lost")


def our_path(graph: Graph) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert_right(build_graph(graph, Path(folder)), graph)


def _outcome(path: Any, graph: Graph) -> str:
    try:
        with torch.no_grad():
            path(graph)
    except Exception as error:  # noqa: BLE001 - the error is the row's content
        words = " ".join(str(error).split()).replace("|", "/")
        return f"{type(error).__name__}: {words[:110]}"
    return "right"


def main() -> None:
    logging.disable(logging.CRITICAL)
    imported_builder()
    wanted = sys.argv[1:]
    print("| graph | Torch-TensorRT 2.14 | trtcross |\n|---|---|---|")
    for name, graph in {**GRAPHS, **UPSTREAM}.items():
        if not wanted or name in wanted:
            print(f"| {name} | {_outcome(upstream_path, graph)} | {_outcome(our_path, graph)} |", flush=True)


if __name__ == "__main__":
    main()
