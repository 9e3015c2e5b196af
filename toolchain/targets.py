"""Where an artifact shall run: platforms, GPU compute capabilities, backends."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from enum import Enum

from toolchain.errors import UsageError

DEVICE = "cuda:0"
"""The device of an artifact's values, and where it is loaded unless the caller names another."""


class Platform(str, Enum):
    """An operating system and processor, as our command line spells it."""

    WINDOWS_X86_64 = "windows-x86_64"
    LINUX_X86_64 = "linux-x86_64"

    @property
    def runtime_name(self) -> str:
        """The spelling of Torch-TensorRT's C++ runtime (``core/runtime/Platform.cpp``)."""
        return self.value.replace("-", "_")

    @classmethod
    def parse(cls, text: str) -> Platform:
        try:
            return cls(text)
        except ValueError:
            raise UsageError(
                f"there is no target platform {text!r}",
                where="--target",
                remedy="use one of: " + ", ".join(p.value for p in cls),
            ) from None


def host_platform() -> str:
    """This machine, in the spelling of :class:`Platform`; may name one that is no target."""
    machine = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}.get(
        platform.machine().lower(), platform.machine().lower()
    )
    return f"{platform.system().lower()}-{machine}"


class Backend(str, Enum):
    """Which TensorRT builds the engine."""

    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"

    @property
    def portable(self) -> bool:
        """Whether one engine runs on every platform (NVIDIA: TensorRT-RTX engines do)."""
        return self is Backend.TENSORRT_RTX

    @property
    def magic(self) -> str:
        """The first four bytes of its engines."""
        return "vtrt" if self is Backend.TENSORRT_RTX else "ftrt"

    @property
    def distributions(self) -> tuple[str, str]:
        """The distributions that hold its Torch-TensorRT and its TensorRT."""
        if self is Backend.TENSORRT_RTX:
            return "torch-tensorrt-rtx", "tensorrt-rtx"
        return "torch-tensorrt", "tensorrt"


_CAPABILITY = re.compile(r"sm_(\d+)(\d)", re.ASCII)


@dataclass(frozen=True, order=True)
class ComputeCapability:
    """An NVIDIA GPU generation, such as ``sm_89`` (8.9)."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> ComputeCapability:
        match = _CAPABILITY.fullmatch(text)
        if not match:
            raise UsageError(
                f"{text!r} is not a GPU compute capability",
                where="--gpu",
                remedy="write it as sm_86, sm_89, sm_120; "
                "`nvidia-smi --query-gpu=compute_cap --format=csv` tells a machine's own",
            )
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"sm_{self.major}{self.minor}"


AMPERE = ComputeCapability(8, 0)
