"""Measures a build by phase: seconds, CPU seconds, and the peak memory of all its processes.

    python -m benchmarks.build MODEL [--mib N ...] [--precision fp16] [-- OPTIONS OF build]

The machine must have the anonymous memory; mapped pages of files can be dropped and read again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from stat import S_ISREG

from benchmarks.measure import REPOSITORY
from toolchain import open_artifact
from toolchain.io.events import read_events, start_child

MIB = 2**20
_SAMPLE_SECONDS = 0.01
_SAMPLES_OF_MEMORY = 20  # for one of the disk
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Cost:
    """The cost of one phase.

    Attributes:
        cpu: CPU seconds of all processes.
        anonymous: bytes of anonymous memory at its peak.
        mapped: bytes of mapped files at their peak.
    """

    seconds: float = 0.0
    cpu: float = 0.0
    anonymous: int = 0
    mapped: int = 0


@dataclass
class BuildCost:
    """The cost of a build.

    Attributes:
        phases: the cost of each phase by name; ``start`` precedes the first one.
        engines: the SHA-256 of each engine.
        size: bytes of the artifact.
        disk: bytes on the disk at the peak, of the artifact and of the build's own files with and without a name.
    """

    phases: dict[str, Cost] = field(default_factory=dict)
    engines: list[str] = field(default_factory=list)
    size: int = 0
    disk: int = 0

    @property
    def peak(self) -> int:
        return max(cost.anonymous for cost in self.phases.values())

    @property
    def seconds(self) -> float:
        return sum(cost.seconds for cost in self.phases.values())

    @property
    def cpu(self) -> float:
        return sum(cost.cpu for cost in self.phases.values())


def tree(pid: int) -> Iterator[int]:
    """Yields the numbers of a process and all its descendants."""
    yield pid
    for task in _listed(Path(f"/proc/{pid}/task")):
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue
        for child in children:
            yield from tree(int(child))


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def memory_of(pids: Sequence[int]) -> tuple[int, int]:
    """Returns the resident bytes of anonymous memory and of mapped files."""
    anonymous = mapped = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            continue
        found = {line.split()[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss")}
        anonymous += found.get("RssAnon:", 0) + found.get("RssShmem:", 0)
        mapped += found.get("RssFile:", 0)
    return anonymous, mapped


def disk_of(pids: Sequence[int], *folders: Path) -> int:
    """Returns the bytes on the disk of files in these folders, and of nameless files that processes have open or map.

    Only root sees the files that are mapped.
    """
    held = [link for pid in pids for kind in ("fd", "map_files") for link in _listed(Path(f"/proc/{pid}/{kind}"))]
    sizes = {}
    for index, path in enumerate([*held, *(path for folder in folders for path in folder.rglob("*"))]):
        try:
            status = path.stat()
        except OSError:
            continue
        if S_ISREG(status.st_mode) and (index >= len(held) or not status.st_nlink):
            sizes[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(sizes.values())


def cpu_of(pids: Sequence[int]) -> float:
    """Returns the CPU seconds that the processes and their ended children have used so far."""
    ticks = 0
    for pid in pids:
        try:
            words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, words[11:15]))
    return ticks / _TICKS


def measure_build(model: str, options: Sequence[str], out: Path | None = None, *, root: Path = REPOSITORY) -> BuildCost:
    """Builds a model by the command line, as a user does, and measures its processes.

    Args:
        options: further options of ``build``.
        out: where the artifact goes; None means a temporary folder.
        root: the repository whose code builds.

    Raises:
        RuntimeError: the build failed.
    """
    cost, current = BuildCost({"start": Cost()}), ["start"]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as spool:
        out = out or Path(folder) / "out.pt2"
        command = [sys.executable, "-m", "toolchain", "build", model, "-o", str(out), "--no-cache", "-q", *options]
        others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        # The build process does not import from the current folder.
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(root), *filter(None, others)]))
        os.environ["TMPDIR"] = spool
        child, events = start_child(command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

        def listen() -> None:
            for event in read_events(events):
                if event["event"] == "start":
                    current[0] = event["phase"]
                elif event["event"] == "end":
                    cost.phases.setdefault(event["phase"], Cost()).seconds = event["seconds"]

        listener = threading.Thread(target=listen)
        listener.start()
        used, samples = 0.0, 0
        while child.poll() is None:
            pids, phase = list(tree(child.pid)), cost.phases.setdefault(current[0], Cost())
            anonymous, mapped = memory_of(pids)
            phase.anonymous, phase.mapped = max(phase.anonymous, anonymous), max(phase.mapped, mapped)
            if (samples := samples + 1) % _SAMPLES_OF_MEMORY == 0:
                cost.disk = max(cost.disk, disk_of(pids, Path(spool), out.parent))
            now = cpu_of(pids)
            phase.cpu, used = phase.cpu + max(0.0, now - used), max(used, now)
            select.select([], [], [], _SAMPLE_SECONDS)
        listener.join()
        events.close()
        errors = child.stderr.read().decode(errors="replace") if child.stderr else ""
        if child.returncode:
            raise RuntimeError(f"{model} failed:\n{errors[-2000:]}")
        with open_artifact(out) as artifact:
            cost.engines = [engine.entry.sha256 for engine in artifact.engines]
        cost.size = out.stat().st_size
    return cost


def table(cost: BuildCost) -> list[str]:
    """Returns the cost of each phase as a Markdown table."""
    lines = ["| phase | seconds | of the processor | anonymous, MiB | mapped, MiB |", "|---|---|---|---|---|"]
    for name, phase in cost.phases.items():
        memory = f"{phase.anonymous / MIB:.0f} | {phase.mapped / MIB:.0f}"
        lines.append(f"| {name} | {phase.seconds:.1f} | {phase.cpu:.1f} | {memory} |")
    lines.append(f"| all | {cost.seconds:.1f} | {cost.cpu:.1f} | {cost.peak / MIB:.0f} | |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--mib", type=int, nargs="+", help="for benchmarks.scale")
    parser.add_argument("--layers", type=int, nargs="+", help="for benchmarks.scale:deep_decoder")
    parser.add_argument("--root", type=Path, default=REPOSITORY, help="a checkout of another revision")
    parser.add_argument("--out", type=Path, help="keeps the artifact")
    parser.add_argument("--json", type=Path, help="appends what was measured to this file")
    options, more = parser.parse_known_args()
    variable, sizes = ("BENCHMARK_LAYERS", options.layers) if options.layers else ("BENCHMARK_MIB", options.mib)
    for size in sizes or [0]:
        os.environ[variable] = str(size)
        cost = measure_build(options.model, [word for word in more if word != "--"], options.out, root=options.root)
        digest = hashlib.sha256("".join(cost.engines).encode()).hexdigest()[:12]
        print(
            f"\n{options.model} {size or ''} {' '.join(more)}: engines {digest}, {cost.size / MIB:.0f} MiB, "
            f"at most {cost.disk / MIB:.0f} MiB on the disk"
        )
        print(*table(cost), sep="\n", flush=True)
        if options.json:
            with options.json.open("a") as file:
                what = {"model": options.model, "size": size, "options": more, "root": str(options.root)}
                file.write(json.dumps({**what, **asdict(cost)}) + "\n")


if __name__ == "__main__":
    main()
