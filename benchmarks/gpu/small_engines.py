"""Measures the cost and the gain of small engines of a few light operators between parts that PyTorch runs.

    python -m benchmarks.gpu.small_engines build FOLDER            # without a GPU
    python -m benchmarks.gpu.small_engines run FOLDER [OUT.json]   # on a GPU host

The model is a matrix product, and then eight times one operator that stays in PyTorch and some light operators. In the
form ``engines`` the light operators are eight engines; in the form ``torch`` PyTorch computes them. ``run`` prints the
ratio of their times at several sizes, one call at a time and back to back, with and without CUDA graphs. The numbers in
``linux_side/lowering/small_engines.py`` were measured by it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.gpu.build_and_run import Row, build_or_run

PIECES = 8
OPERATORS = (1, 2, 4, 6, 8)
WIDTH = 64
ROWS = tuple(2**power // WIDTH for power in (12, 16, 18, 20, 22))
KEPT = "aten.erf.default"
# Neighbours are of different kinds, as in a model; equal ones could be folded or fused.
LIGHT = ("sin", "abs", "relu", "neg", "sigmoid", "tanh", "cos", "exp")


class Pieces(nn.Module):
    """The model: takes and returns values (rows, 64)."""

    def __init__(self, operators: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.operators = operators
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        for _ in range(PIECES):
            x = torch.erf(x)
            for name in LIGHT[: self.operators]:
                x = getattr(torch, name)(x)
        return x


def build(folder: Path) -> None:
    """Builds the artifacts that are not in the folder yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for operators in OPERATORS:
        for form in ("engines", "torch"):
            path = folder / f"{operators}-{form}.pt2"
            if not path.exists():
                print(path.name, "engines:", build_one(path, operators, form), flush=True)


def build_one(path: Path, operators: int, form: str) -> int:
    from linux_side.driver.pipeline import Pipeline
    from linux_side.frontend.source import export_source
    from linux_side.options import BuildOptions
    from tests.integration.harness import imported_builder
    from toolchain.artifact import open_artifact

    kept = [KEPT] if form == "engines" else [KEPT, *(f"aten.{name}.default" for name in LIGHT[:operators])]
    options = BuildOptions.model_validate(
        {
            "target": "linux-x86_64",
            "dynamic": [f"x.0={ROWS[0]}:{ROWS[3]}:{ROWS[-1]}"],
            "torch_executed_ops": kept,
            "min_block_size": 1,
            "golden": 0,
        }
    )
    source = export_source(path.stem, Pieces(operators).eval(), (torch.randn(ROWS[3], WIDTH),), {}, options)
    with tempfile.TemporaryDirectory() as spool:
        Pipeline(options, imported_builder(), Path(spool), lambda _: nullcontext()).run_source(source, path)
    with open_artifact(path) as artifact:
        return len(artifact.engines)


def measured(folder: Path) -> Iterator[Row]:
    """Measures both forms in turns, for each number of operators and each size."""
    from windows_side import load
    from windows_side.benchmark.measure import measure_latency, measure_throughput

    for operators in OPERATORS:
        for graphs in (False, True):
            paths = [folder / f"{operators}-{form}.pt2" for form in ("engines", "torch")]
            models = [load(path, allow_unlisted_gpu=True, cuda_graphs=graphs) for path in paths]
            for rows in ROWS:
                x = torch.randn(rows, WIDTH, device="cuda")
                calls = [lambda model=model, x=x: model(x) for model in models]
                worst = max((calls[0]() - calls[1]()).abs().max().item() for _ in range(2))
                time.sleep(1)  # kernels for these very sizes are compiled in the background after the first calls
                alone = [latency.median for latency in measure_latency(calls, calls=100, warm_up=20)]
                together = [measure_throughput(call, calls=100) for call in calls]
                yield {
                    "operators": operators, "elements": rows * WIDTH, "cuda_graphs": graphs, "difference": worst,
                    "one_at_a_time_ms": alone, "ratio": alone[0] / alone[1],
                    "back_to_back_ms": together, "ratio_back_to_back": together[0] / together[1],
                }  # fmt: skip


if __name__ == "__main__":
    build_or_run(__doc__, build, measured)
