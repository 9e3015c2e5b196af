"""Describes this machine, for reports. Imports no torch."""

from __future__ import annotations

import platform

from toolchain.host.gpu_probe import probe_gpus
from toolchain.host.installed import torch_version, version_of
from toolchain.targets import host_platform
from toolchain.text import size_text

_DISTRIBUTIONS = ("trtcross", "torch", "torch-tensorrt-rtx", "tensorrt-rtx", "torch-tensorrt", "tensorrt")


def machine_facts() -> dict[str, str]:
    """Returns platform, GPUs, driver and versions, by their names in reports; what is not installed is left out."""
    gpus = probe_gpus()
    found = [f"{gpu.name} ({gpu.capability}, {size_text(gpu.total_memory)})" for gpu in gpus.gpus]
    versions = {name: torch_version() if name == "torch" else version_of(name) for name in _DISTRIBUTIONS}
    return {
        "platform": f"{host_platform()} ({platform.system()} {platform.release()})",
        "GPU": ", ".join(found) or gpus.problem or "none",
        "driver": gpus.driver or "none",
        "Python": platform.python_version(),
        **{name: version for name, version in versions.items() if version},
    }
