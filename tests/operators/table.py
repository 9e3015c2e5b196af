"""Writes the table of the operators that were tried."""

from __future__ import annotations

import json
import subprocess
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from tests.operators.catalogue import KINDS
from tests.operators.runner import Row, as_upstream_does, run_operator

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "build" / "operators.md"
ON_GPU = ROOT / "docs" / "benchmarks" / "gpu" / "operators.json"
_TEXT = """# Every operator

Made by `make operators` on {date}, revision {revision}, with Torch-TensorRT {release}.

Each operator is tested with inputs that hypothesis draws: dtypes, sizes, dimensions and indices from either side,
broadcasting, sizes that vary (and then other sizes than the example's), large and tiny values, infinities and NaN. A
trial is lowered and converted as `build` does, and compared with eager PyTorch on the function as it is written, in
dtype, shape and value. The strategies are in `tests/operators`. [What is rewritten](rewrites.md) says why.

- **interpreter**: inputs whose TensorRT network was computed on the CPU, layer by layer, from NVIDIA's documentation
  (`tests/integration/network`); the partition was compared too. Only a GPU shows what TensorRT's own kernels do.
- **partition**: inputs for which only the lowered graph was compared.
- **PyTorch**: inputs of trials whose operators all stay in PyTorch.
- **GPU**: artifacts of this operator that were right on a GPU, of those that were run (`-`: none).
- **wrong before**: inputs whose outputs are wrong with the decompositions of Torch-TensorRT as they are, and no check
  of the network; such a build succeeds.
- **refused**: inputs of trials that are errors of the build, by name.

In all: {total}.
"""
_HEAD = (
    "| operator | inputs | interpreter | partition | PyTorch | GPU | wrong before | wrong now | refused |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
)


def write_table(count: int) -> int:
    """Tries every operator with ``count`` trials, writes the page, and returns how many inputs are wrong."""
    on_gpu = _on_gpu()
    parts, rows = [], []
    for kind, operators in KINDS.items():
        lines = []
        for name, make in operators.items():
            row = run_operator(name, make, count)
            with as_upstream_does():
                before = run_operator(name, make, count)
            rows.append((row, before))
            lines.append(_line(row, before, on_gpu.get(name, "-")))
            print(lines[-1], *row.problems[:2], sep="\n  ", flush=True)
        parts.append(f"\n## {kind}\n\n{_HEAD}" + "\n".join(lines) + "\n")
        PAGE.write_text(
            _page(rows) + "".join(parts), "utf-8"
        )  # after each operator, so that an interrupted run keeps its results
    return sum(row.wrong for row, _ in rows)


def _line(row: Row, before: Row, on_gpu: str) -> str:
    figures = (
        row.inputs,
        row.by_interpreter,
        row.by_partition,
        row.in_torch,
        on_gpu,
        before.wrong,
        row.wrong,
        row.refused,
    )
    return f"| {row.operator} | {' | '.join(map(str, figures))} |"


def _page(rows: list[tuple[Row, Row]]) -> str:
    now = [row for row, _ in rows]
    inputs, interpreted = sum(row.inputs for row in now), sum(row.by_interpreter for row in now)
    wrong, wrong_before = sum(row.wrong for row in now), sum(row.wrong for _, row in rows)
    total = (
        f"{len(now)} operators, {inputs} inputs, {interpreted} by the interpreter; wrong before: {wrong_before}; "
        f"wrong now: {wrong}; refused: {sum(row.refused for row in now)}"
    )
    revision = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    return _TEXT.format(
        date=datetime.now(timezone.utc).date(),
        revision=revision.stdout.strip() or "unknown",
        release=metadata.version("torch-tensorrt-rtx"),
        total=total,
    )


def _on_gpu() -> dict[str, str]:
    """Returns for each operator how many of its artifacts were right on a GPU."""
    if not ON_GPU.exists():
        return {}
    found: dict[str, list[bool]] = {}
    for row in json.loads(ON_GPU.read_text("utf-8"))["rows"]:
        found.setdefault(row["operator"], []).append(bool(row.get("within")))
    return {name: f"{sum(right)} of {len(right)}" for name, right in found.items()}
