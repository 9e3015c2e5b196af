"""What torch.export.load and Torch-TensorRT do with hostile files: the column "upstream" of docs/trust/attacks.md.

If one of these tests fails, upstream refuses the file now, and the table must state it.
"""

from __future__ import annotations

import io
import json
import os
import pickle  # writing only
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from tests.attacks.attacks import ATTACKS, enum_spec
from tests.conftest import ROOT

pytestmark = pytest.mark.xdist_group("upstream")

_MODEL, _WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"
_CONSTANTS = "data/constants/model_constants_config.json"
_LOAD = """
import sys, torch
for path in sys.argv[1:]:
    try:
        torch.export.load(path)
    except Exception as error:
        print(path, type(error).__name__, error)
"""

Entries = dict[str, bytes]


class _Payload:
    def __init__(self, mark: str) -> None:
        self._mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (self._mark,)


def _edited(entries: Entries, name: str, change: Callable[[Any], Any]) -> None:
    document = json.loads(entries[name])
    change(document)
    entries[name] = json.dumps(document).encode()


def _sizes(document: Any) -> list[Any]:
    return document["graph_module"]["graph"]["tensor_values"]["x"]["sizes"]


def pickled_sample_inputs(entries: Entries, mark: str) -> None:
    entries["data/sample_inputs/model.pt"] = pickle.dumps(_Payload(mark))


def pickled_weights(entries: Entries, mark: str) -> None:
    entries["data/weights/weight_0"] = pickle.dumps(_Payload(mark))
    _edited(entries, _WEIGHTS, lambda document: document["config"]["l.weight"].update(use_pickle=True))


def pickled_script_object(entries: Entries, mark: str) -> None:
    entries["data/constants/opaque_obj_0"] = pickle.dumps(_Payload(mark))
    payload = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    _edited(entries, _CONSTANTS, lambda document: document["config"].update(x=payload))


def graph_sympy_import(entries: Entries, mark: str) -> None:
    code = f"__import__('os').mkdir('{mark}')"
    _edited(entries, _MODEL, lambda document: _sizes(document).__setitem__(0, {"as_expr": {"expr_str": code}}))


def call_imports_a_module(entries: Entries, mark: str) -> None:
    module = Path(mark).name.replace("-", "_") + "_module"
    Path(mark).with_name(f"{module}.py").write_text(f"import os; os.mkdir({mark!r})")

    def change(document: Any) -> None:
        document["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = enum_spec(f"{module}:X")

    _edited(entries, _MODEL, change)


def graph_names_code_of_an_input(entries: Entries, mark: str) -> None:
    """Makes torch generate ``def forward(self, ..., x=__import__('os').mkdir(...))`` from the graph."""
    text = entries[_MODEL].decode()
    name = json.dumps(f"x=__import__('os').mkdir('{mark}')")
    entries[_MODEL] = (
        text.replace('{"name": "x"}', f'{{"name": {name}}}').replace('"x": {"dtype"', f'{name}: {{"dtype"').encode()
    )


RUN_BY_UPSTREAM = [
    pickled_sample_inputs,
    pickled_weights,
    pickled_script_object,
    graph_sympy_import,
    call_imports_a_module,
    graph_names_code_of_an_input,
]


@pytest.fixture(scope="module")
def marks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which each attack that runs leaves a mark, and what upstream printed."""
    folder = tmp_path_factory.mktemp("upstream")
    program = torch.export.export(
        _Linear(), (torch.ones(3, 2),), dynamic_shapes=({0: torch.export.Dim("b", min=2, max=9)},)
    )
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    with zipfile.ZipFile(buffer) as file:
        good = {info.filename.partition("/")[2]: file.read(info) for info in file.infolist()}
    paths = []
    for attack in RUN_BY_UPSTREAM:
        entries = dict(good)
        attack(entries, str(folder / attack.__name__))
        paths.append(folder / f"{attack.__name__}.pt2")
        with zipfile.ZipFile(paths[-1], "w") as file:
            for name, data in entries.items():
                file.writestr(f"archive/{name}", data)
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, *map(str, paths)],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    return folder, done.stdout + done.stderr[-2000:]


def test_upstream_loads_a_damaged_weight(tmp_path: Path) -> None:
    """Upstream checks neither the zip's CRC nor anything else."""
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(_Linear(), (torch.ones(3, 2),)), buffer)
    data = bytearray(buffer.getvalue())
    with zipfile.ZipFile(buffer) as file:
        name = next(name for name in file.namelist() if name.endswith("data/weights/weight_0"))
        data[data.index(file.read(name))] ^= 1
    (tmp_path / "damaged.pt2").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "damaged.pt2") as file:
        assert file.testzip() == name
    torch.export.load(tmp_path / "damaged.pt2")


_BUILD_ENGINE = """
import torch
from toolchain.targets import Backend
from windows_side.loader.runtime_library import load_runtime
load_runtime(Backend.TENSORRT_RTX)
print("loaded", flush=True)
torch.classes.tensorrt.Engine(["10", "name"])
"""


@pytest.mark.skipif(os.name == "nt" or not torch.version.cuda, reason="Torch-TensorRT needs a CUDA build of torch")
def test_upstream_crashes_on_a_short_field_list() -> None:
    pytest.importorskip("tensorrt_rtx")
    done = subprocess.run([sys.executable, "-c", _BUILD_ENGINE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode < 0) == ("loaded", True), done.stderr


class _Linear(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.l = torch.nn.Linear(2, 2)

    def forward(self, x: Any) -> Any:
        return self.l(x)


@pytest.mark.parametrize("attack", RUN_BY_UPSTREAM, ids=lambda attack: attack.__name__)
def test_upstream_runs_it(marks: tuple[Path, str], attack: Callable[[Entries, str], None]) -> None:
    folder, printed = marks
    assert (folder / attack.__name__).is_dir(), printed


def test_we_have_an_attack_of_each_kind() -> None:
    assert {attack.__name__ for attack in RUN_BY_UPSTREAM} <= set(ATTACKS)
