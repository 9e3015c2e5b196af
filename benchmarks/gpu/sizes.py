"""Calls engines at several sizes, one after another, with each of TensorRT-RTX's strategies for sizes that vary.

    python -m benchmarks.gpu.sizes prepare FOLDER [NAME ...]      # without a GPU
    python -m benchmarks.gpu.sizes run FOLDER OUT.json [NAME ...] # on a GPU host

Each case is a small network that was computed wrongly, or one like it. It is built ``plain``, as Torch-TensorRT lowers
it, and ``avoided``, as ``trtcross build`` does. ``none`` uses kernels for any size, ``eager`` kernels for one size,
``lazy`` the first until the second are compiled. Errors are relative L2 against PyTorch on the same GPU, without TF32,
at the smallest, the optimal and the greatest sizes, twice.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from benchmarks.gpu.plans import Plan
from benchmarks.gpu.probes import read_subjects, relative_error
from benchmarks.gpu.rtx_defects import BUILDS

STRATEGIES = ("none", "eager", "lazy")
_WRONG = 2e-2
_SETTLING = 0.4  # seconds in which `lazy` compiles the kernels of a small network


class Gate(nn.Module):
    """A tensor beside what a convolution makes of it, and a layer behind both."""

    def __init__(self, gate: Callable[[Tensor, Tensor], Tensor], *, width: int = 32, kernel: int = 3, groups: int = 1):
        super().__init__()
        torch.manual_seed(6)
        self.convolution = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=groups)
        self.behind = nn.Conv2d(width, width, 1)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(self.gate(x, self.convolution(x)))


class Branches(nn.Module):
    """The stem and the first stages of FastViT (timm), with batch norms that are not neutral."""

    def __init__(self, stages: int) -> None:
        super().__init__()
        from benchmarks.zoo.building import made
        from benchmarks.zoo.rows import zoo

        [row] = zoo("fastvit")
        model = made(row)[0]
        self.stem, self.stages = model.stem, model.stages[:stages]

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return x


class Depthwise(nn.Module):
    """Two depthwise convolutions of as many channels."""

    def __init__(self, *kernels: int, stride: int = 1) -> None:
        super().__init__()
        torch.manual_seed(6)
        one, other = (nn.Conv2d(64, 64, size, stride, size // 2, groups=64) for size in kernels)
        first, between, last = nn.Conv2d(16, 64, 1), nn.Conv2d(64, 64, 1), nn.Conv2d(64, 16, 1)
        self.layers = nn.Sequential(
            first, nn.ReLU(), one, nn.ReLU(), between, nn.ReLU(), other, nn.ReLU(), last
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.layers(x)
        return output


@dataclass(frozen=True)
class Case:
    """A network with sizes that vary.

    Attributes:
        shapes: the smallest, the optimal and the greatest shape of its input.
    """

    make: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    precision: str

    def inputs(self) -> list[Tensor]:
        random = torch.Generator().manual_seed(0)
        return [torch.randn(shape, generator=random) for shape in self.shapes]

    @property
    def dynamic(self) -> list[str]:
        sizes = list(zip(*self.shapes, strict=True))
        ranges = [(dim, ":".join(map(str, each))) for dim, each in enumerate(sizes) if len(set(each)) > 1]
        return [f"x.{dim}={text}" for dim, text in ranges]


def _gate(gate: Callable[[Tensor, Tensor], Tensor], **options: int) -> Case:
    width = options.get("width", 32)
    return Case(
        lambda: Gate(gate, **options).eval(), tuple((n, width, s, s) for n, s in ((1, 32), (1, 48), (4, 80))), "fp16"
    )


def _sigmoid(x: Tensor, h: Tensor) -> Tensor:
    return x * h.sigmoid()


CASES = {
    "gate": _gate(_sigmoid),
    "gate, 64 channels": _gate(_sigmoid, width=64),
    "gate, kernel of 5": _gate(_sigmoid, kernel=5),
    "gate, kernel of 1": _gate(_sigmoid, kernel=1),
    "gate, depthwise": _gate(_sigmoid, groups=32),
    "gate, convolution first": _gate(lambda x, h: h.sigmoid() * x),
    "product": _gate(lambda x, h: x * h),
    "product with tanh": _gate(lambda x, h: x * h.tanh()),
    "product with relu": _gate(lambda x, h: x * h.relu()),
    "product with gelu": _gate(lambda x, h: x * F.gelu(h)),
    "product with silu": _gate(lambda x, h: x * F.silu(h)),
    "product with hardsigmoid": _gate(lambda x, h: x * F.hardsigmoid(h)),
    "sum": _gate(lambda x, h: x + h),
    "sum with relu": _gate(lambda x, h: x + h.relu()),
    "sum with sigmoid": _gate(lambda x, h: x + h.sigmoid()),
    "sum with relu, convolution first": _gate(lambda x, h: h.relu() + x),
    "difference with relu": _gate(lambda x, h: x - h.relu()),
    **{
        f"depthwise, {one} and {other}": Case(
            lambda one=one, other=other: Depthwise(one, other).eval(),
            tuple((n, 16, s, s) for n, s in ((1, 6), (1, 10), (4, 20))),
            "fp32",
        )
        for one, other in ((3, 5), (5, 3), (3, 3), (3, 7))
    },
    **{
        f"fastvit, {stages} stages": Case(
            lambda count=stages: Branches(count).eval(),
            tuple((n, 3, s, s) for n, s in ((1, 64), (1, 96), (4, 160))),
            "fp32",
        )
        for stages in (0, 1, 2, 4)
    },
}


def case() -> tuple[nn.Module, tuple[Tensor]]:
    """The factory of the case that is being prepared."""
    return chosen.make(), (chosen.inputs()[1],)


chosen = next(iter(CASES.values()))


def prepare(folder: Path, names: Sequence[str]) -> None:
    from benchmarks.gpu import sizes  # the factory's module; this one may be __main__
    from benchmarks.gpu.bisect import prepare_model
    from benchmarks.gpu.probes import WHOLE
    from linux_side.options import BuildOptions, DynamicDimension
    from tests.integration.harness import imported_builder

    builder = imported_builder()
    ours = builder.prepare
    for name, build in product(names, BUILDS):
        sizes.chosen = chosen = CASES[name]
        builder.prepare = ours if build == "avoided" else lambda partition: None
        options = BuildOptions(
            precision=chosen.precision, dynamic=[DynamicDimension.parse(text) for text in chosen.dynamic]
        )
        prepare_model(folder / name / build, "benchmarks.gpu.sizes:case", name, options, forms=(WHOLE,))
        print(f"prepared: {name}, {build}", flush=True)


def run(folder: Path, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    torch.backends.cudnn.enabled = torch.backends.cuda.matmul.allow_tf32 = False
    for name in names:
        model = CASES[name].make().cuda()
        with torch.no_grad():
            pairs = [(x, model(x.cuda()).cpu()) for x in CASES[name].inputs()] * 2
        for build, strategy in product(BUILDS, STRATEGIES):
            [subject] = read_subjects(folder / name / build)
            [probe] = subject.probes
            plan, errors = Plan(Path(probe.plan), strategy), []
            for x, wanted in pairs:
                [output] = plan({subject.inputs[0]: x}, subject.aliases).values()
                errors.append(relative_error(output.float().cpu(), wanted))
                time.sleep(_SETTLING if strategy == "lazy" else 0)
            wrong = not max(errors) < _WRONG
            yield {"case": name, "build": build, "strategy": strategy, "errors": errors, "wrong": wrong}


def _known(name: str) -> str:
    if name not in CASES:
        raise argparse.ArgumentTypeError(f"{name!r} is not one of: {'; '.join(CASES)}")
    return name


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.sizes")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("prepare", "run"):
        added = verbs.add_parser(verb)
        added.add_argument("folder", type=Path)
        if verb == "run":
            added.add_argument("out", type=Path)
        added.add_argument("names", nargs="*", type=_known, metavar="NAME", help="a case; all without one")
    asked = parser.parse_args(arguments)
    names = asked.names or list(CASES)
    if asked.verb == "prepare":
        prepare(asked.folder, names)
        return 0
    rows = []
    for row in run(asked.folder, names):
        rows.append(row)
        verdict = "WRONG" if row["wrong"] else "right"
        print(f"{row['case']:34}{row['build']:8}{row['strategy']:6}{verdict:6}", end="")
        print(*(f"{error:.0e}" for error in row["errors"]), flush=True)
        asked.out.write_text(json.dumps({"gpu": torch.cuda.get_device_name(), "rows": rows}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
