"""The part of ``doctor`` about running artifacts on this machine."""

from __future__ import annotations

from toolchain.host.gpu_probe import probe_gpus
from toolchain.host.installed import install_line, torch_cuda, torch_version, version_of
from toolchain.host.requirements import Requirement, State
from toolchain.targets import Platform, host_platform

_GPU = "use a machine with an NVIDIA RTX GPU, and install NVIDIA's current driver"
_INSTALL = f"{install_line('consumer')}; on Windows, torch from its CUDA index first"


def run_requirements() -> list[Requirement]:
    """Returns the requirements that any artifact has; :func:`.requirements.check` knows those of a certain one."""
    gpus, here = probe_gpus(), host_platform()
    platforms = [platform.value for platform in Platform]
    runtime = version_of("torch-tensorrt-rtx") or version_of("torch-tensorrt")
    found = ", ".join(f"{gpu.name} ({gpu.capability})" for gpu in gpus.gpus)
    gpu_state = State.MET if gpus.gpus else State.NOT_MET if gpus.known else State.UNKNOWN
    return [
        _requirement("platform", here in platforms, " or ".join(platforms), here, "use one of these"),
        Requirement("gpu", gpu_state, "an NVIDIA GPU", found or gpus.problem or "none", _GPU),
        _requirement(
            "torch", torch_cuda() is not None, "torch with CUDA", torch_version() or "not installed", _INSTALL
        ),
        _requirement(
            "torch-tensorrt", runtime is not None, "torch-tensorrt or -rtx", runtime or "not installed", _INSTALL
        ),
    ]


def _requirement(name: str, met: bool, needed: str, found: str, remedy: str) -> Requirement:
    return Requirement(name, State.MET if met else State.NOT_MET, needed, found, None if met else remedy)
