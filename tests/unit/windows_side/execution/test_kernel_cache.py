"""The files of compiled kernels: each has one owner, is whole or not used, and their sizes are limited.

tests/gpu has real kernels.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

import torch

from windows_side.execution import kernel_cache as runtime_cache
from windows_side.execution.kernel_cache import RuntimeCache
from windows_side.kernel_files import KernelFile, prune

OF = {"engines": "ab", "gpu": "NVIDIA RTX 4090 sm_89", "driver": "580.1", "runtime": "1.6.1.120", "platform": "w"}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    assert KernelFile(tmp_path, OF).read() is None
    KernelFile(tmp_path, OF).write(b"kernels\nof\0any kind")
    assert KernelFile(tmp_path, OF).read() == b"kernels\nof\0any kind"


@pytest.mark.parametrize("key", OF)
def test_no_other_engine_gpu_driver_or_runtime_finds_it(tmp_path: Path, key: str) -> None:
    KernelFile(tmp_path, OF).write(b"kernels")
    other = KernelFile(tmp_path, {**OF, key: "another"})
    assert other.read() is None
    KernelFile(tmp_path, OF).path.rename(other.path)  # not even under the other's name
    assert other.read() is None


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    file = KernelFile(tmp_path, OF)
    file.write(b"kernels")
    data = file.path.read_bytes()
    for index in range(len(data)):
        file.path.write_bytes(data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :])
        assert KernelFile(tmp_path, OF).read() is None
    file.path.write_bytes(data[:-1])
    assert KernelFile(tmp_path, OF).read() is None


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    for age, name in enumerate("abc"):
        path = tmp_path / f"{name}.kernels"
        path.write_bytes(bytes(10))
        os.utime(path, (1000 - age, 1000 - age))
    (tmp_path / "left.part").write_bytes(b"of a killed process")
    prune(tmp_path, 25)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.kernels", "b.kernels"]


class Handle:
    """Replaces TensorRT-RTX's handle, which serializes nothing without a GPU; it has one byte more each time."""

    def __init__(self, _: str) -> None:
        self.saves = 0

    def serialize(self) -> torch.Tensor:
        self.saves += 1
        return torch.ones(self.saves, dtype=torch.uint8)


def test_kernels_are_kept_once_for_each_set_of_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_cache, "current_gpu", lambda device: nullcontext())
    monkeypatch.setattr(torch.classes, "tensorrt", SimpleNamespace(RuntimeCacheHandle=Handle), raising=False)
    cache = RuntimeCache(tmp_path, OF, torch.device("cuda:0"))
    small, large = torch.ones(1, 8), torch.ones(4, 8)
    for leaves in ((small, 3), (small, 3), (large, 3), (small, 3), (large, 3)):
        cache.after_call(leaves)
    assert cache.handle.saves == 2
    runtime_cache._save_all()
    assert KernelFile(tmp_path, OF).read() == b"\1\1\1"
    runtime_cache._CALLED.clear()


def _write_many(folder: Path, number: int) -> None:
    for turn in range(30):
        KernelFile(folder, OF).write(bytes([number]) * 100_000 + bytes([turn]))


def test_processes_share_a_folder(tmp_path: Path) -> None:
    context = get_context("spawn")
    writers = [context.Process(target=_write_many, args=(tmp_path, number)) for number in (1, 2)]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        kernels = KernelFile(tmp_path, OF).read()
        if kernels:
            seen.add(kernels[:100_000])
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert seen <= {bytes([number]) * 100_000 for number in (1, 2)} and seen
    assert not list(tmp_path.glob("*.part"))
