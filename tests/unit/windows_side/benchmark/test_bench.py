"""``bench`` and its figures: percentiles, comparison with a baseline, and the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from click.testing import CliRunner

from tests.unit.handmade import Handmade
from toolchain.cli.main import cli
from toolchain.errors import UsageError, WrongNumbersError
from toolchain.report.render import render
from windows_side.benchmark import run as benchmark
from windows_side.benchmark.baseline import compare, read_baseline
from windows_side.benchmark.figures import BenchmarkOptions, Latency, Steady
from windows_side.benchmark.first_call import FirstCall
from windows_side.reports.bench_page import bench_page


def test_the_document_has_the_members_that_scripts_read() -> None:
    latency = Latency.of([1.0, 2.0, 3.0])
    steady = Steady({"gpu": "X"}, latency, back_to_back=0.5, loaded=1, peak=2, original=None).to_json()
    assert set(steady) == {"machine", "latency", "throughput", "gpu_memory", "original"}
    assert set(steady["latency"]) == {"median", "p5", "p95", "mean", "samples"}
    assert steady["throughput"] == {"milliseconds": 0.5, "calls_per_second": 2000}
    assert (steady["gpu_memory"], steady["original"]) == ({"loaded": 1, "peak": 2}, None)


def document(median: float = 1.0, gpu: str = "NVIDIA RTX 4090") -> dict[str, Any]:
    samples = [median * (1 + i / 1000) for i in range(-50, 51)]
    latency = {"median": median, "p5": samples[5], "p95": samples[95], "mean": median, "samples": samples}
    return {
        "artifact": "model.pt2", "cuda_graphs": False, "latency": latency, "original": {"latency": latency},
        "machine": {"gpu": gpu, "driver": "580.1"}, "gpu_memory": {"loaded": 2**20, "peak": 2**21},
        "throughput": {"milliseconds": median, "calls_per_second": 1000 / median},
        "first_call": {"with_cache": {"imports": 1, "load": 1, "first_call": 0.1, "second_call": 0.01}},
    }  # fmt: skip


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps(document()))
    return path


def test_spread_is_of_the_ordered_samples() -> None:
    latency = Latency.of([5.0, 1.0, 2.0, 4.0, 3.0])
    assert (latency.median, latency.p5, latency.p95, latency.mean) == (3.0, 1.0, 4.0, 3.0)
    assert latency.samples == (5.0, 1.0, 2.0, 4.0, 3.0)


def test_a_slow_down_beyond_the_limit_fails(baseline: Path) -> None:
    with pytest.raises(WrongNumbersError, match=r"12\.0% slower .* 10% are allowed"):
        compare(document(1.12), read_baseline(baseline), fail_over=10, where="b")
    assert compare(document(1.08), read_baseline(baseline), fail_over=10, where="b") == pytest.approx(8)
    assert compare(document(2.0), read_baseline(baseline), fail_over=None, where="b") == pytest.approx(100)


def test_another_gpu_is_no_baseline(baseline: Path) -> None:
    with pytest.raises(UsageError, match="another GPU"):
        compare(document(gpu="NVIDIA H200"), read_baseline(baseline), fail_over=10, where="b")


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"machine": 3}'])
def test_a_file_that_is_no_baseline_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "b.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="baseline"):
        read_baseline(path)


def test_the_page_has_every_figure() -> None:
    page = render(bench_page(document()))
    for text in ("1.0000 ms a call", "NVIDIA RTX 4090", "First call", "2.0 MiB", "1000 calls a second"):
        assert text in page


def test_the_command_says_what_was_measured_and_compares_it(
    tmp_path: Path, baseline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figures are invented, because measuring needs a GPU; tests/gpu measures."""
    asked: list[BenchmarkOptions] = []
    machine = {"gpu": "NVIDIA RTX 4090"}
    steady = Steady(machine, Latency.of([1.12] * 5), back_to_back=0.5, loaded=2**20, peak=2**21, original=None)
    firsts = [(name, FirstCall(1, 2, 0.5, 0.1, name == "with_cache")) for name in ("without_cache", "with_cache")]
    monkeypatch.setattr("windows_side.commands.bench.admit", lambda *_, **__: [])
    monkeypatch.setattr("windows_side.commands.bench.measure_first_calls", lambda artifact, loading: iter(firsts))
    monkeypatch.setattr(benchmark, "measure_steady", lambda artifact, doubts, options: asked.append(options) or steady)
    path = str(Handmade().write(tmp_path / "a.pt2"))
    html = tmp_path / "b.html"
    compared = ["--baseline", str(baseline), "--fail-over", "10%"]
    arguments = ["bench", path, "--runtime", "torch", "--calls", "7", "--trust", "mine", "--html", str(html)]

    result = CliRunner().invoke(cli, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["trust"], found["runtime"], found["latency"]["median"]) == ("mine", "torch", 1.12)
    assert set(found["first_call"]) == {"without_cache", "with_cache"}
    assert "NVIDIA RTX 4090" in html.read_text("utf-8")
    (options,) = asked
    assert (options.calls, options.warm_up, options.source, options.loading.trust) == (7, 20, None, "mine")

    result = CliRunner().invoke(cli, [*arguments, *compared])
    assert result.exit_code == 6
    assert "fresh process without cache: imports 1.00 s" in result.output
    assert "1.0 MiB after loading, 2.0 MiB at the peak" in result.output
    assert "12.0% slower" in result.output
