"""Measures saving, inspecting and streaming engines that are too large for memory.

    python -m benchmarks.big --gib 4 8

Writes ``docs/benchmarks/big.md``. The engine is generated while it is written, so it is whole only on disk.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import synthetic
from benchmarks.jobs import Job
from benchmarks.machine import describe_machine
from benchmarks.measure import REPOSITORY, Measured, measure, prefer_this_process
from toolchain import open_artifact

GIB = 2**30
MIB = 2**20
LOOKS = 10


def save_streamed(path: str, size: str) -> Job:
    """Saves an engine that is generated while it is written."""
    synthetic.import_upstream()
    plan = synthetic.streamed_engine(int(size))
    module = synthetic.compiled_module([synthetic.our_module("big", plan)])

    def call() -> Any:
        with tempfile.TemporaryDirectory() as spool:
            return synthetic.save(module, Path(path), Path(spool))

    return call, lambda manifest: {"sha256": manifest.engines[0].sha256, "stock": manifest.stock_readable}


def read_streamed(path: str) -> Job:
    """Reads the engine as a stream. The reader checks its digest, and the caller computes it a second time."""

    def call() -> str:
        digest = hashlib.sha256()
        with open_artifact(path) as artifact, artifact.engines[0].open() as stream:
            while data := stream.read(MIB):
                digest.update(data)
        return digest.hexdigest()

    return call, str


def read_whole(path: str) -> Job:
    """Reads the engine into memory."""

    def call() -> int:
        with open_artifact(path) as artifact:
            return len(artifact.engines[0].read())

    return call, int


def look(*arguments: str) -> Measured:
    """Runs ``trtcross`` several times; returns the least times and the highest peak of resident memory."""
    command = [sys.executable, "-m", "toolchain", *arguments]
    command = [str(script), *arguments] if (script := Path(sys.executable).with_name("trtcross")).exists() else command
    best, cpu, peak = float("inf"), float("inf"), 0
    for _ in range(LOOKS):
        start = time.perf_counter()
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=prefer_this_process
        ) as process:
            _, status, usage = os.wait4(process.pid, 0)
            best = min(best, time.perf_counter() - start)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{command} failed")
        cpu = min(cpu, usage.ru_utime + usage.ru_stime)
        peak = max(peak, usage.ru_maxrss * 1024)
    return Measured(best, cpu, peak, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, nargs="+", default=[4, 8])
    parser.add_argument("--whole", action="store_true", help="read to bytes too; takes an engine's size in memory")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for gib in options.gib:
            path = Path(folder) / "big.pt2"
            if shutil.disk_usage(folder).free < 1.4 * gib * GIB:
                raise SystemExit(f"{gib} GiB do not fit on the disk")
            rows += list(measure_size(path, int(gib * GIB), options.whole))
            path.unlink()
    rows.append(_row("", "`trtcross --help`", look("--help")))
    lines = [
        "# Big engines, and looking without reading",
        "",
        f"Written by `{' '.join(['python -m benchmarks.big', *sys.argv[1:]])}`.",
        "",
        *(f"- {line}" for line in describe_machine()),
        f"- load average at the end: {os.getloadavg()[0]:.2f}; `inspect` and `--help`: whole processes, best time and "
        f"highest resident memory of {LOOKS}",
        "",
        "Peak memory of saving and reading is what was resident above the start, the engine's own pages not counted",
        "where it is streamed, for it is never whole in memory.",
        "",
        "| engine | what | seconds | of CPU | MiB per second | peak memory, MiB |",
        "|---|---|---|---|---|---|",
        *rows,
    ]
    (REPOSITORY / "docs" / "benchmarks" / "big.md").write_text("\n".join(lines) + "\n")


def measure_size(path: Path, size: int, whole: bool) -> Iterator[str]:
    """Yields the table's rows for one size in bytes."""
    name = f"{size / GIB:g} GiB"
    saved = measure("benchmarks.big:save_streamed", path, size)
    if saved.result["stock"]:
        raise RuntimeError("the manifest states that stock readers can read the file, and they cannot")
    yield _row(name, "save, from a stream", saved, size)
    read = measure("benchmarks.big:read_streamed", path)
    if read.result != saved.result["sha256"]:
        raise RuntimeError("what was read is not what was saved")
    yield _row(name, "read as a stream (hashed a second time by the caller)", read, size)
    if whole:
        yield _row(name, "read to bytes", measure("benchmarks.big:read_whole", path), size)
    yield _row(name, "`trtcross inspect`", look("inspect", str(path)))
    yield _row(name, "`trtcross inspect --json`", look("inspect", "--json", str(path)))


def _row(name: str, what: str, measured: Measured, size: int | None = None) -> str:
    print(name, what, measured, flush=True)
    rate = f"{size / MIB / measured.seconds:.0f}" if size else "-"
    seconds, cpu = f"{measured.seconds:.2f}", f"{measured.cpu:.2f}"
    return f"| {name} | {what} | {seconds} | {cpu} | {rate} | {measured.peak / MIB:.0f} |"


if __name__ == "__main__":
    main()
