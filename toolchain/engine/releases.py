"""Torch-TensorRT's releases, as data: the ABI version of their engine info, and which TensorRT each runs."""

from __future__ import annotations

from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

from toolchain.targets import Backend


@dataclass(frozen=True)
class Release:
    """One release of Torch-TensorRT, which goes with the torch of the same number.

    Attributes:
        abi: the ABI version of its engine info.
        runtimes: the release (two numbers) of TensorRT or TensorRT-RTX that its wheels require.
    """

    abi: int
    runtimes: dict[Backend, str]


def _release(abi: int, tensorrt: str, tensorrt_rtx: str | None = None) -> Release:
    return Release(abi, {Backend.TENSORRT: tensorrt} | ({Backend.TENSORRT_RTX: tensorrt_rtx} if tensorrt_rtx else {}))


# The wheels' own requirements. 2.11 and 2.12.0 require a release of TensorRT-RTX or any later one; engines do not run
# across its releases, so the earliest counts.
RELEASES = {
    "2.6": _release(6, "10.7"),
    "2.7": _release(7, "10.9"),
    "2.8": _release(7, "10.12"),
    "2.9": _release(7, "10.13"),
    "2.10": _release(7, "10.14"),
    "2.11": _release(8, "10.15", "1.3"),
    "2.12": _release(9, "10.16", "1.4"),
    "2.13": _release(9, "11.0", "1.5"),
    "2.14": _release(10, "11.1", "1.6"),
}


def release_of(torch_version: str, abi: int) -> str | None:
    """Returns the release that goes with a torch version, if its engine info has this ABI version; otherwise None."""
    try:
        name = ".".join(map(str, Version(torch_version).release[:2]))
    except InvalidVersion:
        return None
    return name if name in RELEASES and RELEASES[name].abi == abi else None


def runs(release: str, backend: Backend, runtime: str) -> bool:
    """Whether a release of Torch-TensorRT runs engines of this exact release of TensorRT."""
    needed = RELEASES[release].runtimes.get(backend)
    return needed is not None and runtime.split(".")[:2] == needed.split(".")
