"""The backend TensorRT-RTX: builds without a GPU, for Windows and Linux and for the RTX GPUs that are named."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch

from linux_side import upstream
from linux_side.backends.base import EngineBuilder
from linux_side.backends.rtx_defects import avoid_defects
from linux_side.backends.tf32 import with_tf32
from linux_side.backends.turing import refuse_for_turing
from toolchain.engine.plan_header import CAPABILITY_BITS
from toolchain.errors import UsageError
from toolchain.host.installed import install_line
from toolchain.targets import AMPERE, Backend, ComputeCapability, Platform

TURING = ComputeCapability(7, 5)


class TensorRTRTXBuilder(EngineBuilder):
    """TensorRT-RTX's builder, through torch-tensorrt-rtx. It needs no GPU and builds for the named ones."""

    backend: ClassVar[Backend] = Backend.TENSORRT_RTX
    install_command: ClassVar[str] = install_line("producer")

    def check_gpus(self, gpus: Sequence[ComputeCapability]) -> None:
        known = sorted(CAPABILITY_BITS.values())
        for gpu in gpus:
            if gpu not in known:
                raise UsageError(
                    f"TensorRT-RTX builds no engine for {gpu}",
                    where="--gpu",
                    remedy="use any of: " + ", ".join(map(str, known)),
                )
        if TURING in gpus and len(set(gpus)) > 1:
            raise UsageError(
                "an engine for Turing (sm_75) runs on Turing alone",
                where="--gpu",
                remedy="build a second artifact with --gpu sm_75 only",
            )

    def import_upstream(self) -> None:
        # Any capability but a Tegra's does: the import only tests for Tegra, which TensorRT-RTX does not support.
        upstream.import_torch_tensorrt(AMPERE)

    def setting_overrides(self, platform: Platform) -> dict[str, bool]:
        # TensorRT-RTX refuses both settings: its engines need neither.
        return {"hardware_compatible": False, "cross_compile_for_windows": False}

    def configure(self, config: Any, platform: Platform, gpus: Sequence[ComputeCapability]) -> None:
        if not gpus:
            return  # the builder's default set
        import tensorrt

        wanted = sorted(set(gpus))
        config.num_compute_capabilities = len(wanted)
        for index, gpu in enumerate(wanted):
            capability = getattr(tensorrt.ComputeCapability, f"SM{gpu.major}{gpu.minor}")
            config.set_compute_capability(capability, index)

    def environment(self, config: Any) -> AbstractContextManager[None]:
        import tensorrt

        return with_tf32(used=config.get_flag(tensorrt.BuilderFlag.TF32))

    def check_network(self, network: Any, gpus: Sequence[ComputeCapability]) -> None:
        if TURING in gpus:
            refuse_for_turing(network)

    def hardware_compatible(self, gpus: Sequence[ComputeCapability]) -> bool:
        # Without it, the C++ runtime accepts only the exact compute capability in the device field.
        return TURING not in gpus

    def prepare(self, partition: torch.fx.GraphModule) -> None:
        super().prepare(partition)
        avoid_defects(partition)
