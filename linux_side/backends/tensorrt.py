"""The backend TensorRT: builds on a Linux GPU of the target's kind, for Windows with NVIDIA's builder resource."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from linux_side.backends.base import EngineBuilder
from toolchain.errors import IncompatibleError, UsageError
from toolchain.host.installed import install_line
from toolchain.targets import Backend, ComputeCapability, Platform


class TensorRTBuilder(EngineBuilder):
    """TensorRT's builder, through torch-tensorrt. It needs a GPU and builds for that GPU only."""

    backend: ClassVar[Backend] = Backend.TENSORRT
    install_command: ClassVar[str] = (
        f"{install_line('tensorrt')} --extra-index-url https://pypi.nvidia.com, in an environment "
        "of its own: it cannot share one with torch-tensorrt-rtx"
    )

    def check_gpus(self, gpus: Sequence[ComputeCapability]) -> None:
        if not torch.cuda.is_available():
            raise IncompatibleError(
                "the backend tensorrt times its kernels on a GPU, and this machine has none",
                where="--backend tensorrt",
                remedy="build on a machine with a GPU of the target's kind, or use --backend tensorrt-rtx",
            )
        here = ComputeCapability(*torch.cuda.get_device_capability())
        if len(set(gpus)) > 1:
            raise UsageError(
                "an engine of TensorRT is for one GPU generation",
                where="--gpu",
                remedy="build one artifact for each, each on a machine with such a GPU",
            )
        if any(gpu != here for gpu in gpus):
            raise IncompatibleError(
                f"the backend tensorrt builds for the GPU at hand, {here}, and cannot build for {gpus[0]}",
                where="--gpu",
                remedy=f"build on a machine with a {gpus[0]} GPU, or use --backend tensorrt-rtx",
            )

    def import_upstream(self) -> None:
        importlib.import_module("torch_tensorrt")

    def setting_overrides(self, platform: Platform) -> dict[str, bool]:
        # `configure` sets the runtime platform: upstream's own switch needs a library that TensorRT 10.14 renamed.
        return {"hardware_compatible": False, "cross_compile_for_windows": False}

    def configure(self, config: Any, platform: Platform, gpus: Sequence[ComputeCapability]) -> None:
        import tensorrt

        if platform is Platform.WINDOWS_X86_64:
            config.runtime_platform = tensorrt.RuntimePlatform.WINDOWS_AMD64

    def hardware_compatible(self, gpus: Sequence[ComputeCapability]) -> bool:
        return False
