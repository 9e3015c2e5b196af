"""Runs trials: lowers, converts and compares each with eager PyTorch, many in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils import _pytree as pytree

from linux_side import upstream
from linux_side.frontend.dynamic_shapes import profiles_for, program_guards
from linux_side.frontend.source import export_source
from linux_side.lowering import lower as lowering
from linux_side.lowering.lower import lower_program, partition_graph
from linux_side.lowering.network_check import check_network
from linux_side.lowering.parts import engine_parts, operators_in_torch, settings_of
from linux_side.options import BuildOptions, DynamicDimension
from tests.integration.harness import TOLERANCES, _assert_close, imported_builder
from tests.integration.network import Network, NetworkError, record
from tests.operators.trial import Draw, Trial
from toolchain.errors import TrtcrossError


class Operator(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *x: torch.Tensor) -> Any:
        return self.function(*x)


@dataclass
class Lowered:
    """A trial's lowered graph, and the network of each partition; None where the interpreter lacks a layer."""

    graph: torch.fx.GraphModule
    networks: dict[str, Network | None] = field(default_factory=dict)
    in_torch: bool = False


class NetworkModule(nn.Module):
    """A module that runs a network instead of its partition."""

    def __init__(self, network: Network, inputs: list[str], outputs: list[str], bare: bool) -> None:
        super().__init__()
        self.network, self.inputs, self.outputs, self.bare = network, inputs, outputs, bare

    def forward(self, *args: torch.Tensor) -> Any:
        found = self.network.run(dict(zip(self.inputs, args, strict=True)))
        results = tuple(found[name] for name in self.outputs)
        return results[0] if self.bare else results


def lower(trial: Trial, build: bool) -> Lowered:
    """Exports, lowers and converts a trial as a build does.

    Raises:
        TrtcrossError: the trial's model cannot be built.
    """
    ranges = [f"x_{index}.{dim}=2:4:8" for index, dim in enumerate(trial.dynamic) if dim is not None]
    options = BuildOptions(golden=0, dynamic=[DynamicDimension.parse(text) for text in ranges], allow_no_engine=True)
    builder = imported_builder()
    program = export_source("trial", Operator(trial.function).eval(), trial.calls[0], {}, options).program
    graph = lower_program(program, options, builder)
    lowered = Lowered(partition_graph(graph, options, builder))
    lowered.in_torch = bool(operators_in_torch(lowered.graph))
    profiles = profiles_for(program, options.dynamic, program_guards(program).sizes)
    for name, partition in list(engine_parts(lowered.graph)):
        builder.prepare(partition)
        inputs = upstream.partition_inputs(partition, profiles)
        interpreter = upstream.interpreter(partition, inputs, settings_of(options, builder))
        upstream.construct_network(interpreter)
        check_network(interpreter)
        try:
            lowered.networks[name] = network = record(upstream.network_of(interpreter))
        except NetworkError as error:
            lowered.networks[name] = network = None
            print("   no interpreter:", error)
        if build:
            builder.build(interpreter, options.target, options.capabilities)
        if network is not None:
            bare = not isinstance(partition.graph.output_node().args[0], (list, tuple))
            names = upstream.binding_names(interpreter)
            inputs, outputs = map(list, names)
            lowered.graph.add_module(name + "_network", NetworkModule(network, inputs, outputs, bare))
    return lowered


def call(lowered: Lowered, args: tuple[torch.Tensor, ...], by_network: bool) -> list[Any]:
    graph = lowered.graph
    for node in graph.graph.nodes:
        if node.op == "call_module":
            plain = node.target.removesuffix("_network")
            node.target = plain + "_network" if by_network and lowered.networks.get(plain) else plain
    copies = [arg.clone() for arg in args]
    with torch.no_grad():
        return pytree.tree_leaves(torch.fx.Interpreter(graph).run(*copies, enable_io_processing=False))


@dataclass
class Row:
    """The results of an operator's trials: numbers of inputs by result, and the first problem."""

    operator: str
    inputs: int = 0
    by_interpreter: int = 0
    by_partition: int = 0
    in_torch: int = 0
    refused: int = 0
    wrong: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, trial: Trial, build: bool) -> None:
        try:
            expected = [_eager(trial, args) for args in trial.calls]
        except Exception:  # noqa: BLE001 - PyTorch itself refuses the combination
            return
        try:
            lowered = lower(trial, build)
        except Exception as error:  # noqa: BLE001 - the table reports it
            self.inputs += len(trial.calls)
            self.refused += len(trial.calls)
            kind = "refused" if isinstance(error, TrtcrossError) else f"raised {type(error).__name__}"
            self.problems.append(f"{kind}: {trial.text}: {str(error).splitlines()[0][:200]}")
            return
        for args, want in zip(trial.calls, expected, strict=True):
            self.inputs += 1
            for by_network in (False, True):
                if by_network and (not lowered.networks or None in lowered.networks.values()):
                    continue
                try:
                    got = call(lowered, args, by_network)
                    _assert_close(got, want, _tolerance(lowered, want, args), "output")
                except Exception as error:  # noqa: BLE001 - as above
                    self.wrong += 1
                    way = "interpreter" if by_network else "partition"
                    self.problems.append(f"wrong by {way}: {trial.text}: {_line(error)} IN {[a.shape for a in args]}")
                    break
            if not lowered.networks:
                self.in_torch += 1
            elif None in lowered.networks.values():
                self.by_partition += 1
            else:
                self.by_interpreter += 1


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__} {error}".split())[:400]


def _eager(trial: Trial, args: tuple[torch.Tensor, ...]) -> list[Any]:
    with torch.no_grad():
        return pytree.tree_leaves(trial.function(*(arg.clone() for arg in args)))


def _tolerance(lowered: Lowered, want: list[Any], args: Any) -> float:
    dtypes = {slot.dtype for network in lowered.networks.values() if network for slot in network.slots}
    dtypes |= {leaf.dtype for leaf in (*want, *args) if isinstance(leaf, torch.Tensor)}
    return max((TOLERANCES[dtype] for dtype in dtypes if dtype in TOLERANCES), default=TOLERANCES[torch.float32])


def trials(make: Callable[[Draw], Trial], count: int) -> Iterator[Trial]:
    """Yields ``count`` trials, which are the same in each run."""
    found: list[Trial] = []

    @seed(0)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def collect(data: Any) -> None:
        found.append(make(Draw(data.draw)))

    collect()
    yield from found


def run_operator(name: str, make: Callable[[Draw], Trial], count: int, build: bool = False) -> Row:
    row = Row(name)
    for trial in trials(make, count):
        row.add(trial, build)
    return row


@contextmanager
def as_upstream_does() -> Iterator[None]:
    """Disables our corrections of decompositions and of conversion within a block."""
    with (
        mock.patch.object(lowering, "corrected", dict),
        mock.patch.object(lowering, "rewrite_attention", lambda gm: None),
        mock.patch.object(lowering, "keep_inexact_resizing_outside", lambda gm: None),
        mock.patch(f"{__name__}.check_network", lambda interpreter: None),
    ):
        yield
