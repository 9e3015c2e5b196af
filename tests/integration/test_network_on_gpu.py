"""What ``benchmarks/gpu/layers.py`` builds here for a GPU host, and what it reports there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.gpu import layers

pytestmark = [pytest.mark.rtx, pytest.mark.xdist_group("network on gpu")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("layers")
    layers.build(folder, ["two_outputs", "kv_cache"])
    return folder


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, wrong: str = "") -> tuple[int, list[dict[str, Any]]]:
    """Runs the comparison. Engines need a GPU, so their results are read from the file, with one layer's changed."""
    cases = {case["plan"]: case for case in json.loads((folder / "cases.json").read_text())}

    def execute(plan: Path, inputs: dict[str, torch.Tensor], aliases: dict[str, str]) -> dict[str, torch.Tensor]:
        case = cases[plan.name]
        assert plan.stat().st_size and sorted(inputs) == sorted(case["inputs"])
        values = load_file(folder / case["values"])
        changed = {name for name, (_, kind) in case["outputs"].items() if kind == wrong}
        return {
            name: values[f"out.{name}"] + 1 if name in changed else values[f"out.{name}"] for name in case["outputs"]
        }

    monkeypatch.setattr(layers, "execute", execute)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "no GPU")
    code = layers.run(folder, folder / "out.json")
    return code, json.loads((folder / "out.json").read_text())["rows"]


def test_each_layer_of_a_model_is_an_output_of_some_engine(folder: Path) -> None:
    cases = [layers.Case(**case) for case in json.loads((folder / "cases.json").read_text())]
    kinds = {kind for case in cases for _, kind in case.outputs.values()}
    assert {"MATRIX_MULTIPLY", "ACTIVATION", "REDUCE", "KV_CACHE_UPDATE", "SOFTMAX", "CAST", "SHUFFLE"} <= kinds
    assert all(case.aliases for case in cases if case.name.startswith("kv_cache"))


def test_equal_results_are_within(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, rows = run(folder, monkeypatch)
    assert code == 0 and all(row["within"] for row in rows)


def test_another_result_is_counted_and_printed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, rows = run(folder, monkeypatch, wrong="SOFTMAX")
    wrong = [row for row in rows if not row["within"]]
    assert code == len(wrong) > 0 and {row["kind"] for row in wrong} == {"SOFTMAX"}
    (line,) = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("SOFTMAX") and "float32" in line
    ]
    assert "kv_cache-fp" in line
