"""``run`` and ``verify`` without torch, on a GPU that is the host's memory (``host_gpu``); the choice of a runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

pytest.importorskip("tensorrt_rtx")

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.conftest import ROOT
from tests.unit.windows_side.session.host_gpu import Host, HostGpu, host
from toolchain import open_artifact
from toolchain.container.entry_names import GOLDEN_ENTRY
from windows_side.commands.bench import bench
from windows_side.commands.check import check as check_verb
from windows_side.commands.run import run
from windows_side.commands.select import select
from windows_side.commands.verify import verify
from windows_side.preflight import runtimes
from windows_side.preflight.requirements import Runtime, check
from windows_side.preflight.runtimes import choose_runtime
from windows_side.session import samples
from windows_side.verification import levels

__all__ = ["host"]

SCHEMA1 = ROOT / "tests" / "compatibility" / "schema1"


def invoke(verb: click.Command, *words: object) -> tuple[Result, dict[str, Any]]:
    result = CliRunner().invoke(verb, [*map(str, words), "--json"])
    return result, json.loads(result.stdout)


def test_run_writes_what_a_session_gives(host: Host, tmp_path: Path) -> None:
    save_file({"x": np.ones((2, 8), np.float32)}, tmp_path / "in.safetensors")
    result, document = invoke(
        run, SCHEMA1 / "static.pt2", "--runtime", "tensorrt", "--input", tmp_path / "in.safetensors",
        "--output", tmp_path / "out.safetensors",
    )  # fmt: skip
    assert result.exit_code == 0 and document["runtime"] == "tensorrt"
    assert (load_file(tmp_path / "out.safetensors")["output"] == 16).all()


@pytest.mark.parametrize("kernels", ["lazy", "eager", "none"])
def test_run_takes_the_kernels_that_are_asked_for(host: Host, tmp_path: Path, kernels: str) -> None:
    save_file({"x": np.ones((2, 8), np.float32)}, tmp_path / "in.safetensors")
    result, _ = invoke(
        run, SCHEMA1 / "dynamic.pt2", "--runtime", "tensorrt", "--kernels", kernels,
        "--input", tmp_path / "in.safetensors", "--output", tmp_path / "out.safetensors",
    )  # fmt: skip
    assert result.exit_code == 0 and host.strategies == [kernels]


def test_run_names_an_input_that_the_file_lacks(host: Host, tmp_path: Path) -> None:
    save_file({"y": np.ones((2, 8), np.float32)}, tmp_path / "in.safetensors")
    result, document = invoke(
        run, SCHEMA1 / "static.pt2", "--runtime", "tensorrt", "--input", tmp_path / "in.safetensors",
        "--output", tmp_path / "out.safetensors",
    )  # fmt: skip
    assert result.exit_code == 2 and "lacks the input x" in document["error"]["problem"]


def _golden(wrong: float = 0.0, name: str = "static") -> Any:
    with open_artifact(SCHEMA1 / f"{name}.pt2") as artifact:
        wanted = {given.tobytes(): want for [given], [want] in samples.read_golden(artifact) if want is not None}

    def function(inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        outputs["output0"][...] = wanted[inputs["x"].tobytes()] + wrong

    return function


@pytest.mark.parametrize(("wrong", "code"), [(0.0, 0), (1.0, 6)])
def test_verify_compares_a_session_with_golden(
    host: Host, monkeypatch: pytest.MonkeyPatch, wrong: float, code: int
) -> None:
    monkeypatch.setattr(levels, "require", lambda *_, **__: [])
    host.functions[0] = _golden(wrong)
    result, document = invoke(verify, SCHEMA1 / "static.pt2", "--runtime", "tensorrt")
    assert result.exit_code == code
    assert [level["level"] for level in document["levels"]] == ["integrity", "structure", "load", "numbers"]
    assert document["levels"][2]["details"]["runtime"] == "tensorrt"
    assert {"cuda-bindings", "numpy", "runtime"} <= {item["name"] for item in document["requirements"]}
    assert not {"torch", "torch-cuda", "torch-tensorrt"} & {item["name"] for item in document["requirements"]}
    assert not host.memory.blocks  # the session is closed


@pytest.mark.parametrize("wrong", [None, "none", "eager"])
def test_verify_compares_both_kinds_of_kernels_where_sizes_vary(
    host: Host, monkeypatch: pytest.MonkeyPatch, wrong: str | None
) -> None:
    monkeypatch.setattr(levels, "require", lambda *_, **__: [])
    right, off = _golden(name="dynamic"), _golden(1.0, name="dynamic")
    host.functions[0] = lambda *bound: (off if host.strategies[-1] == wrong else right)(*bound)
    result, document = invoke(verify, SCHEMA1 / "dynamic.pt2", "--runtime", "tensorrt")
    assert host.strategies == ["none", "eager"] and not host.memory.blocks
    outputs = document["levels"][-1]["details"]["outputs"]
    assert {output["kernels"]: output["within"] for output in outputs} == {
        "none": wrong != "none", "eager": wrong != "eager",
    }  # fmt: skip
    assert result.exit_code == (6 if wrong else 0)
    if wrong:
        other = {"none": "eager", "eager": "none"}[wrong]
        assert f"load(kernels='{other}')" in document["error"]["remedy"]


BOTH = {"torch-tensorrt-rtx", "tensorrt-rtx", "cuda-bindings"}


@pytest.mark.parametrize(
    ("name", "installed", "wanted", "chosen"),
    [
        ("static", BOTH, "auto", Runtime.TORCH),
        ("static", {"tensorrt-rtx", "cuda-bindings"}, "auto", Runtime.TENSORRT),
        ("static", {"tensorrt-rtx"}, "auto", Runtime.TORCH),
        ("static", set(), "auto", Runtime.TORCH),
        ("mixed", {"tensorrt-rtx", "cuda-bindings"}, "auto", Runtime.TORCH),
        ("static", BOTH, "tensorrt", Runtime.TENSORRT),
        ("mixed", set(), "torch", Runtime.TORCH),
    ],
)
def test_the_runtime_is_what_is_asked_for_else_what_is_needed_and_there(
    name: str, installed: set[str], wanted: str, chosen: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "version_of", lambda package: "1" if package in installed else None)
    monkeypatch.setattr(runtimes, "torch_version", lambda: "2.14.1" if "torch-tensorrt-rtx" in installed else None)
    with open_artifact(SCHEMA1 / f"{name}.pt2") as artifact:
        assert choose_runtime(artifact, wanted) is chosen


def test_a_session_asks_for_the_release_by_the_line_that_installs_it() -> None:
    found = {item.name: item for item in check(SCHEMA1 / "static.pt2", Runtime.TENSORRT)}
    assert found["runtime"].needed == "tensorrt-rtx 1.6.1.120 exactly"


def test_numpys_golden_is_torchs() -> None:
    pytest.importorskip("torch")
    from windows_side.execution import samples as of_torch

    for name in ("static", "dynamic", "kv_cache", "half", "fp16", "mixed"):
        with open_artifact(SCHEMA1 / f"{name}.pt2") as artifact:
            assert artifact.read_entry(GOLDEN_ENTRY)
            for ours, theirs in zip(samples.read_golden(artifact), of_torch.read_golden(artifact), strict=True):
                for a, b in zip((*ours[0], *ours[1]), (*theirs[0], *theirs[1]), strict=True):
                    assert np.array_equal(a, b.numpy())


@pytest.mark.parametrize(("name", "state"), [("static", "met"), ("mixed", "not met")])
def test_check_says_whether_the_graph_needs_torch(name: str, state: str) -> None:
    result, document = invoke(check_verb, SCHEMA1 / f"{name}.pt2", "--runtime", "tensorrt")
    found = {item["name"]: item for item in document["requirements"]}
    assert result.exit_code == 3 and found["graph"]["state"] == state
    assert ("aten.cumsum.default" in found["graph"]["found"]) == (name == "mixed")


@pytest.mark.parametrize("options", [(), ("--cuda-graphs",)])
def test_bench_measures_a_session(host: Host, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]) -> None:
    monkeypatch.setattr("windows_side.commands.bench.admit", lambda *_, **__: [])
    monkeypatch.setattr("windows_side.benchmark.session_run.Gpu", HostGpu)
    result, document = invoke(
        bench, SCHEMA1 / "static.pt2", "--runtime", "tensorrt", "--calls", "5", "--no-first-call", *options
    )
    assert result.exit_code == 0, result.output
    assert document["runtime"] == "tensorrt" and document["machine"]["gpu"] == "Host"
    assert len(document["latency"]["samples"]) == 5 and document["throughput"]["milliseconds"] > 0
    assert host.engines[0].calls + host.launches >= 5 and not host.memory.blocks


def test_bench_without_torch_measures_no_original(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windows_side.commands.bench.admit", lambda *_, **__: [])
    result, document = invoke(
        bench, SCHEMA1 / "static.pt2", "--runtime", "tensorrt", "--no-first-call", "--original", "a:b"
    )
    assert result.exit_code == 2 and "runs in PyTorch" in document["error"]["problem"]


def test_select_takes_what_a_runtime_can_run(tmp_path: Path) -> None:
    for name in ("static", "mixed"):
        (tmp_path / f"{name}.pt2").write_bytes((SCHEMA1 / f"{name}.pt2").read_bytes())
    lacking = {}
    for runtime in ("tensorrt", "torch"):
        _, document = invoke(select, tmp_path, "--runtime", runtime)
        assert {item["runtime"] for item in document["artifacts"]} == {runtime}
        lacking[runtime] = {
            Path(item["artifact"]).stem: {r["name"] for r in item["requirements"] if r["state"] != "met"}
            for item in document["artifacts"]
        }
    assert "graph" in lacking["tensorrt"]["mixed"] and "graph" not in lacking["tensorrt"]["static"]
    assert not any("graph" in names for names in lacking["torch"].values())
