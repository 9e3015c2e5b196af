"""Our own reader of an artifact's graph reads the same as torch.export, and refuses contradictory graphs."""

from __future__ import annotations

import copy
import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tensorrt_rtx")

from tests.conftest import ROOT  # noqa: E402
from tests.unit.programs import assert_same_program  # noqa: E402
from toolchain import open_artifact  # noqa: E402
from toolchain.errors import MalformedArtifactError  # noqa: E402
from toolchain.targets import Backend  # noqa: E402
from windows_side.execution.flat_program import FlatProgram, flat_program  # noqa: E402
from windows_side.loader import flat as flat_module  # noqa: E402
from windows_side.loader.graph_operators import UnknownFormError, operator_of  # noqa: E402
from windows_side.loader.graph_reader import read_graph  # noqa: E402
from windows_side.loader.loading import load_flat, load_program  # noqa: E402
from windows_side.loader.runtime_library import load_runtime  # noqa: E402

CPU = torch.device("cpu")
FOLDER = ROOT / "tests" / "compatibility" / "schema1"
NAMES = sorted(path.stem for path in FOLDER.glob("*.pt2"))


@pytest.fixture(scope="module", autouse=True)
def runtime() -> None:
    if not torch.version.cuda:
        pytest.skip("Torch-TensorRT needs a CUDA build of torch")
    load_runtime(Backend.TENSORRT_RTX)


def stand_in(fields: list[str | bytes]) -> Any:
    return torch.tensor(len(fields[3]))


def read(name: str) -> FlatProgram:
    with open_artifact(FOLDER / f"{name}.pt2") as artifact:
        return load_flat(artifact, CPU, None, stand_in)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_what_torch_reads(name: str) -> None:
    with open_artifact(FOLDER / f"{name}.pt2") as artifact:
        theirs = flat_program(load_program(artifact, CPU, None, stand_in))
    assert_same_program(read(name), theirs)


def test_engines_may_be_objects_of_torchs_classes() -> None:
    """On a GPU engines are such objects. Of Torch-TensorRT's classes only a cache can be made without a GPU."""
    with open_artifact(FOLDER / "mixed.pt2") as artifact:
        flat = load_flat(artifact, CPU, None, lambda _: torch.classes.tensorrt.RuntimeCacheHandle(""))
    names = [node.target for node in flat.module.graph.nodes if node.op == "get_attr"]
    held = [flat_module.attribute_of(flat.module, str(name)) for name in names]
    assert all(any(value is engine for value in held) for engine in flat.engines)
    program = flat.exported()
    assert {id(value) for value in program.constants.values()} == {id(engine) for engine in flat.engines}


PROGRAM = """
import sys, torch
from toolchain import open_artifact
from toolchain.targets import Backend
from windows_side.execution.model import LoadedModel
from windows_side.loader.loading import load_flat
from windows_side.loader.runtime_library import load_runtime
load_runtime(Backend.TENSORRT_RTX)
reached = []
for owner, name in ((torch, "load"), (torch.export, "load")):
    setattr(owner, name, lambda *_, name=name: reached.append(name))
for path in sys.argv[1:]:
    with open_artifact(path) as artifact:
        LoadedModel(load_flat(artifact, torch.device("cpu"), None, lambda fields: torch.tensor(0)), artifact.manifest,
                    torch.device("cpu"))
print([name for name in ("sympy", "torch._export.serde.serialize", "torch.fx.experimental.symbolic_shapes",
                         "torch_tensorrt") if name in sys.modules], reached)
"""


def test_torchs_reader_is_neither_imported_nor_called() -> None:
    paths = [str(FOLDER / f"{name}.pt2") for name in NAMES if name != "foreign"]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *paths], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[] []", done.stdout + done.stderr


def test_the_exported_program_is_made_later_of_the_same_tensors_and_engines() -> None:
    flat = read("mixed")
    program = flat.exported()
    held = {**program.state_dict, **program.constants}
    engines = [value for value in held.values() if any(value is engine for engine in flat.engines)]
    assert len(engines) == len(flat.engines) > 1
    others = {name: value for name, value in held.items() if name not in dict.fromkeys(engines)}
    assert others and all(value is flat_module.attribute_of(flat.module, name) for name, value in others.items())
    assert_same_program(flat_program(program), flat)


def test_what_is_not_read_here_is_read_by_torch_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ours = read("mixed")

    def refuse(*_: object, **__: Any) -> None:
        raise UnknownFormError("a value of the kind 'as_graph'")

    monkeypatch.setattr(flat_module, "read_graph", refuse)
    with caplog.at_level(logging.INFO, "trtcross.load"):
        theirs = read("mixed")
    assert "mixed.pt2 is read by torch.export: a value of the kind 'as_graph'" in caplog.text
    assert_same_program(ours, theirs)


@pytest.mark.parametrize(
    "name",
    [
        *("torch.ops.aten.add.op", "torch.ops.aten.add.schemas", "torch.ops.aten.nothing.default", "torch.os.system"),
        *("torch.ops.higher_order.cond", "_operator.methodcaller", "torch.ops.aten.from_file.default", "torch.load"),
        *("torch.ops.load_library.__globals__.clear", "torch.ops.aten.__class__.__base__", "", "math.__loader__"),
    ],
)
def test_only_operators_are_found(name: str) -> None:
    with pytest.raises(UnknownFormError):
        operator_of(name)


Change = Callable[[dict[str, Any]], Any]


def _node(document: dict[str, Any], index: int) -> dict[str, Any]:
    node: dict[str, Any] = document["graph_module"]["graph"]["nodes"][index]
    return node


def _argument(index: int, value: Any, at: int = 0) -> Change:
    return lambda document: _node(document, index)["inputs"][at].update(arg=value)


def _spec(*path: Any, **values: Any) -> Change:
    def change(document: dict[str, Any]) -> None:
        place = document["graph_module"]
        for key in path:
            place = place[key]
        place.update(values)

    return change


def _named(name: str, **arg: Any) -> dict[str, Any]:
    return {"name": name, "arg": arg, "kind": 1 if name in ("self", "dim", "start", "end") else 2}


# Nodes after those of the artifact: a size, and an operator of numbers.
MORE = [
    {
        "target": "torch.ops.aten.sym_size.int",
        "inputs": [_named("self", as_tensor={"name": "x"}), _named("dim", as_int=0)],
        "outputs": [{"as_sym_int": {"as_name": "sym_size_int"}}],
        "metadata": {},
        "name": "sym_size_int",
    },
    {
        "target": "torch.ops.aten.arange.start_step",
        "inputs": [
            _named("start", as_int=0),
            _named("end", as_sym_int={"as_name": "sym_size_int"}),
            _named("dtype", as_scalar_type=7),
            _named("layout", as_layout=7),
            _named("device", as_device={"type": "cuda", "index": 0}),
        ],
        "outputs": [{"as_tensor": {"name": "arange"}}],
        "metadata": {},
        "name": "arange",
    },
]
CUMSUM, MUL, SIZE, ARANGE = 1, 2, 4, 5
WRONG: dict[str, Change] = {
    "a value before it is there": _argument(CUMSUM, {"as_tensor": {"name": "mul"}}),
    "a value of no kind": _argument(SIZE, {}),
    "a value of two kinds": _argument(SIZE, {"as_int": 1, "as_float": 1.0}),
    "a number that is a text": _argument(ARANGE, {"as_int": "0"}),
    "a number that is true": _argument(ARANGE, {"as_int": True}),
    "a dtype that is none": _argument(ARANGE, {"as_scalar_type": 99}, at=2),
    "an argument twice": lambda document: _node(document, SIZE)["inputs"].append(_node(document, SIZE)["inputs"][0]),
    "an argument too few": lambda document: _node(document, SIZE)["inputs"].pop(),
    "an argument of no schema": lambda document: _node(document, SIZE)["inputs"][1].update(name="evil"),
    "two values of one name": lambda document: _node(document, MUL).update(outputs=[{"as_tensor": {"name": "x"}}]),
    "an input that is code": _spec("graph", "inputs", 2, as_tensor={"name": "x=print(1)"}),
    "an input of another name": _spec("signature", "input_specs", 2, user_input={"arg": {"as_tensor": {"name": "y"}}}),
    "an input too few": lambda document: document["graph_module"]["graph"]["inputs"].pop(),
    "an output of another name": _spec(
        "signature", "output_specs", 0, user_output={"arg": {"as_tensor": {"name": "x"}}}
    ),
    "two inputs of one weight": lambda document: [
        document["graph_module"][place][key].insert(0, document["graph_module"][place][key][0])
        for place, key in (("graph", "inputs"), ("signature", "input_specs"))
    ],
    "engines in another order": lambda document: document["graph_module"]["graph"]["nodes"].reverse(),
    "no call": lambda document: document["graph_module"].update(module_call_graph=[]),
}
UNKNOWN: dict[str, Change] = {
    "a graph as argument": _argument(MUL, {"as_graph": {"name": "g", "graph": {}}}),
    "a sparse tensor": _argument(ARANGE, {"as_layout": 1}, at=3),
    "an operator of nobody": lambda document: _node(document, SIZE).update(target="torch.ops.mine.own.default"),
    "a token": lambda document: document["graph_module"]["signature"]["input_specs"].__setitem__(2, {"token": {}}),
    "an argument by no kind": lambda document: _node(document, SIZE)["inputs"][0].update(kind=None),
}


def _reads(change: Change) -> None:
    with open_artifact(FOLDER / "mixed.pt2") as artifact:
        document = artifact.graph()
        document["graph_module"]["graph"]["nodes"] += copy.deepcopy(MORE)
        change(document)
        read_graph(document, [engine.token for engine in artifact.engines], CPU, where="test")


def test_the_graph_that_is_changed_here_is_read() -> None:
    _reads(lambda document: None)


@pytest.mark.parametrize("what", WRONG)
def test_what_contradicts_itself_is_refused(what: str) -> None:
    with pytest.raises((LookupError, TypeError, ValueError, AttributeError)):
        _reads(WRONG[what])


@pytest.mark.parametrize("what", UNKNOWN)
def test_what_torch_may_write_is_left_to_torch(what: str) -> None:
    with pytest.raises(UnknownFormError):
        _reads(UNKNOWN[what])


def test_an_engine_s_name_is_no_code() -> None:
    """An engine's name becomes an attribute of the module, which torch writes into Python source."""
    evil = 'a"), __import__("os").system("echo hurt"), ("'
    with open_artifact(FOLDER / "mixed.pt2") as artifact:
        document = artifact.graph()
        for node in document["graph_module"]["graph"]["nodes"]:
            if "no_op_placeholder" in node["target"]:
                node["inputs"][2]["arg"]["as_string"] = evil
        read = read_graph(document, [engine.token for engine in artifact.engines], CPU, where="test")
    assert len(set(read.engines)) == 2 and all(name.isidentifier() for name in read.engines)


def test_a_graph_that_contradicts_itself_is_a_damaged_artifact(monkeypatch: pytest.MonkeyPatch) -> None:
    def contradict(*_: object, **__: Any) -> None:
        raise KeyError("nodes")

    monkeypatch.setattr(flat_module, "read_graph", contradict)
    with pytest.raises(MalformedArtifactError, match=r"the graph cannot be read: 'nodes'"):
        read("mixed")
