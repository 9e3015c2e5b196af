"""The memory of this machine, and of the container that limits it."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolchain.host import memory

psutil = pytest.importorskip("psutil")


@pytest.fixture
def limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_CGROUP_LIMIT", path)
    return path


def test_a_containers_limit_comes_before_the_machines_own_memory(limit: Path) -> None:
    limit.write_text("1048576\n")
    assert (memory.total_memory(), memory.free_memory()) == (2**20, 2**20)


def test_what_a_container_has_used_is_not_free(limit: Path) -> None:
    limit.write_text("1048576\n")
    limit.with_name("memory.current").write_text("800000\n")
    limit.with_name("memory.stat").write_text("anon 500000\ninactive_file 300000\nactive_file 0\n")
    assert (memory.total_memory(), memory.free_memory()) == (2**20, 2**20 - 500_000)
    limit.with_name("memory.current").write_text(f"{2**22}\n")
    assert memory.free_memory() == 0


@pytest.mark.parametrize("text", ["max\n", None, f"{2**60}\n"])
def test_without_a_limit_it_is_the_machines(limit: Path, text: str | None) -> None:
    if text is not None:
        limit.write_text(text)
    assert memory.total_memory() == psutil.virtual_memory().total
    assert 0 < memory.free_memory() <= memory.total_memory()
