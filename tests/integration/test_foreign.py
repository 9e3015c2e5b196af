"""Foreign artifacts with real engines, saved by Torch-TensorRT's legacy exporter and stock torch."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click.testing
import pytest
import torch
from torch.utils import _pytree as pytree

from tests.integration.graphs import Graph
from tests.integration.harness import CPU, imported_builder, put_partitions
from tests.integration.test_stock_reader import READER
from tests.integration.upstream_comparison import upstream_program
from toolchain import open_artifact
from toolchain.cli.main import cli
from toolchain.engine.metadata_allowlist import unknown_in_pickle
from toolchain.errors import UntrustedError
from toolchain.targets import Backend
from windows_side.execution.model import LoadedModel
from windows_side.execution.samples import read_golden
from windows_side.loader.loading import load_flat, load_program
from windows_side.loader.runtime_library import load_runtime

pytestmark = [pytest.mark.rtx, pytest.mark.xdist_group("foreign")]

# The module that `--golden-from` names: the child process cannot import the classes of a test module.
FACTORY = """
import torch
class Original(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(4, 3), torch.nn.Linear(3, 3)
        self.register_buffer("scale", torch.tensor([2.0]))
    def forward(self, x, *, pair):
        y = self.first(x)
        return {"a": torch.relu(y) + pair[0], "b": [torch.sigmoid(self.second(y)).cumsum(0) * self.scale]}
def make():
    torch.manual_seed(0)
    return Original().eval(), (torch.randn(2, 4),), {"pair": (torch.randn(2, 3),)}
def other():
    return torch.nn.Linear(4, 3).eval(), (torch.randn(2, 4),)
"""


@dataclass
class Foreign:
    path: Path
    partitions: dict[str, torch.fx.GraphModule]
    graph: Graph


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Foreign:
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "originals.py").write_text(FACTORY)
    sys.path.insert(0, str(folder))
    import originals

    model, args, kwargs = originals.make()
    options = {
        "dynamic": ("x.0=1:2:8", "pair.0.0=1:2:8"),
        "torch_executed_ops": ["aten.cumsum.default", "aten.mul.Tensor"],
    }
    graph = Graph(lambda: model, args, kwargs, options=options)
    imported_builder()
    with torch.no_grad():
        program, partitions = upstream_program(graph)
    torch.export.save(program, folder / "foreign.pt2")
    return Foreign(folder / "foreign.pt2", partitions, graph)


def run(*arguments: str) -> tuple[int, dict[str, Any]]:
    result = click.testing.CliRunner().invoke(cli, [*arguments, "--json"])
    return result.exit_code, json.loads(result.stdout)


@pytest.fixture(scope="module")
def converted(foreign: Foreign) -> Path:
    out = foreign.path.with_name("converted.pt2")
    code, document = run(
        "convert", str(foreign.path), "-o", str(out), "--golden-from", "originals:make", "--golden", "2"
    )
    assert (code, document["foreign"]) == (0, True), document
    assert document["golden_inputs"] == "the original model's example"
    return out


def test_it_is_inspected_without_a_manifest(foreign: Foreign) -> None:
    code, document = run("inspect", str(foreign.path))
    assert (code, document["foreign"], document["plan_headers_agree"]) == (0, True, True)
    manifest = document["manifest"]
    assert [value["name"] for value in manifest["inputs"]] == ["x", "pair.0"]
    assert [value["name"] for value in manifest["outputs"]] == ["output.a", "output.b.0"]
    [size, four] = manifest["inputs"][0]["shape"]
    assert (size["min"], size["max"], four) == (1, 8, 4)
    assert manifest["target"]["runtime"].startswith("1.6.")
    assert manifest["settings"]["compilation_settings"]["enable_cross_compile_for_windows"] is True
    assert {item["operator"] for item in manifest["fallback"]} == {"aten.cumsum.default", "aten.mul.Tensor"}
    [engine] = manifest["engines"]
    assert [len(engine[side]) for side in ("inputs", "outputs", "profiles")] == [2, 2, 0]
    assert [binding["shape"] for binding in engine["inputs"]] == [[-1, 4], [-1, 3]]


def test_it_is_verified_to_structure(foreign: Foreign) -> None:
    assert run("verify", str(foreign.path), "--level", "structure")[0] == 0


def test_its_engines_are_those_that_upstream_would_decode(foreign: Foreign, converted: Path) -> None:
    with open_artifact(foreign.path) as before, open_artifact(converted) as after:
        program = [engine.read() for engine in before.engines]
        assert program == [engine.read() for engine in after.engines]
        assert [data[:4] for data in program] == [b"vtrt"]


def test_what_convert_makes_of_it_is_an_artifact_like_any(foreign: Foreign, converted: Path) -> None:
    code, document = run("verify", str(converted), "--level", "structure")
    assert code == 0, document
    with open_artifact(converted) as artifact:
        assert not artifact.foreign
        assert artifact.container.entry("data/sample_inputs/model.pt").size == 0
        assert artifact.graph()["guards_code"] == []
        assert str(foreign.path.parent).encode() not in artifact.skeleton
        assert unknown_in_pickle(artifact.engines[0].info.metadata) is None
        assert artifact.manifest.golden is not None
        assert artifact.manifest.golden.samples == 2


def test_stock_readers_read_it(converted: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", READER, str(converted)], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    [result] = json.loads(done.stdout.rpartition("RESULT")[2]).values()
    with open_artifact(converted) as artifact:
        assert result["engines"] == [engine.sha256 for engine in artifact.engines]
    assert (result["devices"], result["ranges"]) == (["cuda"], 1)


@pytest.mark.parametrize("which", ["foreign", "converted"])
def test_it_loads_and_gives_the_golden_numbers(foreign: Foreign, converted: Path, which: str) -> None:
    """The program runs on the CPU, with each engine replaced by the partition from which upstream built it."""
    load_runtime(Backend.TENSORRT_RTX)
    names = list(foreign.partitions)
    with (
        open_artifact(converted) as golden,
        open_artifact(foreign.path if which == "foreign" else converted) as artifact,
    ):
        samples = read_golden(golden)
        program = load_flat(artifact, CPU, None, lambda fields: torch.tensor(names.index(str(fields[1]))))
        model = LoadedModel(program, artifact.manifest, CPU)
    put_partitions(model._flat, list(foreign.partitions.values()))
    for (x, pair), outputs in samples:
        got = model(x=x, pair=(pair,))
        assert got.keys() == {"a", "b"}
        torch.testing.assert_close(pytree.tree_leaves(got), outputs, rtol=1e-5, atol=1e-5)


def with_samples(path: Path, data: bytes, out: Path) -> Path:
    """Writes a copy of a file with other sample inputs."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, data if "sample_inputs" in info.filename else old.read(info))
    return out


def test_golden_inputs_are_the_file_s_own_where_it_has_some(foreign: Foreign, tmp_path: Path) -> None:
    own = (torch.full((3, 4), 0.5),), {"pair": (torch.full((3, 3), 2.0),)}
    buffer = io.BytesIO()
    torch.save(own, buffer)
    path = with_samples(foreign.path, buffer.getvalue(), tmp_path / "a.pt2")
    out = tmp_path / "b.pt2"
    code, document = run("convert", str(path), "-o", str(out), "--golden-from", "originals:make")
    assert (code, document["golden_inputs"]) == (0, "the file's own sample inputs"), document
    with open_artifact(out) as artifact:
        [(inputs, _)] = read_golden(artifact)
    assert torch.equal(inputs[0], own[0][0])


def test_sample_inputs_that_hold_code_are_not_read(foreign: Foreign, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "hurt"),)

    buffer = io.BytesIO()
    torch.save(((Payload(),), {}), buffer)
    path = with_samples(foreign.path, buffer.getvalue(), tmp_path / "a.pt2")
    with pytest.raises(UntrustedError), open_artifact(path) as artifact:
        load_program(artifact, CPU, None)
    code, document = run("convert", str(path), "-o", str(tmp_path / "b.pt2"), "--golden-from", "originals:make")
    assert (code, document["golden_inputs"]) == (0, "the original model's example"), document
    assert not (tmp_path / "hurt").exists()


def test_another_model_is_no_original(foreign: Foreign, tmp_path: Path) -> None:
    out = tmp_path / "out.pt2"
    code, document = run("convert", str(foreign.path), "-o", str(out), "--golden-from", "originals:other")
    assert (code, out.exists()) == (2, False)
    assert "1 inputs instead of 2" in document["error"]["problem"]


def test_without_the_original_there_is_no_golden_and_it_says_so(foreign: Foreign, tmp_path: Path) -> None:
    arguments = ["convert", str(foreign.path), "-o", str(tmp_path / "out.pt2"), "--target", "linux-x86_64"]
    result = click.testing.CliRunner().invoke(cli, arguments)
    assert (result.exit_code, "golden: none" in result.output) == (0, True)
    with open_artifact(tmp_path / "out.pt2") as artifact:
        assert artifact.manifest.golden is None
        assert artifact.engines[0].info.target_platform == "linux_x86_64"
