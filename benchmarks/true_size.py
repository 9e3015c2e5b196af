"""Models at their true sizes, with random weights that are the same on every machine and are never whole in memory.

The weights are written to a nameless file in ``$TMPDIR`` as they are drawn, or to a file in ``BENCHMARK_FOLDER`` that
is kept. They are mapped from there, as those of a model folder of safetensors are. ``BENCHMARK_MIB`` is the size of
``decoder`` in MiB.
"""

from __future__ import annotations

import importlib
import math
import os
import tempfile
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

import numpy
import torch

from benchmarks.scale import Decoder

Example = tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any]]

_PAGE = 4096
_DRAWN = 2**24  # elements that are drawn at a time


def filled(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Gives a module on the meta device weights: uniform with variance 1 / fan-in, and near 1 for scales of norms.

    The numbers are 16-bit integers that are scaled and rounded once, so that they are the same on every processor.
    """
    wanted = {name: value for name, value in module.state_dict().items() if value.is_meta}
    starts = list(accumulate((-(-value.nbytes // _PAGE) * _PAGE for value in wanted.values()), initial=0))
    with _file(f"{type(module).__name__}-{seed}-{starts[-1]}") as file:
        if file.seek(0, os.SEEK_END) < starts[-1]:  # a kept file is incomplete if the process that drew it was killed
            bits = numpy.random.SFC64(seed)
            for (name, value), start in zip(wanted.items(), starts, strict=False):
                file.seek(start)
                for part in _drawn(value, name, bits):
                    file.write(memoryview(part.view(torch.uint8).numpy()))
            file.truncate(starts[-1])
            file.flush()
        memory = torch.from_file(f"/proc/self/fd/{file.fileno()}", shared=True, size=starts[-1], dtype=torch.uint8)
    storage, tensors = memory.untyped_storage(), {}
    for (name, value), start in zip(wanted.items(), starts, strict=False):
        own = storage[start : start + value.nbytes]  # each tensor has a storage of its own, as with safetensors
        tensors[name] = torch.empty(0, dtype=value.dtype).set_(own, 0, value.shape)
    module.load_state_dict(tensors, assign=True, strict=False)
    return module.eval().requires_grad_(False)


def _file(name: str) -> IO[bytes]:
    """Opens an empty nameless file; with ``BENCHMARK_FOLDER``, the file of that name there, which may be complete."""
    folder = os.environ.get("BENCHMARK_FOLDER")
    if folder is None:
        return tempfile.TemporaryFile()
    path = Path(folder) / name
    return path.open("r+b" if path.exists() else "w+b")


def _drawn(value: torch.Tensor, name: str, bits: numpy.random.SFC64) -> Iterator[torch.Tensor]:
    """Yields a tensor's elements, flat, in parts."""
    fan_in = math.prod(value.shape[1:]) if value.dim() > 1 else 400
    scale, middle = math.sqrt(3 / fan_in) / 2**15, float(value.dim() < 2 and name.endswith("weight"))
    left = value.numel()
    while left:
        count = min(left, _DRAWN)
        raw = bits.random_raw(-(-count // 4)).view(numpy.int16)[:count]
        yield torch.from_numpy(raw).to(torch.float32).mul_(scale).add_(middle).to(value.dtype)
        left -= count


def _decoder(width: int, layers: int, heads: int, vocabulary: int, dtype: torch.dtype) -> Example:
    with torch.device("meta"):
        module = Decoder(width, layers, heads, vocabulary).to(dtype)
    tokens = torch.arange(32).mul(997).remainder(vocabulary)[None]
    return filled(module, seed=1), (tokens,), {}


def decoder() -> Example:
    """A decoder in bf16 of ``BENCHMARK_MIB``: layers of width 4096 (320 MiB each), or of 1024 (20 MiB) below 1 GiB."""
    mib = int(os.environ.get("BENCHMARK_MIB", "256"))
    width, heads = (1024, 8) if mib < 1024 else (4096, 32)
    return _decoder(width, max(1, round(mib * 2**20 / (20 * width**2))), heads, 1024, torch.bfloat16)


def decoder_3b() -> Example:
    """A decoder of 3.2 billion parameters in fp16: 32 layers of width 3072, a vocabulary of 32,000."""
    return _decoder(3072, 32, 24, 32_000, torch.float16)


def decoder_7b() -> Example:
    """A decoder of 6.9 billion parameters in bf16: 40 layers of width 4096, a vocabulary of 32,000."""
    return _decoder(4096, 40, 32, 32_000, torch.bfloat16)


def sdxl_unet() -> Example:
    """The UNet of SDXL's base model (diffusers): 2.6 billion parameters in fp16, for pictures of 1024 x 1024."""
    unet = importlib.import_module("diffusers").UNet2DConditionModel
    with torch.device("meta"):
        module = unet(
            sample_size=128,
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        ).half()
    size = int(os.environ.get("BENCHMARK_LATENTS", "128"))
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator).sub_(0.5).mul_(3.46).half()

    call = {
        "sample": drawn(1, 4, size, size),
        "timestep": torch.tensor([500]),
        "encoder_hidden_states": drawn(1, 77, 2048),
        "added_cond_kwargs": {
            "text_embeds": drawn(1, 1280),
            "time_ids": torch.tensor([[1024, 1024, 0, 0, 1024, 1024]]).half(),
        },
        "return_dict": False,
    }
    return filled(module, seed=2), (), call
