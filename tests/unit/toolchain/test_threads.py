"""One open artifact, read by many threads at once."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from tests.unit.handmade import Handmade, plan
from toolchain import open_artifact
from toolchain.artifact import Artifact
from toolchain.checker.structure import check_structure
from toolchain.container.splice import spliced_archive

THREADS = 8
ENGINES = [plan(random.Random(i).randbytes(5 * 2**20 + i)) for i in range(3)]
WEIGHTS = {f"data/weights/weight_{i}": random.Random(i).randbytes(3 * 2**20) for i in range(3)}


@pytest.fixture(params=[True, False], ids=["positioned", "locked"])
def artifact(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifact:
    """An open artifact, with the system's positioned reads and without them, as on Windows."""
    if not request.param:
        monkeypatch.delattr(os, "pread", raising=False)
        monkeypatch.delattr(os, "preadv", raising=False)
    return open_artifact(Handmade(engines=ENGINES, entries=WEIGHTS).write(tmp_path / "a.pt2"))


def _engine(opened: Artifact, index: int) -> bool:
    return opened.engines[index % 3].read() == ENGINES[index % 3]


def _stream(opened: Artifact, index: int) -> bool:
    with opened.engines[index % 3].open() as stream:
        return b"".join(iter(lambda: stream.read(99_999), b"")) == ENGINES[index % 3]


def _entry(opened: Artifact, index: int) -> bool:
    name = list(WEIGHTS)[index % 3]
    return opened.read_entry(name) == WEIGHTS[name]


def _weights_as_torch_reads_them(opened: Artifact, index: int) -> bool:
    name = list(WEIGHTS)[index % 3]
    entry = opened.container.entries[name]
    with spliced_archive(opened.container, [(name, entry)]) as file:
        return WEIGHTS[name] in file.read()


def _everything(opened: Artifact, _: int) -> bool:
    opened.check_integrity()
    return check_structure(opened)["placeholder_nodes"] == 3


READS = [_engine, _stream, _entry, _weights_as_torch_reads_them, _everything]


@pytest.mark.parametrize("together", [[read] for read in READS] + [READS], ids=lambda reads: reads[0].__name__)
def test_threads_read_what_one_reads(artifact: Artifact, together: list[Callable[[Artifact, int], bool]]) -> None:
    start = Barrier(THREADS)

    def work(index: int) -> bool:
        start.wait()
        return all(together[(index + turn) % len(together)](artifact, index + turn) for turn in range(3))

    with artifact, ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(work, range(THREADS))) == [True] * THREADS
