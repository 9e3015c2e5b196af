"""Loads Torch-TensorRT's C++ runtime without its Python package: the operator and the engine class, in under a second.

The library is the very file that ``import torch_tensorrt`` loads, so importing that before or after works. Loading
``libtorchtrt_runtime.so`` instead would register everything a second time and abort.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import warnings
from pathlib import Path

from toolchain.errors import MissingComponentError
from toolchain.host.installed import package_folder
from toolchain.targets import Backend

# The folder and the file pattern of TensorRT's own library, by backend and by whether the system is Windows.
_TENSORRT = {
    (Backend.TENSORRT_RTX, False): ("tensorrt_rtx_libs", "libtensorrt_rtx.so.*"),
    (Backend.TENSORRT_RTX, True): ("tensorrt_rtx_libs", "tensorrt_rtx_*.dll"),
    (Backend.TENSORRT, False): ("tensorrt_libs", "libnvinfer.so.*"),
    (Backend.TENSORRT, True): ("tensorrt_libs", "nvinfer_[0-9]*.dll"),
}


def load_runtime(backend: Backend) -> None:
    """Registers ``torch.classes.tensorrt.Engine`` and ``tensorrt::execute_engine`` in this process.

    Raises:
        MissingComponentError: TensorRT or Torch-TensorRT is not installed, or cannot be loaded.
    """
    if "torch_tensorrt" in sys.modules:
        return
    windows = sys.platform == "win32"
    folder, pattern = _TENSORRT[backend, windows]
    torch_tensorrt, tensorrt = backend.distributions
    library = _find(folder, pattern, tensorrt)
    runtime = _find("torch_tensorrt", "lib/torchtrt.dll" if windows else "lib/libtorchtrt.so", torch_tensorrt)
    import torch

    try:
        if windows:
            os.add_dll_directory(str(library.parent))  # type: ignore[attr-defined, unused-ignore]
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
        torch.ops.load_library(str(runtime))
    except OSError as error:
        _import_whole_package(runtime, error)


def _import_whole_package(runtime: Path, problem: OSError) -> None:
    """Imports the Python package, where its library does not load by itself.

    Raises:
        MissingComponentError: the import fails too.
    """
    try:
        importlib.import_module("torch_tensorrt")
    except Exception as error:
        raise MissingComponentError(
            f"Torch-TensorRT's runtime cannot be loaded: {problem}; nor can the whole package: {error}",
            where=str(runtime),
            remedy="`trtcross check ARTIFACT` names the version that is needed; a CPU-only torch is a common reason",
        ) from error
    warnings.warn(
        f"Torch-TensorRT's runtime does not load by itself ({problem}); the whole package was imported instead",
        stacklevel=3,
    )


def _find(package: str, pattern: str, distribution: str) -> Path:
    folder = package_folder(package)
    for path in sorted(folder.glob(pattern)) if folder else ():
        return path
    raise MissingComponentError(
        f"{distribution} is not installed",
        where="this Python environment",
        remedy=f"python -m pip install {distribution}; `trtcross check ARTIFACT` names the release",
    )
