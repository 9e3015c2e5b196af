"""The parts of a partitioned graph, the operators outside of engines, and Torch-TensorRT's settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch

from linux_side import upstream
from linux_side.backends.base import EngineBuilder
from linux_side.frontend.supported import torch_executed_names
from linux_side.lowering.culprit import operators_of
from linux_side.options import BuildOptions


def settings_of(options: BuildOptions, builder: EngineBuilder) -> Any:
    """Returns Torch-TensorRT's settings for a build."""
    return upstream.compilation_settings(
        min_block_size=options.min_block_size or 1,
        torch_executed_ops=torch_executed_names(options.torch_executed_ops),
        workspace_size=options.workspace,
        disable_tf32=not options.tf32,
        **builder.setting_overrides(options.target),
    )


def engine_parts(gm: torch.fx.GraphModule) -> Iterator[tuple[str, torch.fx.GraphModule]]:
    """Yields the name and the graph of each part that becomes an engine, in graph order."""
    for node in gm.graph.nodes:
        if node.op == "call_module" and node.target.startswith(upstream.ENGINE_PREFIX):
            yield node.target, gm.get_submodule(node.target)


def reasons_in_torch(gm: torch.fx.GraphModule) -> str:
    """Returns why operators were kept in PyTorch, as text to append to a message; empty if none were."""
    graphs = [module.graph for module in gm.modules() if isinstance(module, torch.fx.GraphModule)]
    kept = {str(node.target): why for graph in graphs for node in graph.nodes if (why := upstream.why_in_torch(node))}
    return f" ({'; '.join(f'{name}: {why}' for name, why in sorted(kept.items()))})" if kept else ""


def call_of(gm: torch.fx.GraphModule, name: str) -> torch.fx.Node:
    """Returns the node that calls a part."""
    return gm.graph.find_nodes(op="call_module", target=name)[0]


def operators_in_torch(gm: torch.fx.GraphModule) -> Counter[str]:
    """Counts the operators outside of engines by name."""
    return Counter(str(node.target) for node in nodes_in_torch(gm))


def nodes_in_torch(gm: torch.fx.GraphModule) -> list[torch.fx.Node]:
    """Returns the operators outside of engines."""
    graphs = [gm, *(gm.get_submodule(node.target) for node in gm.graph.nodes if _is_in_torch(node))]
    return [node for graph in graphs for node in graph_operators(graph)]


def _is_in_torch(call: torch.fx.Node) -> bool:
    return call.op == "call_module" and not call.target.startswith(upstream.ENGINE_PREFIX)


def graph_operators(gm: torch.fx.GraphModule) -> list[torch.fx.Node]:
    """Returns a graph's own operators, without functions that are not operators (``getitem``) and without sizes.

    Reading a size computes nothing, so it does not count for coverage.
    """
    return [node for node in operators_of(gm) if _is_operator(node.target)]


def _is_operator(target: Any) -> bool:
    return isinstance(target, torch._ops.OperatorBase) and target is not torch.ops.aten.sym_size.int
