"""Measures how a matrix's throughput grows with Ray workers on one machine, compared with the local executor.

    python benchmarks/ray_workers.py [--workers 1 2 3] [--json OUT]

Each worker is a node of a Ray cluster, in a network namespace that has only loopback (which needs root). The cells are
six builds of two models, without the build cache. The libraries choose the number of threads of a build.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.integration.ray_session import cluster, in_namespace, matrix_command, why_not  # noqa: E402

SPEC = """
version = 1
precisions = ["fp32", "fp16", "bf16"]
[models.resnet18]
model = "examples.models:resnet18"
[models.efficientnet_lite0]
model = "examples.models:efficientnet_lite0"
[[targets]]
"""
CELLS = 6


def timed(command: list[str]) -> float:
    """Returns the seconds of a `matrix run` in which every cell passes; ends this process if one does not."""
    start = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    passed = sum(record["state"] == "passed" for record in json.loads(done.stdout)["records"])
    if passed != CELLS:
        sys.exit(f"only {passed} of {CELLS} cells passed")
    return time.monotonic() - start


def spec_in(folder: Path) -> Path:
    (folder / "m.toml").write_text(SPEC)
    return folder / "m.toml"


def on_ray(workers: int) -> float:
    """Returns the seconds of `matrix run` on a cluster of ``workers`` one-CPU nodes; runs inside the namespace."""
    with tempfile.TemporaryDirectory() as name, cluster(*[{"num_cpus": 1}] * workers) as address:
        folder = Path(name)
        return timed([*matrix_command(address, "run", spec_in(folder), folder / "run", "--no-cache")])


def locally(jobs: int) -> float:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-m", "toolchain", "matrix", "run", str(spec_in(folder))]
        return timed([*command, "--out", str(folder / "run"), "--json", "--no-cache", "--jobs", str(jobs)])


def ray_in_namespace(workers: int) -> float:
    done = in_namespace(str(Path(__file__).resolve()), "--inside", str(workers), timeout=900)
    if done.returncode:
        sys.exit(done.stderr)
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description="throughput of a matrix by Ray workers")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--inside", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(on_ray(options.inside))
        return
    if reason := why_not():
        sys.exit(reason)
    print(f"{CELLS} cells, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} before")
    rows = []
    for workers in options.workers:
        row = {"workers": workers, "ray": ray_in_namespace(workers), "local": locally(workers)}
        rows.append(row)
        print(
            f"{workers} worker(s): ray {row['ray']:.1f} s ({3600 * CELLS / row['ray']:.0f} cells an hour), "
            f"local {row['local']:.1f} s ({3600 * CELLS / row['local']:.0f} cells an hour)",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
