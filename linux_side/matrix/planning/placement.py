"""Decides whether a machine can build or verify a cell, and gives the reason if it cannot."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder

from linux_side.matrix.planning.hosts import Host
from linux_side.matrix.spec.cells import Cell
from toolchain.checker.structure import LEVELS
from toolchain.engine.plan_header import CAPABILITY_BITS
from toolchain.factory import FactoryName, is_factory
from toolchain.targets import Backend, Platform
from toolchain.text import size_text

_RTX_GPUS = {str(capability) for capability in CAPABILITY_BITS.values()}


def spec_blocker(cell: Cell) -> str | None:
    """Returns why no machine at all can build a cell; None if one may."""
    if missing := _no_model(cell):
        return missing
    target = cell.target
    if target.backend is Backend.TENSORRT:
        return "an engine of TensorRT is for one GPU generation" if len(set(target.gpus)) > 1 else None
    if unknown := [gpu for gpu in target.gpus if gpu not in _RTX_GPUS]:
        return f"TensorRT-RTX builds no engine for {', '.join(unknown)}"
    if "sm_75" in target.gpus and len(set(target.gpus)) > 1:
        return "an engine for Turing (sm_75) runs on Turing alone"
    return None


def _no_model(cell: Cell) -> str | None:
    """Returns why a cell's model cannot be found; None if it can.

    Nothing is imported, so a factory that is missing in its module is reported by the build.
    """
    base = cell.base.absolute()
    if (base / cell.model).exists():
        return None
    if not is_factory(cell.model):
        return f"there is no file {cell.model}, looked for in {base}"
    factory = FactoryName.parse(cell.model)
    if factory.path:
        return None if factory.source(base) else f"there is no file {factory.path}, looked for in {base}"
    package = factory.module.partition(".")[0]
    found = PathFinder.find_spec(package, [str(base), *sys.path])
    return None if found else f"there is no module {package}, looked for in {base} and in this environment"


def build_blocker(cell: Cell, host: Host, memory: int) -> str | None:
    """Returns why a machine cannot build a cell; None if it can.

    Args:
        cell: the cell.
        host: the machine.
        memory: the expected peak memory of the build, in bytes.
    """
    target = cell.target
    if host.platform != Platform.LINUX_X86_64.value:
        return f"artifacts are built on {Platform.LINUX_X86_64.value}, not on {host.platform}"
    release = host.backends.get(target.backend)
    if release is None:
        return f"the backend needs {' and '.join(target.backend.distributions)}, not installed"
    if target.version and not _begins(release, target.version):
        return f"{target.backend.distributions[1]} {target.version} is wanted, {release} installed"
    if target.backend is Backend.TENSORRT and not host.gpus:
        return "the backend tensorrt needs a GPU of the target's kind, and there is none"
    if target.backend is Backend.TENSORRT and target.gpus and target.gpus[0] not in host.gpus:
        return f"the backend tensorrt needs a GPU of {target.gpus[0]}; there: {', '.join(host.gpus)}"
    if target.accelerator and target.accelerator not in host.accelerators:
        there = ", ".join(host.accelerators) or "no GPU"
        return f"it asks for the accelerator {target.accelerator}; there: {there}"
    if host.memory and memory > host.memory:
        return f"the build needs about {size_text(memory)} of memory; there: {size_text(host.memory)}"
    return None


def needs_gpu(level: str) -> bool:
    """Returns whether a level of verification loads the engines."""
    return LEVELS.index(level) >= LEVELS.index("load")


def verify_blocker(cell: Cell, level: str, host: Host) -> str | None:
    """Returns why a machine cannot verify a cell's artifact to a level; None if it can."""
    if not needs_gpu(level):
        return None
    if host.platform != cell.target.platform.value:
        return f"loading it needs {cell.target.platform.value}"
    if not host.gpus:
        return "loading it needs an NVIDIA GPU"
    if cell.target.gpus and not set(cell.target.gpus) & set(host.gpus):
        return f"loading it needs a GPU of {', '.join(cell.target.gpus)}; there: {', '.join(host.gpus)}"
    return None


def _begins(release: str, wanted: str) -> bool:
    return release.split(".")[: wanted.count(".") + 1] == wanted.split(".")
