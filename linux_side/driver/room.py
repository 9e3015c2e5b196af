"""Estimates of the memory and disk that a build needs, and refusals before the work starts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from linux_side.options import BuildOptions
from toolchain.errors import BuildFailedError
from toolchain.host.memory import free_memory
from toolchain.text import size_text

# Measured memory in bytes (docs/benchmarks/build.md): torch with Torch-TensorRT, and the builder's buffers. The builder
# also holds an engine's weights, and a second copy of those that it fuses.
BASE, BUILDER = 500 * 2**20, 200 * 2**20
# Bigger fused weights are joined on disk instead (rewrites/siblings.py, which is not imported here: it imports torch).
TWICE = 4 * 2**30
# The part of BASE that processes forked after the imports share.
INHERITED = 250 * 2**20
# The builder takes more for networks with many operators and few weights. Several builds at once need this reserve,
# because no warning would reach them.
SAFETY = 1.3
# The memory of a build about which nothing is known.
GUESS = 1280 * 2**20
# The disk holds the program, unless it is mapped from its file already, and its plans. The artifact has them in base64.
SPOOLED = 2
BASE64 = 4 / 3
# Artifacts smaller than this fit wherever a build runs at all, so they are not checked.
SMALL = 256 * 2**20
# A disk with less free space than this counts as full.
_FULL = 2**20


@dataclass(frozen=True)
class Needs:
    """The estimated bytes that a build needs.

    Attributes:
        memory: its peak memory.
        least_memory: the memory that it needs in any case.
        spool: the disk space of its temporary files.
        out: the disk space of the artifact.
    """

    memory: int
    least_memory: int
    spool: int
    out: int

    @classmethod
    def of(cls, weights: int, options: BuildOptions) -> Needs:
        """Returns what a whole build needs.

        Args:
            weights: bytes of the model's parameters and buffers, in the model's own precision.
            options: the build's options.
        """
        engines = weights // 2 if options.halves else weights
        return cls(
            memory=BASE + max(weights, BUILDER + engines + min(engines, TWICE)),
            least_memory=BASE + engines,
            spool=SPOOLED * weights,
            out=int(BASE64 * engines),
        )

    @classmethod
    def left(cls, weights: int, options: BuildOptions) -> Needs:
        """Returns what a build still needs after its imports, once its program is mapped from the disk."""
        whole = cls.of(weights, options)
        return cls(whole.memory - BASE, whole.least_memory - BASE, whole.spool - weights, whole.out)


def expected_memory(weights: int, options: BuildOptions) -> int:
    """Returns the memory to reserve for one of several builds, in bytes: more than most builds take."""
    return int(Needs.of(weights, options).memory * SAFETY)


def default_budget() -> int:
    """Returns the bytes that several builds may take together: four fifths of the free memory."""
    return free_memory() * 4 // 5


def require_room(needs: Needs, spool: Path, out: Path, warn: Callable[[str], None]) -> None:
    """Refuses a build that this machine has too little memory or disk for, and warns if memory may be short.

    Raises:
        BuildFailedError: there is too little memory or disk. The message gives the estimate and what is free.
    """
    if needs.out < SMALL:
        return
    free = free_memory()
    text = f"this build is estimated to need {size_text(needs.memory)} of memory, and {size_text(free)} is free"
    if free < needs.least_memory:
        remedy = "build on a bigger machine, or in halves (--precision fp16)"
        raise BuildFailedError(text, where="this machine's memory", remedy=remedy)
    if free < needs.memory:
        warn(f"{text}: it may be killed")
    if spool.stat().st_dev == out.parent.stat().st_dev:
        _require_disk(needs.spool + needs.out, out.parent, "this build and its artifact", "-o and $TMPDIR")
    else:
        _require_disk(needs.spool, spool, "the build's temporary files", "$TMPDIR")
        _require_disk(needs.out, out.parent, "the artifact", "-o")


def _require_disk(needed: int, folder: Path, what: str, option: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise BuildFailedError(
            f"{what} needs about {size_text(needed)} of disk, and {size_text(free)} is free",
            where=str(folder),
            remedy=f"make room there, or name a folder on another disk with {option}",
        )


def saved_weights(model: Path) -> int:
    """Returns the bytes of weights in a program's file or a model folder; 0 for anything else."""
    if model.is_dir():
        return sum(file.stat().st_size for file in model.glob("*.safetensors"))
    return model.stat().st_size if model.is_file() else 0


def is_full(folder: Path) -> bool:
    """Returns whether the disk of a folder has less than 1 MiB free."""
    return shutil.disk_usage(folder).free < _FULL
