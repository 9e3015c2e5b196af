"""The machines that cells can be built and verified on: this one, those in the spec, and those of a cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from linux_side.matrix.spec.spec import Machine
from toolchain.host.gpu_probe import probe_gpus
from toolchain.host.installed import version_of
from toolchain.host.memory import total_memory
from toolchain.targets import Backend, host_platform

# Ray's accelerator types by compute capability (NVIDIA's table, https://developer.nvidia.com/cuda-gpus).
ACCELERATORS: Mapping[str, tuple[str, ...]] = {
    "sm_75": ("T4",),
    "sm_80": ("A100", "A30"),
    "sm_86": ("A10G", "A10", "A40", "A16", "A2", "RTX-A4000", "RTX-A5000", "RTX-A6000"),
    "sm_89": ("L4", "L40", "L40S", "RTX-4000", "RTX-5000", "RTX-6000"),
    "sm_90": ("H100", "H200", "GH200"),
    "sm_120": ("RTX-PRO-6000", "RTX-PRO-5000", "RTX-PRO-4000"),
}


@dataclass(frozen=True)
class Host:
    """A machine, or several equal nodes of a cluster.

    Attributes:
        name: its name in messages.
        platform: its platform, such as ``linux-x86_64``.
        gpus: the compute capabilities of its GPUs.
        accelerators: Ray's names of its GPUs.
        backends: the release of each TensorRT that it can build with.
        memory: its memory in bytes; None if unknown.
        runs_on: the labels of a workflow runner.
    """

    name: str
    platform: str
    gpus: tuple[str, ...] = ()
    accelerators: tuple[str, ...] = ()
    backends: Mapping[Backend, str] = field(default_factory=dict)
    memory: int | None = None
    runs_on: tuple[str, ...] = ()


HERE = "here"


def this_host() -> Host:
    """Returns this machine. A child process queries the GPU driver."""
    gpus = probe_gpus().gpus
    return Host(
        name=HERE,
        platform=host_platform(),
        gpus=tuple(str(gpu.capability) for gpu in gpus),
        accelerators=tuple(_accelerator(gpu.name) for gpu in gpus),
        backends=installed_backends(),
        memory=total_memory(),
        runs_on=("ubuntu-latest",),
    )


def installed_backends() -> dict[Backend, str]:
    """Returns TensorRT's release for each backend whose packages are installed."""
    found = {}
    for backend in Backend:
        versions = [version_of(name) for name in backend.distributions]
        if all(versions):
            found[backend] = str(versions[1])
    return found


def listed_hosts(machines: Sequence[Machine]) -> list[Host]:
    """Returns the machines of a spec as hosts."""
    return [
        Host(
            name=machine.name,
            platform=machine.platform.value,
            gpus=tuple(machine.gpus),
            accelerators=tuple(name for gpu in machine.gpus for name in ACCELERATORS.get(gpu, ())),
            backends=machine.backends,
            runs_on=tuple(machine.runs_on),
        )
        for machine in machines
    ]


def _accelerator(name: str) -> str:
    """Returns a GPU's name for Ray: ``A10G`` for ``NVIDIA A10G``, ``H100`` for ``NVIDIA H100 80GB HBM3``.

    A name without a model number as its first word is kept with hyphens: ``GeForce-RTX-4090``.
    """
    words = re.sub(r"^NVIDIA\s+|^Tesla\s+", "", name).split()
    model = re.match(r"[A-Z]+[0-9]+[A-Z]*", words[0]) if words else None
    return model[0] if model else "-".join(words)
