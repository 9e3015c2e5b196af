"""Preflight: decides whether an artifact can run on this machine, before any engine is touched. Imports no torch."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path

from packaging.version import Version

from toolchain.artifact import Artifact, open_artifact
from toolchain.engine.releases import RELEASES
from toolchain.errors import IncompatibleError
from toolchain.formats.plugins import plugins
from toolchain.host.gpu_probe import Gpus, probe_gpus
from toolchain.host.installed import torch_cuda, torch_version, version_of
from toolchain.host.requirements import Requirement, State
from toolchain.manifest.models import Manifest
from toolchain.targets import ComputeCapability, Platform, host_platform
from toolchain.text import size_text
from windows_side.preflight import search_path, wsl
from windows_side.preflight.tf32 import tf32_requirement

GPU_REQUIREMENT = "gpu"

# CUDA 13 needs at least this driver branch on both systems (NVIDIA, CUDA release notes, table of drivers).
_MINIMUM_DRIVER = Version("580")
# TensorRT keeps the weights on the GPU, and its scratch memory beside them.
_MEMORY_FACTOR = 1.5
# These may cause a failure but need not, so they only give a warning.
_RISKS = {search_path.NAME, wsl.NAME}


class Runtime(str, Enum):
    """What runs an artifact.

    ``TORCH`` is PyTorch with Torch-TensorRT (``load``), ``TENSORRT`` is TensorRT's own Python package (``Session``),
    and ``ONNXRUNTIME`` is onnxruntime with NVIDIA's plugin.
    """

    TORCH = "torch"
    TENSORRT = "tensorrt"
    ONNXRUNTIME = "onnxruntime"


def check(artifact: Artifact | str | os.PathLike[str], runtime: Runtime = Runtime.TORCH) -> list[Requirement]:
    """Returns every requirement of an artifact, each met, not met or unknown on this machine.

    Args:
        artifact: an open artifact, or the path of one.
        runtime: the runtime that will run the artifact.

    Raises:
        UsageError: there is no such file.
        MalformedArtifactError: the file is damaged.
    """
    if isinstance(artifact, Artifact):
        return list(_requirements(artifact, probe_gpus(), Runtime(runtime)))
    with open_artifact(artifact) as opened:
        return check(opened, runtime)


def unmet(requirements: Iterable[Requirement]) -> list[Requirement]:
    """Returns the requirements that are not met, or that may not be."""
    return [item for item in requirements if item.state is not State.MET]


def require(
    artifact: Artifact,
    *,
    allow_unlisted_gpu: bool = False,
    requirements: list[Requirement] | None = None,
    runtime: Runtime = Runtime.TORCH,
) -> list[Requirement]:
    """Refuses an artifact that cannot run here.

    Args:
        allow_unlisted_gpu: accept a GPU whose compute capability the engines do not list.
        requirements: what :func:`check` returned a moment ago; None means to call it.
        runtime: the runtime that will run the artifact.

    Returns:
        The requirements that were waived, are unknown, or are only a risk; they are for warnings.

    Raises:
        IncompatibleError: a requirement is not met.
    """
    _require_platform(artifact)
    doubts = unmet(check(artifact, runtime) if requirements is None else requirements)
    waived = {*_RISKS, GPU_REQUIREMENT} if allow_unlisted_gpu else _RISKS
    failed = [item for item in doubts if item.state is State.NOT_MET and item.name not in waived]
    if failed:
        lines = "; ".join(f"{item.name}: needs {item.needed}, here {item.found}" for item in failed)
        remedies = "; ".join(item.remedy for item in failed if item.remedy)
        raise IncompatibleError(
            f"the artifact cannot run on this machine: {lines}",
            where=str(artifact.path),
            remedy=remedies or None,
        )
    return doubts


def _require_platform(artifact: Artifact) -> None:
    """Refuses an artifact for a different platform, and offers ``convert``.

    Raises:
        IncompatibleError: its engines are not for this platform.
    """
    needed = _platform(artifact.manifest, artifact.path)
    if needed.state is not State.MET:
        raise IncompatibleError(
            f"the artifact is for {needed.needed}, and this machine is {needed.found}",
            where=str(artifact.path),
            remedy=needed.remedy,
        )


def _requirements(artifact: Artifact, gpus: Gpus, runtime: Runtime) -> Iterator[Requirement]:
    manifest = artifact.manifest
    yield _platform(manifest, artifact.path)
    if sys.platform == "linux":
        yield wsl.wsl_requirement(manifest)
    yield from tf32_requirement(manifest)
    yield _driver(gpus)
    yield _gpu(listed_capabilities(artifact), gpus)
    yield _gpu_memory(manifest, gpus)
    if runtime is Runtime.TORCH:
        yield _torch(manifest)
        yield _torch_cuda(manifest)
        yield _torch_tensorrt(manifest)
        yield _runtime(artifact, _install(manifest, 2))
    elif runtime is Runtime.ONNXRUNTIME:
        yield _installed("numpy")
        yield _installed("onnx")
        yield _onnxruntime()
        yield _plugin(manifest)
    else:
        yield _installed("cuda-bindings")
        yield _installed("numpy")
        package = manifest.producer.tensorrt
        yield _runtime(artifact, f"python -m pip install {package.name}=={manifest.target.runtime}")
    if runtime is not Runtime.ONNXRUNTIME:
        through_torch = runtime is Runtime.TORCH
        yield search_path.search_path_requirement(manifest, _install(manifest, 2), through_torch=through_torch)
    yield _disk(manifest)
    if sys.platform == "win32":
        yield _visual_cpp()


def _platform(manifest: Manifest, path: Path) -> Requirement:
    needed, here = manifest.target.platform.value, host_platform()
    out = path.with_name(f"{path.stem}-{here.partition('-')[0]}.pt2")
    remedy = f"on this machine: trtcross convert {shlex.quote(str(path))} --target {here} -o {shlex.quote(str(out))}"
    if not manifest.target.backend.portable or here not in {p.value for p in Platform}:
        remedy = f"use a {needed} machine"
    return _compare("platform", needed, here, needed == here, remedy)


def _driver(gpus: Gpus) -> Requirement:
    needed = f"NVIDIA driver {_MINIMUM_DRIVER} or newer"
    remedy = "install NVIDIA's current driver"
    if gpus.driver is None:
        state = State.NOT_MET if gpus.known else State.UNKNOWN
        return Requirement("driver", state, needed, gpus.problem or "none", _probe_remedy(gpus) or remedy)
    return _compare("driver", needed, gpus.driver, Version(gpus.driver) >= _MINIMUM_DRIVER, remedy)


def listed_capabilities(artifact: Artifact) -> list[ComputeCapability] | None:
    """Returns the compute capabilities that the manifest and every engine's header list, as far as they list any.

    None means that neither the manifest nor a header lists one; an empty list means that no capability is in all.
    """
    stated = [ComputeCapability.parse(text) for text in artifact.manifest.target.compute_capabilities]
    listed = stated or None
    for engine in artifact.engines:
        if own := engine.plan_header().capabilities:
            listed = list(own) if listed is None else [capability for capability in listed if capability in own]
    return listed


def _gpu(listed: list[ComputeCapability] | None, gpus: Gpus) -> Requirement:
    needed = "a GPU that TensorRT supports"
    if listed is not None:
        needed = "a GPU of " + (" ".join(map(str, listed)) or "several kinds at once: its engines list different ones")
    if not gpus.gpus:
        state = State.NOT_MET if gpus.known else State.UNKNOWN
        remedy = _probe_remedy(gpus) or "use a machine with such a GPU"
        return Requirement(GPU_REQUIREMENT, state, needed, gpus.problem or "no GPU", remedy)
    found = ", ".join(f"{gpu.name} ({gpu.capability})" for gpu in gpus.gpus)
    fits = listed is None or any(gpu.capability in listed for gpu in gpus.gpus)
    here = gpus.gpus[0].capability
    remedy = f"build with --gpu {here}, or try it all the same with --allow-unlisted-gpu"
    return _compare(GPU_REQUIREMENT, needed, found, fits, remedy)


def _gpu_memory(manifest: Manifest, gpus: Gpus) -> Requirement:
    needed_bytes = int(sum(engine.size for engine in manifest.engines) * _MEMORY_FACTOR)
    needed = f"about {size_text(needed_bytes)} free on the GPU"
    if not gpus.gpus:
        return Requirement("gpu-memory", State.UNKNOWN, needed, gpus.problem or "no GPU", _probe_remedy(gpus))
    free = max(gpu.free_memory for gpu in gpus.gpus)
    return _compare(
        "gpu-memory", needed, f"{size_text(free)} free", free >= needed_bytes, "close what uses the GPU's memory"
    )


def _torch(manifest: Manifest) -> Requirement:
    built = Version(manifest.producer.torch)
    needed, here = f"torch {built.major}.{built.minor}", torch_version()
    fits = here is not None and Version(here).release[:2] == built.release[:2]
    return _compare("torch", needed, f"torch {here}" if here else "not installed", fits, _install(manifest, 1))


def _torch_cuda(manifest: Manifest) -> Requirement:
    here = torch_cuda() if torch_version() else None
    found = f"CUDA {here}" if here else "a CPU-only torch" if torch_version() else "not installed"
    # The default index gives Windows a CPU build, which is a common mistake.
    return _compare("torch-cuda", "a CUDA build of torch", found, here is not None, _install(manifest, 1))


def _torch_tensorrt(manifest: Manifest) -> Requirement:
    package = manifest.producer.torch_tensorrt
    here, abi = version_of(package.name), manifest.target.abi_version
    found = f"{package.name} {here}" if here else "not installed"
    release = ".".join(here.split(".")[:2]) if here else ""
    fits = release in RELEASES and RELEASES[release].abi == abi
    releases = " or ".join(name for name, known in RELEASES.items() if known.abi == abi)
    return _compare("torch-tensorrt", f"{package.name} {releases} (ABI {abi})", found, fits, _install(manifest, 2))


def _installed(package: str) -> Requirement:
    here = version_of(package)
    found = f"{package} {here}" if here else "not installed"
    return _compare(package, package, found, here is not None, f"python -m pip install {package}")


def _onnxruntime() -> Requirement:
    least, here = plugins().onnxruntime, version_of("onnxruntime")
    found = f"onnxruntime {here}" if here else "not installed"
    fits = here is not None and Version(here) >= Version(least)
    remedy = f'python -m pip install "onnxruntime>={least}"'
    return _compare("onnxruntime", f"onnxruntime from {least} on", found, fits, remedy)


def _plugin(manifest: Manifest) -> Requirement:
    """Compares the installed plugin of NVIDIA's with the one that holds the engines' release of TensorRT-RTX."""
    table, runtime = plugins(), manifest.target.runtime
    release, here = table.release_for(runtime), version_of(table.package)
    held = f" (TensorRT-RTX {table.releases.get(here, 'of another release')})" if here else ""
    found = f"{table.package} {here}{held}" if here else "not installed"
    if release is None:
        known = ", ".join(f"{held} in {name}" for name, held in table.releases.items())
        needed = f"a release of {table.package} that holds TensorRT-RTX {runtime}; known are {known}"
        return Requirement("plugin", State.NOT_MET, needed, found, "build with a release of TensorRT-RTX among those")
    needed = f"{table.package} {release} (TensorRT-RTX {runtime})"
    return _compare("plugin", needed, found, here == release, f"python -m pip install {table.package}=={release}")


def _runtime(artifact: Artifact, remedy: str) -> Requirement:
    package, release = artifact.manifest.producer.tensorrt.name, artifact.manifest.target.runtime
    releases = sorted({engine.plan_header().release or release for engine in artifact.engines} or {release})
    here = version_of(package)
    found = f"{package} {here}" if here else "not installed"
    if here and [release.count(".") for release in releases] == [1]:
        # A plan of TensorRT itself in a foreign file states only the first two numbers of its release.
        fits = here.startswith(f"{releases[0]}.")
        return _compare("runtime", f"{package} {releases[0]}", found, fits, remedy)
    needed = f"{package} {' and '.join(releases)} exactly"
    # An engine works only with its own release; even the last of the four numbers must be equal.
    return _compare("runtime", needed, found, releases == [here], remedy)


def _disk(manifest: Manifest) -> Requirement:
    needed_bytes = 64 * 2**20  # for the kernel cache
    free = shutil.disk_usage(tempfile.gettempdir()).free
    needed = f"{size_text(needed_bytes)} free for caches"
    return _compare("disk", needed, f"{size_text(free)} free", free >= needed_bytes, "free some disk space")


def _visual_cpp() -> Requirement:
    import ctypes

    missing = []
    for name in ("vcruntime140.dll", "msvcp140.dll"):
        try:
            ctypes.CDLL(name)
        except OSError:
            missing.append(name)
    found = f"missing: {', '.join(missing)}" if missing else "installed"
    remedy = "install Microsoft's Visual C++ Redistributable, or: python -m pip install msvc-runtime"
    return _compare("visual-c++", "the Visual C++ runtime", found, not missing, remedy)


def _compare(name: str, needed: str, found: str, met: bool, remedy: str | None) -> Requirement:
    return Requirement(name, State.MET if met else State.NOT_MET, needed, found, None if met else remedy)


def _install(manifest: Manifest, line: int) -> str:
    return manifest.install[line] if line < len(manifest.install) else "; ".join(manifest.install)


def _probe_remedy(gpus: Gpus) -> str | None:
    if gpus.problem and "nvidia-ml-py" in gpus.problem:
        return "python -m pip install nvidia-ml-py"
    return None
