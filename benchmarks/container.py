"""Measures saving and loading engines by Torch-TensorRT, by us, and by the fewest steps that both need (the floor).

    python -m benchmarks.container

Writes ``docs/benchmarks/container.md`` and ``container.svg``. Every figure is the best of several fresh processes,
except that Torch-TensorRT is run once from 256 MiB on, because it takes minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.jobs import TINY
from benchmarks.machine import describe_machine, memory_available
from benchmarks.measure import REPOSITORY, Measured, measure
from benchmarks.plot import log_plot

MIB = 2**20
OUT = REPOSITORY / "docs" / "benchmarks"
SIZES = (16, 64, 256, 1024)
GOAL_SIZE = 256

# Upstream needs memory for this many times the engine.
_UPSTREAM_MEMORY = 18
# Figures of an earlier run on a larger machine, which are shown where upstream is skipped.
_EARLIER = {
    ("save", 1024): Measured(142, 142, 15 * 2**30, 15 * 2**30),
    ("load", 1024): Measured(118, 118, 15 * 2**30, 15 * 2**30),
}

ROWS = {
    "save_upstream": "save, Torch-TensorRT",
    "save_ours": "save, trtcross",
    "save_floor": "save, serial floor",
    "load_upstream": "load to bytes, Torch-TensorRT",
    "load_ours": "load to bytes, trtcross",
    "load_ours_program": "load the whole program, trtcross",
    "load_floor": "load, serial floor, nothing kept",
    "load_floor_kept": "load, serial floor, bytes kept",
}


@dataclass
class Results:
    """The best figure of each job and size, and notes on what could not be measured."""

    best: dict[tuple[str, int], Measured] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def take(self, job: str, size: int, measured: Measured) -> None:
        """Keeps the least times and the highest peaks; peaks hardly vary."""
        print(f"{job:20} {size:5} MiB  {measured.seconds:8.3f} s  peak {measured.peak / MIB / size:5.2f}x", flush=True)
        before = self.best.get((job, size), measured)
        self.best[job, size] = Measured(
            min(before.seconds, measured.seconds),
            min(before.cpu, measured.cpu),
            max(before.peak, measured.peak),
            max(before.anonymous, measured.anonymous),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="MIB")
    parser.add_argument("--repeat", type=int, default=3, help="fresh processes for each figure (default 3)")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the files go")
    parser.add_argument("--name", default="container", help="of the page and of the plot (default container)")
    parser.add_argument("--no-upstream", action="store_true", help="leave Torch-TensorRT's own way out")
    options = parser.parse_args()
    results = Results()
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for size in options.sizes:
            measure_ours(results, Path(folder), size, options.repeat)
        for size in () if options.no_upstream else options.sizes:
            measure_upstream(results, Path(folder), size, options.repeat)
    OUT.mkdir(parents=True, exist_ok=True)
    page = report(results, options.sizes, load_before, options.name)
    (OUT / f"{options.name}.md").write_text("\n".join(page) + "\n")
    series = {title: points(results, job, options.sizes) for job, title in ROWS.items()}
    plot = log_plot(series, x_title="engine, MiB", y_title="seconds", title="Saving and loading an engine")
    (OUT / f"{options.name}.svg").write_text(plot)


def measure_ours(results: Results, folder: Path, size: int, repeat: int) -> None:
    """Measures our save and load and the floor in turns, so that other load on the machine affects all alike."""
    tiny, path = folder / "tiny.pt2", folder / "ours.pt2"
    measure("benchmarks.jobs:save_ours", tiny, TINY)
    for _ in range(repeat):
        saved = run(results, "save_ours", size, path, size * MIB)
        loaded = run(results, "load_ours", size, path, tiny)
        program = run(results, "load_ours_program", size, path, tiny)
        kept = run(results, "load_floor_kept", size, path)
        if len({saved.result, loaded.result, program.result, kept.result}) != 1:
            raise RuntimeError("what was loaded is not what was saved")
        run(results, "load_floor", size, path)
        path.unlink()
        run(results, "save_floor", size, folder / "floor.bin", size * MIB)
        (folder / "floor.bin").unlink()


def measure_upstream(results: Results, folder: Path, size: int, repeat: int) -> None:
    """Measures upstream's save and load, where memory allows; only once for sizes that take minutes."""
    if memory_available() < _UPSTREAM_MEMORY * size * MIB:
        results.notes.append(
            f"Torch-TensorRT at {size} MiB was not measured in this run: it needs {_UPSTREAM_MEMORY * size / 1024:.0f} "
            f"GiB of memory, and {memory_available() / 2**30:.0f} are free. "
            + ("The figures shown are of an earlier run on such a machine." if ("save", size) in _EARLIER else "")
        )
        print(results.notes[-1], flush=True)
        for verb in ("save", "load"):
            if (verb, size) in _EARLIER:
                results.best[f"{verb}_upstream", size] = _EARLIER[verb, size]
        return
    tiny, path = folder / "tiny-upstream.pt2", folder / "upstream.pt2"
    measure("benchmarks.jobs:save_upstream", tiny, TINY)
    for _ in range(repeat if size < GOAL_SIZE else 1):
        saved = run(results, "save_upstream", size, path, size * MIB)
        loaded = run(results, "load_upstream", size, path, tiny)
        if saved.result != loaded.result:
            raise RuntimeError("what upstream loaded is not what it saved")
    path.unlink()


def run(results: Results, job: str, size: int, *arguments: object) -> Measured:
    os.sync()  # so that writing earlier data does not disturb the measurement
    measured = measure(f"benchmarks.jobs:{job}", *arguments)
    results.take(job, size, measured)
    return measured


def points(results: Results, job: str, sizes: Sequence[int]) -> list[tuple[float, float]]:
    return [(size, results.best[job, size].seconds) for size in sizes if (job, size) in results.best]


def report(results: Results, sizes: Sequence[int], load_before: float, name: str) -> Iterator[str]:
    """Yields the lines of the Markdown page."""
    yield "# The container: saving and loading engines"
    yield ""
    yield f"Written by `{' '.join(['python -m benchmarks.container', *sys.argv[1:]])}`."
    yield ""
    for line in describe_machine():
        yield f"- {line}"
    yield f"- best time and highest peak of several fresh processes; load average when it began: {load_before:.2f}"
    yield ""
    yield "Seconds:"
    yield ""
    yield from _table(results, sizes, lambda measured, _: f"{measured.seconds:.3f}")
    for verb in ("save", "load"):
        yield f"| **{verb}: times faster** | " + " | ".join(_ratio(results, verb, size) for size in sizes) + " |"
    yield ""
    yield f"![seconds by size of the engine]({name}.svg)"
    yield ""
    yield from _goals(results)
    yield ""
    yield "Peak of resident memory above the start, in engines, and in brackets the anonymous part of it:"
    yield ""
    yield from _table(results, sizes, lambda m, size: f"{m.peak / MIB / size:.2f} ({m.anonymous / MIB / size:.2f})")
    yield ""
    yield "Seconds of CPU, all threads together, which other work on the machine changes less than the time:"
    yield ""
    yield from _table(results, sizes, lambda measured, _: f"{measured.cpu:.3f}")
    for note in results.notes:
        yield ""
        yield f"Note: {note}"


def _table(results: Results, sizes: Sequence[int], cell: Callable[[Measured, int], str]) -> Iterator[str]:
    yield "| | " + " | ".join(f"{size} MiB" for size in sizes) + " |"
    yield "|---|" + "---|" * len(sizes)
    for job, title in ROWS.items():
        found = [(results.best.get((job, size)), size) for size in sizes]
        yield f"| {title} | " + " | ".join(cell(measured, size) if measured else "-" for measured, size in found) + " |"


def _ratio(results: Results, verb: str, size: int) -> str:
    ours, upstream = (results.best.get((f"{verb}_{who}", size)) for who in ("ours", "upstream"))
    return f"{upstream.seconds / ours.seconds:.0f}" if ours and upstream else "-"


def _goals(results: Results) -> Iterator[str]:
    """Yields a table of the goals at 256 MiB, and whether this run reached each."""
    best = {job: results.best[job, GOAL_SIZE] for job in ROWS if (job, GOAL_SIZE) in results.best}
    if len(best) < len(ROWS):
        return
    engine = GOAL_SIZE * MIB
    save, load = (best[f"{verb}_upstream"].seconds / best[f"{verb}_ours"].seconds for verb in ("save", "load"))
    ours = best["load_ours"].seconds
    kept, unkept = (best[job].seconds for job in ("load_floor_kept", "load_floor"))
    rows = [
        ("save, times faster than Torch-TensorRT", "40 or more", f"{save:.0f}", save >= 40),
        ("load, times faster than Torch-TensorRT", "50 or more", f"{load:.0f}", load >= 50),
        ("load, against the serial floor that keeps the bytes", "1 or less", f"{ours / kept:.2f}", ours <= kept),
        ("load, against the serial floor that keeps nothing", "1 or less", f"{ours / unkept:.2f}", ours <= unkept),
        *(
            (f"{verb}, peak memory in engines", f"under {limit}", f"{peak:.2f}", peak < limit)
            for verb, limit in (("save", 0.5), ("load", 1.2))
            for peak in [best[f"{verb}_ours"].peak / engine]
        ),
    ]
    yield f"| goal at {GOAL_SIZE} MiB | wanted | this run | |"
    yield "|---|---|---|---|"
    for title, wanted, got, reached in rows:
        yield f"| {title} | {wanted} | {got} | {'reached' if reached else '**missed**'} |"


if __name__ == "__main__":
    main()
