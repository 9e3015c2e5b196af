"""Runs 64 decoding steps of artifacts with transformers' own static caches, and compares them with PyTorch.

    python -m benchmarks.gpu.decoding build FOLDER            # without a GPU, with transformers
    python -m benchmarks.gpu.decoding run FOLDER [OUT.json]   # on a GPU host, without transformers

``build`` also writes the arguments of 64 steps and PyTorch's logits for each, in fp32 on the CPU. ``run`` calls each
artifact 64 times, with and without CUDA graphs, and prints the worst relative error of a step and how many of the most
likely tokens are the same. A cache that is lost, or written at a wrong place, causes errors from the second step on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.gpu.build_and_run import Row, build_or_run

STEPS = 64
PRECISIONS = ("fp32", "fp16")


def build(folder: Path) -> None:
    """Builds the artifacts that are not in the folder yet."""
    from benchmarks.models.decoders import DECODERS

    folder.mkdir(parents=True, exist_ok=True)
    for name in DECODERS:
        for precision in PRECISIONS:
            if not (folder / f"{name}-{precision}.pt2").exists():
                build_one(folder, name, precision)
                print(f"{name}-{precision}: built", flush=True)


def build_one(folder: Path, name: str, precision: str) -> None:
    from benchmarks.models.decoders import Sizes, decoder
    from linux_side.driver.pipeline import Pipeline
    from linux_side.frontend.source import export_source
    from linux_side.options import BuildOptions
    from tests.integration.harness import imported_builder
    from toolchain.targets import Platform

    sizes = Sizes(heads=4, size=32, length=STEPS + 16, window=16, words=256, encoded=40)
    model, steps = decoder(name, sizes, 2, STEPS)
    options = BuildOptions(target=Platform.LINUX_X86_64, precision=precision)
    source = export_source(name, model, steps[0], {}, options)
    with tempfile.TemporaryDirectory() as spool:
        Pipeline(options, imported_builder(), Path(spool), lambda _: nullcontext()).run_source(
            source, folder / f"{name}-{precision}.pt2"
        )
    model, _ = decoder(name, sizes, 2, STEPS)  # made again, so that its cache is empty
    with torch.no_grad():
        logits = torch.stack([model(*step) for step in steps])
    kept = {"tokens": torch.stack([step[0] for step in steps]), "logits": logits}
    if len(steps[0]) > 1:
        kept["more"] = steps[0][1]
    save_file(kept, folder / f"{name}.safetensors")


def measured(folder: Path) -> Iterator[Row]:
    """Calls every artifact of the folder, with and without CUDA graphs."""
    from windows_side import load

    for path in sorted(folder.glob("*.pt2")):
        kept = load_file(folder / f"{path.stem.rpartition('-')[0]}.safetensors")
        for graphs in (False, True):
            row: Row = {"artifact": path.stem, "cuda_graphs": graphs}
            try:
                model = load(path, allow_unlisted_gpu=True, cuda_graphs=graphs)
                more = [kept["more"].cuda()] if "more" in kept else []
                got = torch.stack([model(token.cuda(), *more).float().cpu().clone() for token in kept["tokens"]])
                yield row | compared(got, kept["logits"])
            except Exception as error:  # noqa: BLE001 - one artifact's failure must not stop the others
                yield row | {"error": f"{type(error).__name__}: {str(error)[:500]}"}


def compared(got: Tensor, want: Tensor) -> Row:
    """Returns the relative L2 error of the worst and the first step, and how many most likely tokens are the same."""
    errors = (got - want).flatten(1).norm(dim=1) / want.flatten(1).norm(dim=1)
    same = int((got.argmax(-1) == want.argmax(-1)).sum())
    return {"steps": len(got), "worst": errors.max().item(), "first": errors[0].item(), "same_tokens": same}


if __name__ == "__main__":
    build_or_run(__doc__, build, measured)
