"""What a build needs of memory and disk, estimated from its weights: said before the work, not after it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from linux_side.options import BuildOptions
from toolchain.errors import BuildFailedError
from toolchain.host.memory import free_memory
from toolchain.text import size_text

# Of a build's processes, measured (docs/benchmarks/build.md): what torch and Torch-TensorRT take, the builder's
# buffers. The builder holds an engine's weights, and those that it fuses a second time.
BASE, BUILDER = 500 * 2**20, 200 * 2**20
TWICE = 4 * 2**30  # from here on they are joined on the disk (rewrites/siblings.py, which imports torch)
# Of the base, what a process that was forked after the imports has together with the others: it is there once.
INHERITED = 250 * 2**20
# Of networks with many operators and few weights the builder takes more: for builds at once, which cannot be warned.
SAFETY = 1.3
# Of a build of which nothing is known.
GUESS = 1280 * 2**20
# The program is written once, unless it is mapped from a file already, and its plan; the artifact has it in base64.
SPOOLED = 2
BASE64 = 4 / 3
# Weights of less than this fit wherever a build runs at all.
LITTLE = 256 * 2**20
_FULL = 2**20


@dataclass(frozen=True)
class Needs:
    """Bytes that a build needs.

    Attributes:
        memory: what it is thought to need at its peak.
        least_memory: what it needs in any case.
        spool: on the disk, on the way to the artifact.
        out: on the disk, for the artifact.
    """

    memory: int
    least_memory: int
    spool: int
    out: int

    @classmethod
    def of(cls, weights: int, options: BuildOptions) -> Needs:
        """What a build needs from its beginning.

        Args:
            weights: bytes of the model's parameters and buffers, in its own precision.
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
        """What it needs further once its program is mapped from the disk."""
        whole = cls.of(weights, options)
        return cls(whole.memory - BASE, whole.least_memory - BASE, whole.spool - weights, whole.out)


def thought_to_take(weights: int, options: BuildOptions) -> int:
    """Memory of a build among others, where nothing but its weights is known: more than most are seen to take."""
    return int(Needs.of(weights, options).memory * SAFETY)


def default_budget() -> int:
    """What builds may take together: four fifths of what is free now."""
    return free_memory() * 4 // 5


def require_room(needs: Needs, spool: Path, out: Path, warn: Callable[[str], None]) -> None:
    """Refuses a build that this machine cannot end, and warns of one that it may not.

    Raises:
        BuildFailedError: there is too little memory or disk, with the estimate and what is free.
    """
    if needs.out < LITTLE:
        return
    free = free_memory()
    text = f"this build is thought to need {size_text(needs.memory)} of memory, and {size_text(free)} is free"
    if free < needs.least_memory:
        remedy = "build on a bigger machine, or in halves (--precision fp16)"
        raise BuildFailedError(text, where="this machine's memory", remedy=remedy)
    if free < needs.memory:
        warn(f"{text}: it may be killed")
    if spool.stat().st_dev == out.parent.stat().st_dev:
        _require_disk(needs.spool + needs.out, out.parent, "this build and its artifact", "-o and $TMPDIR")
    else:
        _require_disk(needs.spool, spool, "what is on its way to the artifact", "$TMPDIR")
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
    """Bytes of weights of a program's file or a model folder; 0 of what is neither."""
    if model.is_dir():
        return sum(file.stat().st_size for file in model.glob("*.safetensors"))
    return model.stat().st_size if model.is_file() else 0


def is_full(folder: Path) -> bool:
    """Whether nothing more can be written there."""
    return shutil.disk_usage(folder).free < _FULL
