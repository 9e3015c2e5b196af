"""The settings of ``load`` as plain data, for the library, the verbs and the processes of ``bench``."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, InstanceOf

from toolchain.options import TrustOptions
from toolchain.signing.policy import Policy
from toolchain.targets import DEVICE
from windows_side.kernel_choice import KernelChoice

# Each execution context has scratch memory of its own.
MOST_CONTEXTS = 64


def _device(value: Any) -> Any:
    """Returns an index or a ``torch.device`` as text; other values are unchanged. Imports no torch."""
    if type(value) is int:
        return f"cuda:{value}"
    return str(value) if hasattr(value, "type") and hasattr(value, "index") else value


def _folder(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


class LoadOptions(TrustOptions):
    """Every setting of ``load``, whose docstring describes them."""

    device: Annotated[str, BeforeValidator(_device)] = Field(default=DEVICE, description="Where to run.")
    allow_unlisted_gpu: bool = Field(default=False, description="Try a GPU that the engine does not list.")
    policy: InstanceOf[Policy] | None = None
    cuda_graphs: bool = Field(default=False, description="Replay the whole program as a CUDA graph.")
    runtime_cache: Annotated[bool | str | os.PathLike[str], BeforeValidator(_folder)] = True
    progress: bool = False
    contexts: int = Field(default=1, ge=1, le=MOST_CONTEXTS)
    kernels: KernelChoice = Field(
        default="lazy", description="Where sizes vary: kernels for any size until those for one are there, or one kind."
    )


class RunOptions(LoadOptions):
    """The settings of a verb that runs an artifact: those of ``load``, and the runtime."""

    runtime: Literal["auto", "torch", "tensorrt", "onnxruntime"] = Field(
        default="auto", description="PyTorch, TensorRT alone, onnxruntime, or (auto) what it needs and is installed."
    )
