"""This machine's memory, and the limits of the control groups around us, in trees laid out as Linux lays them out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, in_group
from toolchain.host import memory

psutil = pytest.importorskip("psutil")

MIB = 2**20
UNLIMITED = 9223372036854771712  # what version 1 has for no limit


class Groups:
    """Control groups in a folder.

    Attributes:
        version: 1 or 2.
    """

    def __init__(self, folder: Path, version: int) -> None:
        self.version = version
        self._own, self._folder = folder / "cgroup", folder / ("memory" if version == 1 else "")
        self.member_of("/")

    def member_of(self, path: str) -> None:
        other = "3:cpuset:/elsewhere\n2:cpu,cpuacct:/\n"
        self._own.write_text(f"{other}4:memory:{path}\n1:name=systemd:/x\n" if self.version == 1 else f"0::{path}\n")

    def add(self, path: str, limit: int | str, used: int | None = None, droppable: int = 0) -> None:
        folder = self._folder / path.lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        first = self.version == 1
        (folder / ("memory.limit_in_bytes" if first else "memory.max")).write_text(f"{limit}\n")
        if used is not None:
            (folder / ("memory.usage_in_bytes" if first else "memory.current")).write_text(f"{used}\n")
            # In version 1 the group's own pages come first, and those of its subgroups too are in "total".
            own = f"cache 1\ninactive_file 1\ntotal_inactive_file {droppable}\n"
            (folder / "memory.stat").write_text(own if first else f"anon 5\ninactive_file {droppable}\nactive_file 0\n")


@pytest.fixture(params=[1, 2])
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Groups:
    monkeypatch.setattr(memory, "_ROOT", tmp_path)
    monkeypatch.setattr(memory, "_OWN_GROUPS", tmp_path / "cgroup")
    return Groups(tmp_path, request.param)


def test_a_containers_limit_comes_before_the_machines_own_memory(groups: Groups) -> None:
    groups.add("/", MIB)
    assert (memory.total_memory(), memory.free_memory()) == (MIB, MIB)


def test_what_a_container_has_used_is_not_free_but_for_pages_that_can_be_dropped(groups: Groups) -> None:
    groups.add("/", MIB, 800_000, 300_000)
    assert (memory.total_memory(), memory.free_memory()) == (MIB, MIB - 500_000)
    groups.add("/", MIB, 4 * MIB)
    assert memory.free_memory() == 0


def test_the_narrowest_of_the_groups_around_us_counts(groups: Groups) -> None:
    groups.add("/", 8 * MIB, 5 * MIB)
    groups.add("/service", 4 * MIB, 2 * MIB)
    groups.add("/service/job", 6 * MIB, MIB)
    groups.add("/other", MIB)
    groups.member_of("/service/job")
    assert (memory.total_memory(), memory.free_memory()) == (4 * MIB, 2 * MIB)


def test_a_container_that_sees_its_own_group_as_the_outermost_is_limited_by_it(groups: Groups) -> None:
    groups.add("/", MIB)
    groups.member_of("/docker/0123abcd")  # the name outside, under which there is nothing inside
    assert memory.total_memory() == MIB


@pytest.mark.parametrize("limit", ["max", UNLIMITED, ""])
def test_without_a_limit_it_is_the_machines(groups: Groups, limit: int | str) -> None:
    groups.add("/", limit, 2**40)
    assert memory.total_memory() == psutil.virtual_memory().total
    assert 0 < memory.free_memory() <= memory.total_memory()


def test_where_there_are_no_groups_it_is_the_machines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_OWN_GROUPS", tmp_path / "nothing")
    assert memory.total_memory() == psutil.virtual_memory().total


@pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")
def test_a_limit_of_a_real_group_is_seen(memory_group: Path) -> None:
    program = "from toolchain.host import memory; print(memory.total_memory(), memory.free_memory())"
    command = in_group(memory_group, sys.executable, "-c", program)
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True)
    total, free = map(int, done.stdout.split())
    assert total == 700 * MIB and 600 * MIB < free < total
