"""What an artifact is built for: platforms, GPU compute capabilities, backends."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from enum import Enum

from toolchain.errors import UsageError

DEVICE = "cuda:0"
"""The device of an artifact's values; the artifact is loaded there unless the caller names another device."""


class Platform(str, Enum):
    """An operating system and processor, as our command line spells it."""

    WINDOWS_X86_64 = "windows-x86_64"
    LINUX_X86_64 = "linux-x86_64"

    @property
    def runtime_name(self) -> str:
        """The platform as Torch-TensorRT's C++ runtime spells it (``core/runtime/Platform.cpp``)."""
        return self.value.replace("-", "_")

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Reads a platform as the command line spells it.

        Raises:
            UsageError: there is no such target platform.
        """
        try:
            return cls(text)
        except ValueError:
            raise UsageError(
                f"there is no target platform {text!r}",
                where="--target",
                remedy="use one of: " + ", ".join(p.value for p in cls),
            ) from None


def host_platform() -> str:
    """Returns this machine's platform in the spelling of :class:`Platform`; it need not be a target."""
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


# Names by which people know GPUs, and their capability on NVIDIA's list.
_GPU_NAMES = {
    "sm_75": r"(RTX|GTX)?20[5678]0.*|GTX16[56]0.*|T4|T1000|QUADRORTX\d+",
    "sm_80": r"A100.*|A30",
    "sm_86": r"(RTX)?30[5678]0.*|(RTX)?3090.*|A10G?|A16|A2|A40|(RTX)?A[2456]\d00",
    "sm_89": r"(RTX)?40[5678]0.*|(RTX)?4090.*|L4|L40S?|(RTX)?\d000ADA",
    "sm_90": r"H[12]00.*|GH200",
    "sm_120": r"(RTX)?50[5678]0.*|(RTX)?5090.*|RTXPRO\d000.*",
}


@dataclass(frozen=True, order=True)
class ComputeCapability:
    """An NVIDIA GPU generation, such as ``sm_89`` (8.9)."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> ComputeCapability:
        """Reads ``sm_89``, ``sm89`` or ``8.9``.

        Raises:
            UsageError: the text is none of these; for a GPU's name, the remedy gives the GPU's capability.
        """
        match = re.fullmatch(r"sm_?(\d{1,2})(\d)|(\d{1,2})\.(\d)", text, re.ASCII | re.IGNORECASE)
        if match:
            return cls(int(match[1] or match[3]), int(match[2] or match[4]))
        named = capability_of_gpu(text)
        raise UsageError(
            f"{text!r} is not a GPU compute capability",
            where="--gpu",
            remedy=f"a GPU of that name has {named}: write --gpu {named}"
            if named
            else "write it as sm_86, sm_89, sm_120; "
            "`nvidia-smi --query-gpu=compute_cap --format=csv` tells a machine's own",
        )

    def __str__(self) -> str:
        return f"sm_{self.major}{self.minor}"


AMPERE = ComputeCapability(8, 0)


def capability_of_gpu(name: str) -> str | None:
    """Looks up the capability of a GPU by its name, such as ``RTX 4090``; None if the name is not known."""
    bare = re.sub(r"nvidia|geforce|[\s_-]", "", name, flags=re.IGNORECASE).upper()
    return next((capability for capability, names in _GPU_NAMES.items() if re.fullmatch(names, bare)), None)
