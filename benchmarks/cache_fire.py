"""Stress-tests the build cache: readers, a writer, processes killed at random moments, a full and a read-only disk.

    python -m benchmarks.cache_fire --kills 400

Readers take entries while a writer adds them, so that older ones are evicted all the time. Further processes are killed
at a random moment of a phase that was drawn before. They report over a pipe which phase they enter; pauses, which do
not change the files, stretch phases that last microseconds. After each kill every entry is read to the last byte.
Mounting a small disk needs root; without it that part is skipped and reported as not run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from linux_side.cache import lookup, store
from linux_side.cache.lookup import fetch, open_checked
from linux_side.cache.store import BuildCache, CacheEntry
from tests.integration.killing import Tell, kill_in_phase
from tests.unit.handmade import Handmade, plan
from toolchain import open_artifact
from toolchain.container import writer as container_writer
from toolchain.container.entry_names import MANIFEST_ENTRY
from toolchain.errors import BuildFailedError

ADDING = ("before the lock", "evicting", "copying", "syncing", "moving")
TAKING = ("checking", "writing", "replacing")
AFTER = "after"
PHASES = (*ADDING, *TAKING, AFTER)
ENTRY_SIZE = 3 * 2**20
KEYS = 12
FIT = 6  # how many of the entries fit into the cache at once
READERS = 3
_PAUSE = 0.003
_CHUNK = 64 * 1024


class Builds:
    """Artifacts as builds write them, each with a cache key of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.keys = [hashlib.sha256(str(index).encode()).hexdigest() for index in range(KEYS)]
        self.digests = {key: self._write(key) for key in self.keys}

    def path(self, key: str) -> Path:
        return self.folder / f"{key}.pt2"

    def _write(self, key: str) -> dict[str, str]:
        def edit(document: dict[str, Any]) -> None:
            document["build"] = {"seconds": {}, "cache_key": key, "from_cache": False}

        Handmade(engines=[plan(os.urandom(ENTRY_SIZE * 3 // 4))], edit_manifest=edit).write(self.path(key))
        return contents(self.path(key))


def contents(path: Path) -> dict[str, str]:
    """Returns the digest of every entry; the manifest is taken without the members that a second build may change."""
    with open_artifact(path) as artifact:
        found = {name: artifact.container.sha256(name) for name in artifact.container.entries if name != MANIFEST_ENTRY}
        manifest = artifact.manifest.model_copy(update={"created": None, "build": None}).to_json()
    return {**found, MANIFEST_ENTRY: hashlib.sha256(manifest.encode()).hexdigest()}


@dataclass
class Campaign:
    """The results of a campaign.

    Attributes:
        kills: the number of kills by the phase in which the process died.
        reads: the number of reads by their result: ``taken`` or ``missing``.
        finished: processes that finished before the signal.
        entries_checked: entries that were read after kills.
        added: entries that the writer added.
        leftovers: partial folders that were found after kills.
    """

    kills: Counter[str] = field(default_factory=Counter)
    reads: Counter[str] = field(default_factory=Counter)
    finished: int = 0
    entries_checked: int = 0
    added: int = 0
    leftovers: int = 0


def run_campaign(kills: int, folder: Path, seed: int = 0) -> Campaign:
    """Kills processes until ``kills`` of them died, spread evenly over the phases.

    Raises:
        AssertionError: a reader got, or an entry holds, something other than the whole artifact of its key.
    """
    chance, campaign = random.Random(seed), Campaign()
    builds = Builds(folder / "builds")
    cache = BuildCache(folder / "cache", FIT * ENTRY_SIZE + ENTRY_SIZE // 2)
    (folder / "out").mkdir()
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    others = [
        context.Process(target=_reader, args=(cache, builds, folder / "out", number, stop)) for number in range(READERS)
    ]
    others.append(context.Process(target=_writer, args=(cache, builds, folder / "out", stop)))
    for process in others:
        process.start()
    try:
        while sum(campaign.kills.values()) < kills:
            target = min(PHASES[:-1], key=lambda phase: (campaign.kills[phase], chance.random()))
            _kill_one(campaign, cache, builds, folder / "out", target, chance)
            campaign.leftovers += len(list(cache.folder.glob(".part-*")))
            campaign.entries_checked += check_entries(cache, builds)
            assert all(process.is_alive() for process in others), "a reader or the writer gave up"
    finally:
        stop.set()
        for process in others:
            process.join(60)
            process.kill()
    for path in (folder / "out").glob("*.json"):
        report = json.loads(path.read_text())
        assert not report["wrong"], report["wrong"]
        campaign.reads.update(report["reads"])
        campaign.added += report["added"]
    cache.remove([])  # removes partial folders, as the next build that adds an entry does
    assert not list(cache.folder.glob(".part-*"))
    assert sum(entry.size for entry in cache.entries()) <= cache.limit
    return campaign


def check_entries(cache: BuildCache, builds: Builds) -> int:
    """Reads every entry to the last byte, and returns the number of entries.

    Raises:
        AssertionError: an entry is damaged.
    """
    checked = 0
    for entry in cache.entries():
        if (problem := entry_problem(cache, entry)) is not None:
            raise AssertionError(f"{entry.key}: {problem}")
        checked += 1
    return checked


def entry_problem(cache: BuildCache, entry: CacheEntry) -> str | None:
    """Returns what is wrong with an entry; an entry that is evicted meanwhile is not wrong."""
    try:
        open_checked(entry).close()
    except Exception as error:  # noqa: BLE001 - any error of an entry that is still there is a finding
        return str(error) if cache.holds(entry) else None
    return None


def _reader(cache: BuildCache, builds: Builds, out: Path, number: int, stop: Any) -> None:
    chance, reads, wrong = random.Random(number), Counter[str](), list[str]()
    path = out / f"reader-{number}.pt2"
    while not stop.is_set():
        key = chance.choice(builds.keys)
        if fetch(cache, key, path, {}, wrong.append):
            reads["taken"] += 1
            if contents(path) != builds.digests[key]:
                wrong.append(f"a reader got an artifact that is not the one of {key}")
        else:
            reads["missing"] += 1
            time.sleep(0.002)
    path.with_suffix(".json").write_text(json.dumps({"reads": reads, "wrong": wrong, "added": 0}))


def _writer(cache: BuildCache, builds: Builds, out: Path, stop: Any) -> None:
    chance, added = random.Random(99), 0
    while not stop.is_set():
        key = chance.choice(builds.keys)
        if cache.find(key) is None and cache.add(key, builds.path(key)):
            added += 1
        time.sleep(0.03)
    (out / "writer.json").write_text(json.dumps({"reads": {}, "wrong": [], "added": added}))


def _kill_one(
    campaign: Campaign, cache: BuildCache, builds: Builds, out: Path, target: str, chance: random.Random
) -> None:
    path = out / "victim.pt2"
    found = {entry.key for entry in cache.entries()}
    wanted = [key for key in builds.keys if (key in found) == (target in TAKING)]
    if not wanted:
        return
    key = chance.choice(wanted)
    shutil.copyfile(builds.path(builds.keys[0]), path)
    before = contents(path)

    def work(tell: Tell) -> None:
        _tell_phases(tell)
        if target in TAKING:
            fetch(cache, key, path, {}, print)
        else:
            cache.add(key, builds.path(key))

    died = kill_in_phase(work, PHASES, target, chance.uniform(0, 3 * _PAUSE))
    after = contents(path)
    for part in out.glob(".victim*.part"):
        part.unlink()
    assert after in (before, builds.digests[key]), "the destination is neither what was there nor the new artifact"
    if died in (None, AFTER):
        campaign.finished += 1
    else:
        campaign.kills[died] += 1


def _tell_phases(tell: Callable[[str], object]) -> None:
    """Wraps functions of the cache, so that each phase is reported and lasts long enough to be hit."""

    def wrap(owner: Any, name: str, phase: str, instead: Callable[..., Any] | None = None) -> None:
        function = instead or getattr(owner, name)

        def told(*arguments: Any, **keywords: Any) -> Any:
            tell(phase)
            time.sleep(_PAUSE)
            result = function(*arguments, **keywords)
            time.sleep(_PAUSE)
            return result

        setattr(owner, name, told)

    wrap(BuildCache, "_take_away", "evicting")
    wrap(shutil, "rmtree", "evicting")
    wrap(shutil, "copyfile", "copying", _slow_copy)
    wrap(store, "sync", "syncing")
    wrap(BuildCache, "_part", "copying")
    wrap(lookup, "open_checked", "checking")
    wrap(lookup, "_write", "writing")
    wrap(container_writer, "replace_file", "replacing")
    rename = Path.rename

    def moving(self: Path, target: Path) -> Path:
        tell("moving" if self.name.startswith(".part-") else "evicting")
        time.sleep(_PAUSE)
        moved = rename(self, target)
        time.sleep(_PAUSE)
        return moved

    Path.rename = moving  # type: ignore[method-assign, assignment]
    tell(ADDING[0])
    time.sleep(_PAUSE)


def _slow_copy(source: Path, destination: Path) -> None:
    with source.open("rb") as file, destination.open("wb") as copy:
        while chunk := file.read(_CHUNK):
            copy.write(chunk)
            time.sleep(_PAUSE / 40)


def kill_builds(count: int, folder: Path, seed: int = 0) -> dict[str, int]:
    """Kills whole builds, parent and child, at random moments; the last one is not killed, and must succeed."""
    chance, outcome = random.Random(seed), Counter[str]()
    out, cache = folder / "out.pt2", BuildCache(folder / "cache", 2**30)
    environment = {
        **os.environ,
        store.FOLDER_VARIABLE: str(cache.folder),
        store.LIMIT_VARIABLE: "1GiB",
        "TMPDIR": str(folder),
    }
    command = [sys.executable, "-m", "toolchain", "build", "tests.models:tiny", "-o", out]
    length = 8.0
    for number in range(count + 1):
        start = time.monotonic()
        build = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            build.wait(chance.uniform(0, length) if number < count else 300)
            assert build.returncode == 0
            length = time.monotonic() - start
            outcome["finished"] += 1
        except subprocess.TimeoutExpired:
            os.killpg(build.pid, signal.SIGKILL)
            build.wait()
            outcome["killed"] += 1
        if out.exists():
            outcome["artifact there"] += bool(contents(out))
            out.unlink()
        for entry in cache.entries():
            open_checked(entry).close()
        for entry in cache.entries() if chance.random() < 0.5 else ():
            cache.remove([entry])  # so that some are built and some are taken
    assert number == count and len(cache.entries()) <= 1
    return dict(outcome)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Mounts a file system of ``size`` bytes.

    Raises:
        PermissionError: no file system can be mounted here.
    """
    disk = folder / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        raise PermissionError(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def full_disk(rounds: int, folder: Path) -> dict[str, int]:
    """Adds to a cache whose disk is smaller than its limit, then fetches to a destination on the full disk."""
    builds, outcome = Builds(folder / "builds"), Counter[str]()
    with small_disk(folder, 2 * ENTRY_SIZE + ENTRY_SIZE // 2) as disk:
        cache = BuildCache(disk / "cache", KEYS * ENTRY_SIZE * 2)
        for number in range(rounds):
            key = builds.keys[number % KEYS]
            try:
                cache.add(key, builds.path(key))
                outcome["added"] += 1
            except OSError:
                outcome["refused"] += 1
            outcome["entries checked"] += check_entries(cache, builds)
            assert not list(cache.folder.glob(".part-*"))
        warnings: list[str] = []
        kept = cache.entries()[0].key
        out = disk / "out.pt2"
        out.write_bytes(b"old")
        try:
            fetch(cache, kept, out, {}, warnings.append)
            raise AssertionError("the disk is not full")
        except BuildFailedError:
            outcome["destination full"] += 1
        assert out.read_bytes() == b"old" and sorted(path.name for path in disk.iterdir()) == ["cache", "out.pt2"]
        assert check_entries(cache, builds) and not warnings
    return dict(outcome)


def read_only_disk(rounds: int, folder: Path) -> dict[str, int]:
    """Fetches from a cache on a read-only disk, and tries to add to it."""
    builds, outcome = Builds(folder / "builds"), Counter[str]()
    first, second = builds.keys[:2]
    with small_disk(folder, 8 * ENTRY_SIZE) as disk:
        cache = BuildCache(disk / "cache", KEYS * ENTRY_SIZE)
        cache.add(first, builds.path(first))
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        warnings: list[str] = []
        for _ in range(rounds):
            assert fetch(cache, first, folder / "out.pt2", {}, warnings.append)
            assert contents(folder / "out.pt2") == builds.digests[first]
            outcome["taken"] += 1
            try:
                cache.add(second, builds.path(second))
            except OSError:
                outcome["refused"] += 1
        assert not warnings and outcome["refused"] == rounds
    return dict(outcome)


def report(campaign: Campaign, seconds: float, disks: dict[str, dict[str, int]]) -> str:
    rows = "\n".join(f"| {phase} | {campaign.kills[phase]} |" for phase in PHASES[:-1])
    disk_lines = "\n".join(f"{name}: {json.dumps(outcome)}" for name, outcome in disks.items())
    return f"""| phase in which the process died | kills |
|---|---|
{rows}
| all | {sum(campaign.kills.values())} |

{seconds:.0f} s; {campaign.finished} more were done before the signal came. Meanwhile {READERS} readers took
{campaign.reads["taken"]} artifacts and found nothing {campaign.reads["missing"]} times; the writer added \
{campaign.added}.
Entries read to the last byte after the kills: {campaign.entries_checked}. Unfinished folders left by the killed: \
{campaign.leftovers}.

{disk_lines}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=50, help="on a full and on a read-only disk")
    parser.add_argument("--builds", type=int, default=0, help="whole builds to kill, some seconds each")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.monotonic()
    disks: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        campaign = run_campaign(options.kills, Path(folder), options.seed)
        seconds = time.monotonic() - start
    for run in (full_disk, read_only_disk):
        with tempfile.TemporaryDirectory() as folder:
            try:
                disks[run.__name__] = run(options.rounds, Path(folder))
            except PermissionError as error:
                print(f"NOT RUN: {run.__name__}: {error}")
    if options.builds:
        with tempfile.TemporaryDirectory() as folder:
            disks["kill_builds"] = kill_builds(options.builds, Path(folder), options.seed)
    print(report(campaign, seconds, disks))
    print("KILLS", dict(campaign.kills))


if __name__ == "__main__":
    main()
