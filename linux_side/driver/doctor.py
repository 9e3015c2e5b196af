"""What ``doctor`` reports about building artifacts on this machine."""

from __future__ import annotations

import shutil
import tempfile

from toolchain.host.installed import install_line, version_of
from toolchain.host.requirements import Requirement, State
from toolchain.targets import Platform, host_platform
from toolchain.text import size_text

_INSTALL = install_line("producer")
_DISK = 2 * 2**30


def build_requirements() -> list[Requirement]:
    """Returns the requirements for building with TensorRT-RTX, which do not include a GPU."""
    here, free = host_platform(), shutil.disk_usage(tempfile.gettempdir()).free
    linux = Platform.LINUX_X86_64.value
    return [
        _requirement("platform", here == linux, linux, here, "build on Linux"),
        *(_installed(name) for name in ("torch", "torch-tensorrt-rtx", "tensorrt-rtx")),
        _requirement(
            "disk", free >= _DISK, f"{size_text(_DISK)} in {tempfile.gettempdir()}", size_text(free), "set TMPDIR"
        ),
    ]


def _installed(distribution: str) -> Requirement:
    version = version_of(distribution)
    return _requirement(distribution, version is not None, distribution, version or "not installed", _INSTALL)


def _requirement(name: str, met: bool, needed: str, found: str, remedy: str) -> Requirement:
    return Requirement(name, State.MET if met else State.NOT_MET, needed, found, None if met else remedy)
