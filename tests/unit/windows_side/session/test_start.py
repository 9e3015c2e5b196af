"""The start of a session: the driver is started ahead, and kernels that are in their file are not written again."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cuda.bindings")

from tests.conftest import ROOT
from toolchain import open_artifact
from toolchain.convert import convert_artifact
from toolchain.errors import IncompatibleError
from toolchain.host.gpu_probe import probe_gpus
from toolchain.targets import Platform
from windows_side import Session
from windows_side.engines import driver, kernels
from windows_side.engines.driver import start_driver
from windows_side.engines.kernels import Kernels
from windows_side.kernel_files import KernelFile

IDENTITY = {"engines": "ab", "gpu": "Host sm_89"}


@pytest.mark.skipif(bool(probe_gpus().gpus), reason="there is a GPU here")
def test_a_machine_without_a_driver_is_left_to_cudas_runtime() -> None:
    assert not start_driver(0)


@pytest.mark.skipif(bool(probe_gpus().gpus) or sys.platform != "linux", reason="there is a GPU here, or no Linux")
def test_a_session_without_a_driver_says_that_and_what_to_do(tmp_path: Path) -> None:
    """The artifact fits this system, so that only the driver is missing; CUDA is started at the same time."""
    pytest.importorskip("tensorrt_rtx")
    with open_artifact(ROOT / "tests" / "compatibility" / "schema1" / "static.pt2") as artifact:
        convert_artifact(artifact, tmp_path / "here.pt2", Platform.LINUX_X86_64)
    with pytest.raises(IncompatibleError, match="driver") as caught:
        Session(tmp_path / "here.pt2", allow_unlisted_gpu=True)
    assert caught.value.remedy and "install NVIDIA's current driver" in caught.value.remedy


class Driver:
    """A stand-in for NVIDIA's library, which machines without a GPU lack."""

    def __init__(self, refuses: str = "") -> None:
        self.refuses, self.calls = refuses, list[str]()

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            self.calls.append(name)
            return 100 if name == self.refuses else 0

        return call


def test_the_driver_is_started_before_a_gpus_context_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Driver()
    monkeypatch.setattr(driver, "_library", lambda: library)
    assert start_driver(1)
    assert library.calls == ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain"]


def test_a_driver_that_finds_no_gpu_is_asked_for_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Driver(refuses="cuInit")
    monkeypatch.setattr(driver, "_library", lambda: library)
    assert not start_driver(0)
    assert library.calls == ["cuInit"]


class Config:
    """A stand-in for an engine's configuration and its runtime cache, which need a GPU; it counts the requests."""

    def __init__(self) -> None:
        self.kernels, self.serialized = b"", 0

    def create_runtime_cache(self) -> Config:
        return self

    def set_runtime_cache(self, cache: Config) -> None:
        assert cache is self

    def deserialize(self, kept: bytes) -> bool:
        self.kernels = kept
        return True

    def serialize(self) -> bytes:
        self.serialized += 1
        return self.kernels


class Current:
    """A stand-in for a GPU, which is always the current one."""

    def current(self) -> Any:
        from contextlib import nullcontext

        return nullcontext()


def attached(folder: Path) -> tuple[Kernels, Config]:
    found, config = Kernels(folder, IDENTITY, Current()), Config()
    found.attach(config)
    return found, config


def call(found: Kernels, *shape: int, seconds: float = 0.0) -> None:
    with found.watched():
        time.sleep(seconds)
    if found.are_new((shape,)):
        found.save()


def test_kernels_that_were_compiled_are_kept_after_the_first_call_of_each_size(tmp_path: Path) -> None:
    found, config = attached(tmp_path)
    config.kernels = b"one"
    call(found, 1)
    assert KernelFile(tmp_path, IDENTITY).read() == b"one"
    config.kernels = b"one and two"
    call(found, 2, seconds=2 * kernels._AT_ONCE)
    assert KernelFile(tmp_path, IDENTITY).read() == b"one and two"
    call(found, 2, seconds=2 * kernels._AT_ONCE)
    assert config.serialized == 2


def test_a_first_call_that_finds_its_kernels_does_not_write_them_again(tmp_path: Path) -> None:
    KernelFile(tmp_path, IDENTITY).write(b"one")
    found, config = attached(tmp_path)
    call(found, 1)
    assert config.serialized == 0
    config.kernels = b"one, and a better one that was compiled beside the call"
    found.save()  # as a session does when it is closed
    assert KernelFile(tmp_path, IDENTITY).read() == config.kernels
