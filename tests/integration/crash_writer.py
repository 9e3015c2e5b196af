"""Kills writers at random moments, and checks what is left at the destination.

    python -m tests.integration.crash_writer --kills 320 --report docs/benchmarks/crash.md

Each writer is a process of its own that replaces one of two artifacts by the other with the real ``write_artifact``. It
reports over a pipe which phase it enters. It is killed at a random moment of a phase that was drawn before; the last
phase that it reported counts. Pauses, which do not change the files, stretch phases that last microseconds.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import synthetic
from tests.integration.killing import Tell, forked, kill_in_phase
from toolchain import open_artifact
from toolchain.container import writer as container_writer
from toolchain.container.entry_names import GOLDEN_ENTRY, GRAPH_ENTRY, MANIFEST_ENTRY
from toolchain.errors import UsageError

PHASES = ("before", "graph", "other entries", "golden", "manifest", "fsync", "rename", "after")
KILLED_IN = PHASES[:-1]
_ENTRIES = {GRAPH_ENTRY: "graph", GOLDEN_ENTRY: "golden", MANIFEST_ENTRY: "manifest"}
_PAUSE = 0.002
_ENGINE_SIZE = 12 * 2**20

Write = Callable[[Path], object]


@dataclass
class Campaign:
    """The results of the kills: their number in each phase, and what each left."""

    kills: Counter[str] = field(default_factory=Counter)
    left: Counter[tuple[str, str]] = field(default_factory=Counter)
    finished: int = 0
    parts: int = 0


class Writers:
    """Two artifacts to write in turns, and the digests of their files."""

    def __init__(self, folder: Path) -> None:
        self.destination = folder / "artifact.pt2"
        self.writes: dict[str, Write] = {}
        self.digests: dict[str, str] = {}
        golden = os.urandom(4 * 2**20)
        for seed, name in enumerate(("first", "second")):
            spool = folder / name
            spool.mkdir()
            plan = synthetic.streamed_engine(_ENGINE_SIZE + seed, seed)
            write = synthetic.prepared(synthetic.compiled_module([synthetic.our_module("engine", plan)]), spool)
            self.writes[name] = lambda out, write=write: write(out, golden)
            self.writes[name](spool / "artifact.pt2")
            self.digests[name] = digest(spool / "artifact.pt2")

    def found(self) -> str:
        """Returns which of the two artifacts is at the destination.

        Raises:
            AssertionError: the file is neither, or is damaged.
        """
        with open_artifact(self.destination) as artifact:
            artifact.check_integrity()
        names = [name for name, known in self.digests.items() if known == digest(self.destination)]
        assert len(names) == 1, f"{self.destination} is neither the old file nor the new one"
        return names[0]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run_campaign(kills: int, folder: Path, seed: int = 0) -> Campaign:
    """Kills writers until ``kills`` of them died, spread evenly over the phases."""
    chance = random.Random(seed)
    synthetic.import_upstream()
    writers, campaign = Writers(folder), Campaign()
    writers.writes["first"](writers.destination)
    lengths = _phase_lengths(writers.writes["first"], folder / "probe.pt2")
    while sum(campaign.kills.values()) < kills:
        old = writers.found()
        new = "second" if old == "first" else "first"
        target = min(KILLED_IN, key=lambda phase: (campaign.kills[phase], chance.random()))
        killed_in = kill_in_phase(
            _writing(writers.writes[new], writers.destination), PHASES, target, chance.uniform(0, lengths[target])
        )
        campaign.parts += _remove_parts(folder)
        left = writers.found()
        if killed_in is None:
            assert left == new
            campaign.finished += 1
            continue
        campaign.kills[killed_in] += 1
        campaign.left[killed_in, "old" if left == old else "new"] += 1
    return campaign


def _writing(write: Write, destination: Path) -> Callable[[Tell], object]:
    """Returns the work of a writer that is to be killed."""

    def work(tell: Tell) -> None:
        _tell_phases(tell)
        write(destination)

    return work


def _tell_phases(tell: Callable[[str], object]) -> None:
    """Wraps functions that the writer calls, so that each phase is reported and lasts long enough to be hit."""
    stream, fsync, replace_file = container_writer.ContainerWriter.stream, os.fsync, container_writer.replace_file
    moving = False

    def enter(phase: str) -> None:
        tell(phase)
        time.sleep(_PAUSE)

    def told_stream(self: Any, name: str, *rest: Any) -> None:
        enter(_ENTRIES.get(name, "other entries"))
        stream(self, name, *rest)
        time.sleep(_PAUSE)

    def told_fsync(descriptor: int) -> None:
        if not moving:
            enter("fsync")
        fsync(descriptor)

    def told_replace(source: Path, target: Path) -> None:
        nonlocal moving
        moving = True
        enter("rename")
        replace_file(source, target)
        time.sleep(_PAUSE)
        enter("after")

    wrapped: list[tuple[Any, str, Any]] = [
        (container_writer.ContainerWriter, "stream", told_stream),
        (container_writer, "replace_file", told_replace),
        (os, "fsync", told_fsync),
    ]
    for owner, name, function in wrapped:
        setattr(owner, name, function)
    enter("before")


def _phase_lengths(write: Write, path: Path) -> dict[str, float]:
    """Returns the seconds of each phase of one writer that is not killed."""
    pid, reader = forked(_writing(write, path), PHASES)
    lengths: dict[str, float] = {}
    phase, since = PHASES[0], time.perf_counter()
    while more := os.read(reader, 1):
        now = time.perf_counter()
        lengths[phase] = max(lengths.get(phase, 0), now - since)
        phase, since = PHASES[more[0]], now
    os.close(reader)
    os.waitpid(pid, 0)
    path.unlink()
    return lengths


def _remove_parts(folder: Path) -> int:
    parts = [path for path in folder.iterdir() if path.name.endswith(".part")]
    for path in parts:
        path.unlink()
    return len(parts)


def destination_stays_empty(folder: Path) -> None:
    """Checks that a killed writer leaves nothing at a destination where nothing was before."""
    writers = Writers(folder)
    killed = kill_in_phase(_writing(writers.writes["first"], folder / "new.pt2"), PHASES, "fsync", 0)
    assert killed == "fsync"
    try:
        open_artifact(folder / "new.pt2").close()
    except UsageError:
        return
    raise AssertionError("half an artifact was left where nothing was before")


def report(campaign: Campaign) -> str:
    rows = "\n".join(
        f"| {phase} | {campaign.kills[phase]} | {campaign.left[phase, 'old']} | {campaign.left[phase, 'new']} |"
        for phase in PHASES
        if campaign.kills[phase]
    )
    total = sum(campaign.kills.values())
    return f"""# Writers killed at random moments

Written by `python -m tests.integration.crash_writer --kills {total} --report docs/benchmarks/crash.md`.

{total} writers of a {_ENGINE_SIZE // 2**20} MiB engine with 4 MiB of golden I/O were ended by SIGKILL while they put a
new artifact in the place of an old one. After each kill the destination was opened, every digest in it was checked, and
the file was compared with the two whole ones: it was always one of them, to the byte.

| phase in which the writer died | kills | the old artifact was left | the new one |
|---|---|---|---|
{rows}
| all | {total} | {sum(n for (_, what), n in campaign.left.items() if what == "old")} \
| {sum(n for (_, what), n in campaign.left.items() if what == "new")} |

{campaign.finished} more writers were done before the signal came. {campaign.parts} of the killed ones left their
unfinished `.part` file beside the destination: nothing reads it, and it may be deleted.

What this does not show: a loss of power. The file is synced before it is moved into place, and the folder after;
whether the disk keeps its word is not tested here.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=35)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, help="a Markdown file to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        campaign = run_campaign(options.kills, Path(folder), options.seed)
        nothing = Path(folder) / "nothing"
        nothing.mkdir()
        destination_stays_empty(nothing)
    if options.report:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(report(campaign))
    print(report(campaign))
    print("KILLS", dict(campaign.kills))


if __name__ == "__main__":
    main()
