"""Networks of which TensorRT-RTX is suspected to compute something wrongly in halves, prepared for ``bisect run``.

    python -m benchmarks.gpu.suspects FOLDER [GROUP ...]

Each is built in fp32, by the rules of ``--precision fp16``, and ``cast``: as the model is after ``.half()``. The groups:
``interpolation`` (the nets of benchmarks/models, each inner tensor shown), ``resize`` (one layer of resizing between
others, in many forms), ``ladder`` (from a lone layer of resizing to the whole net of interpolation, a step at a time),
``masks`` and ``flux`` (each inner tensor shown of small ones, the outputs of larger ones).
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from benchmarks import models
from benchmarks.gpu.probes import CUT, MARKED, WHOLE, prepare
from benchmarks.models.interpolation import sample_along
from benchmarks.models.weights import drawn, settled

FP32, FP16, CAST = "fp32", "fp16", "cast"
Example = tuple[nn.Module, tuple[Any, ...]]


@dataclass(frozen=True)
class Suspect:
    """One model, and how it is built."""

    group: str
    name: str
    make: Callable[[], Example]
    precision: str
    forms: tuple[str, ...] = (WHOLE,)
    dynamic: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.name}-{self.precision}"


# One layer of resizing


class Resized(nn.Module):
    """A layer of resizing, a convolution before or behind it, or both.

    Args:
        neighbours: ``none``, ``before``, ``behind`` or ``both``.
        by: ``scale`` or ``size``.
    """

    def __init__(self, channels: int, factor: float, by: str, neighbours: str, mode: str, corners: bool | None) -> None:
        super().__init__()
        self.factor, self.by, self.mode, self.corners = factor, by, mode, corners
        self.before = nn.Conv2d(channels, channels, 3, padding=1) if neighbours in ("before", "both") else nn.Identity()
        self.behind = nn.Conv2d(channels, channels, 3, padding=1) if neighbours in ("behind", "both") else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        how = (
            {"scale_factor": self.factor}
            if self.by == "scale"
            else {"size": (int(HEIGHT * self.factor), int(WIDTH * self.factor))}
        )
        return self.behind(F.interpolate(x, mode=self.mode, align_corners=self.corners, **how))


HEIGHT, WIDTH = 32, 48


def _resized(channels: int, *how: Any) -> Example:
    return settled(Resized(channels, *how)), (drawn("image", (1, channels, HEIGHT, WIDTH)),)


def _resize_forms() -> Iterator[Suspect]:
    def form(
        factor: float, by: str, neighbours: str, dynamic: bool, precision: str, *, channels: int = 5,
        mode: str = "bilinear", corners: bool | None = False,
    ) -> Suspect:  # fmt: skip
        corners = corners if mode.startswith("bi") else None
        ranges = ("x.0=1:1:2", *(("x.2=8:32:64", "x.3=8:48:64") if factor > 1 else ())) if dynamic else ()
        name = "-".join(
            ("resize", mode, *("corners",) * bool(corners), f"{factor:g}", by, neighbours, str(channels))
            + ("dynamic",) * dynamic
        )
        make = partial(_resized, channels, factor, by, neighbours, mode, corners)
        return Suspect("resize", name, make, precision, dynamic=ranges)

    for precision in (FP32, FP16, CAST):
        for dynamic in (False, True):
            for by in ("scale", "size"):
                for factor in (2.0, 4.0, 0.5, 0.25):
                    for neighbours in ("none", "both") if precision == FP32 else ("none", "before", "behind", "both"):
                        yield form(factor, by, neighbours, dynamic, precision)
                for factor in (4.0, 0.5):
                    yield form(factor, by, "both", dynamic, precision, corners=True)
                    if precision != FP32:
                        yield form(factor, by, "both", dynamic, precision, mode="nearest")
                        yield form(factor, by, "both", dynamic, precision, channels=8)
        yield form(4.0, "scale", "both", False, precision, mode="bicubic")


# From a layer of resizing to interpolation


class Rung(nn.Module):
    """As much of the interpolation net as a rung of the ladder has.

    Args:
        height: 0: a convolution, its result four times as large; 1: and both frames sampled along it; 2: and blended;
            3: and the frames resized to a quarter before it (that is the net itself, without SiLU and shuffle).
    """

    def __init__(self, height: int, mode: str) -> None:
        super().__init__()
        self.height, self.mode = height, mode
        self.estimate = nn.Conv2d(6, 5, 3, padding=1) if height > 2 else nn.Conv2d(6, 5, 3, stride=4, padding=1)

    def forward(self, first: Tensor, second: Tensor) -> Any:
        x = torch.cat((first, second), 1)
        if self.height > 2:
            x = F.interpolate(x, scale_factor=0.25, mode=self.mode)
        x = F.interpolate(self.estimate(x), scale_factor=4.0, mode=self.mode)
        if self.height == 0:
            return x
        flow, share = x[:, :4] * 4, torch.sigmoid(x[:, 4:])
        left, right = sample_along(first, flow[:, :2]), sample_along(second, flow[:, 2:])
        return (left, right) if self.height == 1 else left * share + right * (1 - share)


def _rung(height: int, mode: str) -> Example:
    return settled(Rung(height, mode)), models.one_stage()[1]


# Attention


def _large_masks(scale: int) -> Example:
    model, call = models.mask_decoder()
    model.scale = scale
    return model, call


def suspects() -> Iterator[Suspect]:
    inside = (WHOLE, MARKED, CUT)
    for precision in (FP16, CAST):
        yield Suspect("interpolation", "one_stage", models.one_stage, precision, (WHOLE, MARKED))
        yield Suspect("interpolation", "one_coarse_stage", models.one_coarse_stage, precision, inside)
        yield Suspect("interpolation", "three_stages", models.three_stages, precision, (WHOLE, MARKED))
        yield Suspect("masks", "mask_decoder_block", models.mask_decoder_block, precision, (WHOLE, MARKED))
        yield Suspect("flux", "flux_block", models.flux_block, precision, (WHOLE, MARKED))
    for precision in (FP32, FP16, CAST):
        yield Suspect("masks", "mask_decoder", models.mask_decoder, precision)
        yield Suspect("masks", "mask_decoder-resized", partial(_large_masks, 2), precision)
        yield Suspect("flux", "flux", models.flux, precision)
        for mode in ("bilinear", "nearest"):
            for height in range(4):
                name = f"rung-{height}-{mode}"
                yield Suspect("ladder", name, partial(_rung, height, mode), precision)
    for name in ("one_stage", "one_coarse_stage", "three_stages"):
        yield Suspect("interpolation", name, getattr(models, name), FP32)
    yield from _resize_forms()


GROUPS = ("interpolation", "ladder", "resize", "masks", "flux")


def build(folder: Path, groups: Sequence[str]) -> None:
    for suspect in suspects():
        if suspect.group in groups:
            try:
                made = build_one(folder / suspect.group, suspect)
            except Exception as error:  # noqa: BLE001 - one network's trouble is not the others'
                print("FAILED", suspect.title, type(error).__name__, str(error)[:300], flush=True)
                continue
            print(suspect.title, [(len(subject.tensors), len(subject.probes)) for subject in made], flush=True)


def build_one(folder: Path, suspect: Suspect) -> list[Any]:
    from linux_side.frontend.source import export_source
    from linux_side.options import BuildOptions, DynamicDimension

    module, args = suspect.make()
    if suspect.precision == CAST:
        module, args = cast(module, args, torch.float16)
    options = BuildOptions(
        precision=None if suspect.precision == CAST else suspect.precision,
        dynamic=[DynamicDimension.parse(text) for text in suspect.dynamic],
        golden=0,
    )
    source = export_source(suspect.name, module, args, {}, options)
    return prepare(folder, suspect.title, source, options, (args, {}), forms=suspect.forms, most=64)


def cast(module: nn.Module, args: tuple[Any, ...], dtype: torch.dtype) -> Example:
    """The whole model and its arguments in halves, as ``model.half()`` makes it."""
    halved = tuple(value.to(dtype) if value.is_floating_point() else value for value in args)
    return copy.deepcopy(module).to(dtype), halved


if __name__ == "__main__":
    build(Path(sys.argv[1]), sys.argv[2:] or GROUPS)
