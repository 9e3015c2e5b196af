"""The names of bindings of all engines in an artifact, for graphs that are partitioned by hand; nothing is built."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")
import torch

from linux_side.lowering.binding_names import name_bindings


def _part(inputs: list[str], body: Callable[..., Any]) -> Any:
    graph = torch.fx.Graph()
    graph.output(body(graph, *(graph.placeholder(name) for name in inputs)))
    return torch.fx.GraphModule(torch.nn.Module(), graph)


def _doubled(graph: Any, *values: Any) -> Any:
    return graph.call_function(torch.ops.aten.add.Tensor, (values[0], values[-1]))


def _cloned(graph: Any, value: Any) -> Any:
    return graph.call_function(torch.ops.aten.clone.default, (value,))


def _reshaped(graph: Any, value: Any) -> Any:
    return graph.call_function(torch.ops.aten.view.default, (value, [-1]))


def _parted(middle: Any, inputs: list[str], *taken: str) -> dict[str, tuple[tuple[str, ...], str]]:
    """Names the bindings of two engines with a part in PyTorch between them.

    Args:
        middle: what PyTorch computes from the first engine's output.
        inputs: the names of the second engine's inputs in its own graph.
        taken: the values that they are: the model's input ``x``, the first engine's ``h`` or the middle's ``m``.

    Returns:
        The inputs and the first output of each engine.
    """
    root = torch.nn.Module()
    root.add_module("_run_on_acc_0", _part(["x"], lambda graph, x: (_doubled(graph, x), x)))
    root.add_module("_run_on_gpu_1", middle)
    root.add_module("_run_on_acc_2", _part(inputs, _doubled))
    graph = torch.fx.Graph()
    values = {"x": graph.placeholder("x")}
    first = graph.call_module("_run_on_acc_0", (values["x"],))
    values["h"] = graph.call_function(operator.getitem, (first, 0))
    values["m"] = graph.call_module("_run_on_gpu_1", (values["h"],))
    graph.output(graph.call_module("_run_on_acc_2", tuple(values[name] for name in taken)))
    found = name_bindings(torch.fx.GraphModule(root, graph))
    return {name: (names.inputs, names.outputs[0]) for name, names in found.items()}


def test_a_value_keeps_its_name_in_a_later_engine() -> None:
    found = _parted(_part(["h"], _reshaped), ["x", "getitem", "view"], "x", "h", "m")
    assert found["_run_on_acc_0"] == (("x",), "output0")
    assert found["_run_on_acc_2"] == (("x", "output0", "view"), "engine1_output0")


def test_a_view_that_changes_nothing_is_its_value() -> None:
    assert _parted(_part(["h"], _cloned), ["clone"], "m")["_run_on_acc_2"][0] == ("output0",)


def test_no_engine_has_one_name_twice() -> None:
    inputs, _ = _parted(_part(["h"], _cloned), ["h", "clone"], "h", "m")["_run_on_acc_2"]
    assert inputs == ("output0", "clone")


def test_a_name_that_another_value_has_gets_the_engines_number() -> None:
    """The second engine has the first one's names of an input and of an output for other values."""
    inputs, output = _parted(_part(["h"], _reshaped), ["x", "output1"], "m", "x")["_run_on_acc_2"]
    assert inputs == ("engine1_x", "x")
    assert output == "engine1_output0"


def test_an_input_that_is_called_as_an_output_leaves_the_output_another_name() -> None:
    root = torch.nn.Module()
    root.add_module("_run_on_acc_0", _part(["output0"], _doubled))
    graph = torch.fx.Graph()
    graph.output(graph.call_module("_run_on_acc_0", (graph.placeholder("output0"),)))
    [names] = name_bindings(torch.fx.GraphModule(root, graph)).values()
    assert (names.inputs, names.outputs[0]) == (("output0",), "engine0_output0")
