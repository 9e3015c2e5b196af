"""Placeholder nodes of a program that stock torch has loaded become ``execute_engine`` nodes; and live mode."""

from __future__ import annotations

import copy
import dataclasses
import operator
import subprocess
import sys
from pathlib import Path
from typing import Any

import pybase64
import pytest
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from examples import models
from linux_side import export
from linux_side.exporter.engine_module import EngineModule
from linux_side.lowering.convert import convert_partitions
from linux_side.lowering.lower import lower_program, partition_graph
from linux_side.options import BuildOptions
from tests.integration.harness import Built, build_here, imported_builder
from toolchain.errors import BuildFailedError, MalformedArtifactError
from toolchain.graph.document import nodes
from windows_side import replace_execute_engine_no_op_node

pytestmark = [pytest.mark.rtx, pytest.mark.xdist_group("replace")]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    module, args = models.mixed()
    options = {"torch_executed_ops": ["aten.arange.start_step", "aten.full.default"]}
    return build_here(module, args, folder=tmp_path_factory.mktemp("mixed"), dynamic=("x.0=1:4:8",), **options)


@pytest.fixture
def stock(built: Built) -> ExportedProgram:
    """Reads the artifact by stock torch, with torch_tensorrt imported."""
    program = torch.export.load(built.artifact.path)
    return torch.export.passes.move_to_device_pass(program, "cpu")


def test_a_size_is_no_operator_that_stays_in_pytorch(built: Built) -> None:
    artifact = built.artifact
    targets = [str(node.get("target")) for node in nodes(artifact.graph())]
    kept = {item.operator: item.count for item in artifact.manifest.fallback}
    assert "torch.ops.aten.sym_size.int" in targets
    assert kept == {
        "aten.arange.start_step": 1,
        "aten.full.default": 1,
        "aten.igamma.default": 1,
        "aten.nextafter.default": 2,
    }
    coverage = artifact.manifest.coverage
    assert coverage.operators == (coverage.in_engines or 0) + sum(kept.values())


class StandIns(torch.fx.Interpreter):
    """Calls a stand-in where the operator would call an engine, which needs a GPU."""

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target is not torch.ops.tensorrt.execute_engine.default:
            return super().call_function(target, args, kwargs)
        inputs, engine = args
        result = engine(*inputs)
        return list(result) if isinstance(result, (tuple, list)) else [result]


def run_program(program: ExportedProgram, leaves: list[Any]) -> list[Any]:
    """Returns the program's outputs for the leaves of a call."""
    state, user = {**program.constants, **program.state_dict}, iter(leaves)
    values = [
        next(user) if spec.kind is InputKind.USER_INPUT else state[spec.target]
        for spec in program.graph_signature.input_specs
    ]
    with torch.no_grad():
        return list(StandIns(program.graph_module).run(*values, enable_io_processing=False))


def placeholder_nodes(program: ExportedProgram) -> list[torch.fx.Node]:
    operator_ = torch.ops.tensorrt.no_op_placeholder_for_execute_engine.default
    return [node for node in program.graph.nodes if node.target is operator_]


def test_engines_in_the_place_of_placeholder_nodes(built: Built, stock: ExportedProgram) -> None:
    decoded: dict[str, bytes] = {}

    def stand_in(fields: list[str | bytes]) -> Any:
        assert isinstance(fields[3], bytes)
        decoded[str(fields[1])] = fields[3]
        return built.partitions[str(fields[1])]

    replaced = replace_execute_engine_no_op_node(stock, engine_factory=stand_in)
    assert decoded == {engine.name: engine.read() for engine in built.artifact.engines}
    assert not placeholder_nodes(replaced) and placeholder_nodes(stock), "the caller's program stays as it was"
    x = torch.randn(3, 16)
    assert torch.equal(run_program(replaced, [x])[0], built.expected(x)[0])
    engines = [spec for spec in replaced.graph_signature.input_specs if spec.kind is InputKind.CUSTOM_OBJ]
    assert {spec.target for spec in engines} <= set(replaced.constants), "lifted, so that it can be saved again"
    for node in replaced.graph.nodes:
        if node.target is operator.getitem:
            assert node.meta["val"].shape == node.args[0].meta["val"][node.args[1]].shape


def test_nodes_are_found_by_operator_and_engines_get_free_names(built: Built, stock: ExportedProgram) -> None:
    for number, node in enumerate(placeholder_nodes(stock)):
        node.name = f"anything_{number}"
        node.args = (*node.args[:2], "scale", *node.args[3:])  # the name of a parameter, and the same for all
    replaced = replace_execute_engine_no_op_node(stock, engine_factory=lambda fields: torch.nn.Identity())
    engines = [s.target for s in replaced.graph_signature.input_specs if s.kind is InputKind.CUSTOM_OBJ]
    assert engines == ["scale_1", "scale_2", "scale_3"] and torch.is_tensor(replaced.state_dict["scale"])


def canonical(engine: str) -> str:
    raw = pybase64.b64decode(engine)
    return pybase64.b64encode(raw[: len(raw) // 3 * 3 - 1]).decode()  # ends in one '=' with two unused bits


BAD = {
    "not base64": lambda fields: [*fields[:3], "###" + str(fields[3])[3:], *fields[4:]],
    "line breaks": lambda fields: [*fields[:3], str(fields[3])[:76] + "\n" + str(fields[3])[76:], *fields[4:]],
    "not canonical": lambda fields: [*fields[:3], canonical(fields[3])[:-2] + "B=", *fields[4:]],
    "too few fields": lambda fields: fields[:-1],
    "ABI of the future": lambda fields: ["11", *fields[1:]],
    "no ABI": lambda fields: ["", *fields[1:]],
    "the field list of another ABI": lambda fields: ["9", *fields[1:]],
}


@pytest.mark.parametrize("damage", list(BAD))
def test_bad_engine_info_never_reaches_a_constructor(stock: ExportedProgram, damage: str) -> None:
    node = placeholder_nodes(stock)[0]
    node.args = (node.args[0], *BAD[damage](list(node.args[1:])))
    called: list[Any] = []
    with pytest.raises(MalformedArtifactError) as caught:
        replace_execute_engine_no_op_node(stock, engine_factory=called.append)
    assert node.name in str(caught.value) and not called


def test_a_program_without_placeholder_nodes_is_refused() -> None:
    program = torch.export.export(torch.nn.Linear(4, 2), (torch.randn(1, 4),))
    with pytest.raises(MalformedArtifactError, match="no placeholder node"):
        replace_execute_engine_no_op_node(program)


def compiled(tmp_path: Path) -> tuple[torch.fx.GraphModule, torch.nn.Module, tuple[Any, ...]]:
    """A compiled graph whose live engines are stand-ins, because real ones need a GPU to be set up."""
    module, args = models.two_outputs()
    partitions: dict[str, torch.fx.GraphModule] = {}
    options, builder = BuildOptions(), imported_builder()
    lowered = lower_program(torch.export.export(module, args), options, builder)
    partitioned = partition_graph(lowered, options, builder)

    def remember(name: str, partition: torch.fx.GraphModule) -> None:
        partitions[name] = copy.deepcopy(partition)  # conversion takes the weights out

    result = convert_partitions(partitioned, options, builder, [], tmp_path, remember)
    for name, partition in partitions.items():
        engine = result.gm.get_submodule(name).compiled
        result.gm.add_module(name, EngineModule(dataclasses.replace(engine, live=partition.forward)))
    return result.gm, module, args


def test_live_mode_puts_the_engine_itself_into_the_program(tmp_path: Path) -> None:
    gm, module, args = compiled(tmp_path)
    before = str(gm.graph)
    program = export(gm)
    got, want = run_program(program, list(args)), module(*args)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(got, want, strict=True))
    assert [s.kind for s in program.graph_signature.input_specs] == [InputKind.CUSTOM_OBJ, InputKind.USER_INPUT]
    assert str(gm.graph) == before, "the caller's module is untouched"


def test_cross_mode_of_the_library_holds_the_engine_as_base64(tmp_path: Path) -> None:
    gm, _, _ = compiled(tmp_path)
    (node,) = placeholder_nodes(export(gm, cross_compile=True))
    (engine,) = [m.compiled for m in gm.children() if isinstance(m, EngineModule)]
    assert pybase64.b64decode(node.args[4], validate=True) == b"".join(bytes(c) for c in engine.plan.chunks())


def test_live_mode_needs_engines_that_were_set_up(tmp_path: Path) -> None:
    gm, _, _ = compiled(tmp_path)
    for name, child in list(gm.named_children()):
        if isinstance(child, EngineModule):
            gm.add_module(name, EngineModule(dataclasses.replace(child.compiled, live=None)))
    with pytest.raises(BuildFailedError, match="was not set up"):
        export(gm)


_PEAK = """
import sys
from pathlib import Path
from toolchain.targets import Backend
from windows_side.loader.replace import make_engine
from windows_side.loader.runtime_library import load_runtime

def kilobytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

load_runtime(Backend.TENSORRT_RTX)
size = 64 * 2**20
fields = ["10", "engine", "0%8%0%0%gpu", b"x" * size, "x", "y", "1", "", "linux_x86_64", "0", "0", "0", ""]
Path("/proc/self/clear_refs").write_text("5")
before = kilobytes("VmRSS")
try:
    make_engine(fields)
except Exception as error:
    print(type(error).__name__)
print((kilobytes("VmHWM") - before) * 1024 / size)
"""


def test_one_copy_of_an_engine_is_made_on_its_way_to_the_constructor() -> None:
    """The constructor fails with and without a GPU, but only after it has copied its arguments."""
    result = subprocess.run([sys.executable, "-c", _PEAK], capture_output=True, text=True, timeout=120, check=True)
    name, engines = result.stdout.split()
    assert name == "MalformedArtifactError"
    assert float(engines) < 1.3
