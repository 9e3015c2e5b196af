"""The requirement that the system finds one copy of each library that an artifact needs, and the right one.

Python packages have copies of these libraries in their own folders. A second copy in a folder that the system searches
by itself (PATH on Windows, LD_LIBRARY_PATH on Linux) may be loaded instead, and be of a different release.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from toolchain.host.installed import package_folder
from toolchain.host.requirements import Requirement, State
from toolchain.manifest.models import Manifest
from toolchain.targets import Backend

NAME = "dll-search-path"
WINDOWS = sys.platform == "win32"


@dataclass(frozen=True)
class Library:
    """A library in a Python package.

    Attributes:
        package: the package's import name.
        file: the library's path below the package's folder, as a pattern.
        alike: a pattern for the file names of copies, of whatever release.
    """

    package: str
    file: str
    alike: str


_ON_WINDOWS = {
    None: (
        Library("torch", "lib/c10.dll", "c10.dll"),
        Library("torch", "lib/torch_cpu.dll", "torch_cpu.dll"),
        Library("torch_tensorrt", "lib/torchtrt.dll", "torchtrt.dll"),
    ),
    Backend.TENSORRT_RTX: (Library("tensorrt_rtx_libs", "tensorrt_rtx_[0-9]*.dll", "tensorrt_rtx_[0-9]*.dll"),),
    Backend.TENSORRT: (Library("tensorrt_libs", "nvinfer_[0-9]*.dll", "nvinfer_[0-9]*.dll"),),
}
_ON_LINUX = {
    None: (
        Library("torch", "lib/libc10.so", "libc10.so"),
        Library("torch", "lib/libtorch_cpu.so", "libtorch_cpu.so"),
        Library("torch_tensorrt", "lib/libtorchtrt.so", "libtorchtrt.so"),
    ),
    Backend.TENSORRT_RTX: (Library("tensorrt_rtx_libs", "libtensorrt_rtx.so.*", "libtensorrt_rtx.so*"),),
    Backend.TENSORRT: (Library("tensorrt_libs", "libnvinfer.so.*", "libnvinfer.so*"),),
}


def search_path_requirement(manifest: Manifest, reinstall: str, *, through_torch: bool = True) -> Requirement:
    """Returns whether the libraries are in their packages, and have no second copy on the search path.

    Args:
        reinstall: the command that installs them.
        through_torch: whether torch's and Torch-TensorRT's libraries are used too.
    """
    known = _ON_WINDOWS if WINDOWS else _ON_LINUX
    libraries = [*(known[None] if through_torch else ()), *known[manifest.target.backend]]
    whose = "torch's, Torch-TensorRT's and TensorRT's" if through_torch else "TensorRT's"
    needed = f"{whose} libraries, each found once"
    if absent := sorted({library.package for library in libraries if package_folder(library.package) is None}):
        found = f"not installed: {', '.join(absent)}"
        return Requirement(NAME, State.UNKNOWN, needed, found, reinstall)
    if missing := [library.file for library in libraries if not _own(library)]:
        again = f"again, with --force-reinstall: {reinstall}"
        return Requirement(NAME, State.NOT_MET, needed, f"missing: {', '.join(missing)}", again)
    if copies := list(dict.fromkeys(copy for library in libraries for copy in _second_copies(library))):
        variable = "PATH" if WINDOWS else "LD_LIBRARY_PATH"
        folders = ", ".join(dict.fromkeys(str(copy.parent) for copy in copies))
        found = "a second copy: " + ", ".join(map(str, copies))
        return Requirement(NAME, State.NOT_MET, needed, found, f"before Python starts, take off {variable}: {folders}")
    return Requirement(NAME, State.MET, needed, "each found once")


def searched_folders() -> Iterator[Path]:
    """Yields the folders that the system itself searches for libraries, in its order; other paths are left out."""
    if WINDOWS:
        texts = [str(Path(sys.executable).parent), rf"{os.environ.get('SYSTEMROOT', '')}\System32"]
        texts += os.environ.get("PATH", "").split(";")
    else:
        texts = os.environ.get("LD_LIBRARY_PATH", "").replace(";", ":").split(":")
    for text in filter(None, texts):
        folder = Path(text.strip('"'))
        try:
            if folder.is_dir():
                yield folder
        except (OSError, ValueError):  # no permission; or not a path at all
            continue


def _own(library: Library) -> list[Path]:
    """Returns the library's files in its package."""
    folder = package_folder(library.package)
    return sorted(folder.glob(library.file)) if folder else []


def _second_copies(library: Library) -> Iterator[Path]:
    own = _own(library)
    for folder in searched_folders():
        for path in sorted(folder.glob(library.alike)):
            if not any(_same(path, mine) for mine in own):
                yield path


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
