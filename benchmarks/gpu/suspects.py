"""Prepares networks that TensorRT-RTX is suspected to compute wrongly in halves, for ``bisect run``.

    python -m benchmarks.gpu.suspects FOLDER [GROUP ...]

Each is built in fp32, by the rules of ``--precision fp16``, and as ``cast``, which is the model after ``.half()``.
Groups: ``interpolation`` (the interpolation models of benchmarks/models), ``ladder`` (from a single resizing layer to
such a model, step by step), ``resize`` (one resizing layer between others, in many forms), ``coarse`` and ``stages``
(the inner tensors of two interpolation models), ``masks`` and ``flux`` (the inner tensors of small models and the
outputs of larger ones), and ``random`` (these with PyTorch's initial weights).
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
from benchmarks.gpu.probes import CUT, MARKED, WHOLE, Probe, Subject, prepare, remember, subject_of
from benchmarks.models.interpolation import sample_along
from benchmarks.models.weights import drawn, settled

FP32, FP16, CAST = "fp32", "fp16", "cast"
Example = tuple[nn.Module, tuple[Any, ...]]


@dataclass(frozen=True)
class Suspect:
    """One model, its group, and how it is built."""

    group: str
    name: str
    make: Callable[[], Example]
    precision: str
    forms: tuple[str, ...] = (WHOLE,)
    dynamic: tuple[str, ...] = ()
    most: int = 48

    @property
    def title(self) -> str:
        return f"{self.name}-{self.precision}"


# Networks with one resizing layer, made by hand, because a build would take longer

HEIGHT, WIDTH = 32, 48


@dataclass(frozen=True)
class Resizing:
    """A resizing layer, perhaps with a convolution before it, behind it, or both.

    Attributes:
        precision: ``fp32``, ``cast`` (everything in halves) or ``fp16`` (resizing in fp32, its neighbours in halves).
        factor: the factor of height and width.
        by: whether the layer gets the ``scale`` or the ``size``.
        neighbours: where convolutions are: ``none``, ``before``, ``behind`` or ``both``.
        dynamic: whether sizes are dynamic.
        corners: whether corners are aligned.
    """

    precision: str
    factor: float
    by: str
    neighbours: str
    dynamic: bool
    mode: str = "linear"
    corners: bool = False
    channels: int = 5

    @property
    def title(self) -> str:
        words = ["resize", self.mode, f"{self.factor:g}", self.by, self.neighbours, str(self.channels)]
        return "-".join(words + ["corners"] * self.corners + ["dynamic"] * self.dynamic + [self.precision])


def resizings() -> Iterator[Resizing]:
    for precision in (CAST, FP16, FP32):
        # Without neighbours, the rules of fp16 make the same network as fp32.
        places = {FP32: ("none", "both"), FP16: ("before", "behind", "both")}
        for dynamic in (False, True):
            for by in ("scale", "size"):
                for factor in (2.0, 4.0, 0.5, 0.25):
                    for neighbours in places.get(precision, ("none", "before", "behind", "both")):
                        yield Resizing(precision, factor, by, neighbours, dynamic)
                for factor in (4.0, 0.5):
                    yield Resizing(precision, factor, by, "both", dynamic, corners=True)
                    yield Resizing(precision, factor, by, "both", dynamic, mode="nearest")
                    yield Resizing(precision, factor, by, "both", dynamic, mode="cubic")
                    yield Resizing(precision, factor, by, "both", dynamic, channels=8)


def build_resizing(folder: Path, form: Resizing) -> list[Subject]:
    from tests.integration.network import record
    from tests.integration.network.hand_made import HandMade

    net = HandMade()
    half = torch.float32 if form.precision == FP32 else torch.float16
    own = torch.float16 if form.precision == CAST else torch.float32
    image = drawn("image", (1, form.channels, HEIGHT, WIDTH))
    x = net.input(image.to(own), dynamic=form.dynamic, static=(1,))
    if form.neighbours in ("before", "both"):
        x = _convolution(net, _cast(net, x, half), half, form.channels, "before")
    x = _cast(net, _resize(net, _cast(net, x, own), form), half)
    if form.neighbours in ("behind", "both"):
        x = _convolution(net, x, half, form.channels, "behind")
    net.output(_cast(net, x, own), image)
    network = record(net.network)
    plan = net.plan()
    if plan is None:
        raise RuntimeError("TensorRT refuses it")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{form.title}.plan").write_bytes(memoryview(plan))
    subject = subject_of(folder, form.title, network, net.inputs)
    subject.probes = [Probe(f"{form.title}.plan", WHOLE)]
    remember(folder, [subject])
    return [subject]


def _cast(net: Any, x: Any, dtype: torch.dtype) -> Any:
    from tests.integration.network.hand_made import tensorrt_dtype

    wanted = tensorrt_dtype(dtype)
    return x if x.dtype == wanted else net.network.add_cast(x, wanted).get_output(0)


def _convolution(net: Any, x: Any, dtype: torch.dtype, channels: int, name: str) -> Any:
    kernel = drawn(name, (channels, channels, 3, 3)) * (9 * channels) ** -0.5
    weights = [net.weights(value.to(dtype).contiguous()) for value in (kernel, 0.1 * drawn(name + "bias", (channels,)))]
    layer = net.network.add_convolution_nd(x, channels, (3, 3), *weights)
    layer.padding_nd = (1, 1)
    return layer.get_output(0)


def _resize(net: Any, x: Any, form: Resizing) -> Any:
    import tensorrt_rtx as trt

    layer = net.network.add_resize(x)
    layer.resize_mode = getattr(trt.InterpolationMode, form.mode.upper())
    kinds = trt.ResizeCoordinateTransformation
    layer.coordinate_transformation = kinds.ALIGN_CORNERS if form.corners else kinds.HALF_PIXEL
    if form.mode == "nearest":
        layer.coordinate_transformation = kinds.ASYMMETRIC
    size = [int(HEIGHT * form.factor), int(WIDTH * form.factor)]
    if form.by == "scale":
        layer.scales = [1.0, 1.0, form.factor, form.factor]
    elif not form.dynamic:
        layer.shape = [1, form.channels, *size]
    else:  # as the converter makes it: the first sizes are those of the input
        first = net.network.add_slice(net.network.add_shape(x).get_output(0), (0,), (2,), (1,)).get_output(0)
        whole = net.network.add_concatenation([first, net.constant(size, torch.int64)])
        layer.set_input(1, whole.get_output(0))
    return layer.get_output(0)


# Steps from a resizing layer to an interpolation model


class Rung(nn.Module):
    """A part of the interpolation model.

    Args:
        height: how much it has. 0 is a convolution whose result is enlarged four times; 1 also samples both frames
            along it; 2 also blends them; 3 also resizes the frames to a quarter first, which is the whole model without
            SiLU and shuffle.
        mode: the mode of resizing.
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


def _random(make: Callable[[], Example]) -> Example:
    """Returns the model with PyTorch's initial weights, with which it may be ill-conditioned."""
    model, call = make()
    torch.manual_seed(0)
    for part in model.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    return model, call


def suspects() -> Iterator[Suspect]:
    for precision in (CAST, FP16):
        yield Suspect("coarse", "one_coarse_stage", models.one_coarse_stage, precision, (WHOLE, MARKED, CUT))
        yield Suspect("stages", "three_stages", models.three_stages, precision, (WHOLE, MARKED))
        yield Suspect("masks", "mask_decoder_block", models.mask_decoder_block, precision, (WHOLE, MARKED))
        yield Suspect("flux", "flux_block", models.flux_block, precision, (WHOLE, MARKED))
    for precision in (FP32, FP16, CAST):
        yield Suspect("masks", "mask_decoder", models.mask_decoder, precision)
        yield Suspect("masks", "mask_decoder-resized", partial(_large_masks, 2), precision)
        yield Suspect("flux", "flux", models.flux, precision)
        for make in (models.mask_decoder, models.flux) if precision != FP32 else ():
            yield Suspect("random", f"{make.__name__}-random", partial(_random, make), precision)
        for mode in ("bilinear", "nearest"):
            for height in range(4):
                name = f"rung-{height}-{mode}"
                yield Suspect("ladder", name, partial(_rung, height, mode), precision)
        for name in ("one_stage", "one_coarse_stage", "three_stages"):
            yield Suspect("interpolation", name, getattr(models, name), precision)


GROUPS = ("interpolation", "ladder", "resize", "masks", "flux", "coarse", "stages", "random")


def build(folder: Path, groups: Sequence[str]) -> None:
    forms = resizings() if "resize" in groups else ()
    for suspect in (*(s for s in suspects() if s.group in groups), *forms):
        try:
            if isinstance(suspect, Resizing):
                made = build_resizing(folder / "resize", suspect)
            else:
                made = build_one(folder / suspect.group, suspect)
        except Exception as error:  # noqa: BLE001 - one network's failure must not stop the others
            print("FAILED", suspect.title, type(error).__name__, str(error)[:300], flush=True)
            continue
        print(suspect.title, [(len(subject.tensors), len(subject.probes)) for subject in made], flush=True)


def build_one(folder: Path, suspect: Suspect) -> list[Subject]:
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
    return prepare(folder, suspect.title, source, options, (args, {}), forms=suspect.forms, most=suspect.most)


def cast(module: nn.Module, args: tuple[Any, ...], dtype: torch.dtype) -> Example:
    """Returns the whole model and its arguments in ``dtype``, as ``model.half()`` does for halves."""
    halved = tuple(value.to(dtype) if value.is_floating_point() else value for value in args)
    return copy.deepcopy(module).to(dtype), halved


if __name__ == "__main__":
    build(Path(sys.argv[1]), sys.argv[2:] or GROUPS)
