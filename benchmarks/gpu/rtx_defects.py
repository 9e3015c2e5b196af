"""Measures what TensorRT-RTX computes wrongly, without and with the rewrites of :mod:`linux_side.backends.rtx_defects`.

    python -m benchmarks.gpu.rtx_defects build FOLDER           # where the engines are built, without a GPU
    python -m benchmarks.gpu.rtx_defects run FOLDER OUT.json    # on a GPU host, best on a GPU of TensorRT-RTX's list

A case is built ``plain``, as Torch-TensorRT lowers it, and where a rewrite applies also ``avoided``, as ``trtcross
build`` does. $TRTCROSS_PROCESSES (8) processes run at once.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

WIDTH = 64
PROCESSES = int(os.environ.get("TRTCROSS_PROCESSES", "8"))
BUILDS = ("plain", "avoided")


class Layers(nn.Module):
    """A linear layer with a large bias, and what follows it."""

    def __init__(self, tail: Callable[[Layers, Tensor, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.other = nn.Linear(WIDTH, WIDTH)
        nn.init.normal_(self.linear.bias)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, WIDTH))
        self.tail = tail

    def forward(self, x: Tensor) -> Any:
        return self.tail(self, x, self.linear(x))


Tail = Callable[[Layers, Tensor, Tensor], Any]


@dataclass(frozen=True)
class Case:
    tail: Tail
    name: str
    sizes: tuple[int, ...] = (4, WIDTH)
    dynamic: bool = False
    precision: str = "fp32"

    @property
    def form(self) -> str:
        return f"{len(self.sizes)}-D, {'dynamic' if self.dynamic else 'static'}, {self.precision}"

    @property
    def builds(self) -> tuple[str, ...]:
        """How the case is built; ``avoided`` differs from ``plain`` only for some operators."""
        return BUILDS if self.name.startswith(("relu", "gelu", "power", "window")) else BUILDS[:1]

    def file(self, folder: Path, build: str) -> Path:
        words = f"{self.form} {self.name} {build}"
        return folder / ("".join(letter if letter.isalnum() else "-" for letter in words) + ".pt2")


def _gelu_by_hand(h: Tensor) -> Tensor:
    return 0.5 * h * (1 + torch.erf(h * 0.7071067811865476))


def _gelu_tanh_by_hand(h: Tensor) -> Tensor:
    return 0.5 * h * (1 + torch.tanh(0.7978845608028654 * (h + 0.044715 * h.pow(3))))


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "nothing": lambda h: h,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu, tanh": lambda h: F.gelu(h, approximate="tanh"),
    "gelu by hand": _gelu_by_hand,
    "gelu, tanh by hand": _gelu_tanh_by_hand,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "leaky relu": F.leaky_relu,
    "elu": F.elu,
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "softplus": F.softplus,
}


def _operations(activation: Callable[[Tensor], Tensor]) -> dict[str, Tail]:
    return {
        "times 2": lambda m, x, h: activation(h) * 2,
        "times a weight": lambda m, x, h: activation(h) * m.scale,
        "times the input": lambda m, x, h: activation(h) * x,
        "times another layer": lambda m, x, h: activation(h) * m.other(x),
        "times itself": lambda m, x, h: activation(h) * activation(h),
        "minus 1 and times 2": lambda m, x, h: (activation(h) - 1, activation(h) * 2),
        "divided by a weight": lambda m, x, h: activation(h) / m.scale,
        "plus a weight": lambda m, x, h: activation(h) + m.scale,
    }


# Further operations after a linear layer and ReLU or GELU.
OTHERS: dict[str, Tail] = {
    "relu; addcmul": lambda m, x, h: torch.addcmul(x, F.relu(h), m.scale),
    "relu; also an output": lambda m, x, h: (F.relu(h) * 2, F.relu(h)),
    "relu; layer also an output": lambda m, x, h: (F.relu(h) * 2, h),
    "relu; bias added by hand": lambda m, x, h: F.relu(F.linear(x, m.linear.weight) + m.linear.bias) * 2,
    "relu; two products, bias added by hand": lambda m, x, h: F.relu(
        x @ m.linear.weight @ m.other.weight + m.linear.bias
    ) * m.scale,
    "gelu; half of a layer": lambda m, x, h: F.gelu(h.chunk(2, -1)[0]) * h.chunk(2, -1)[1],
    "gelu; reshaped": lambda m, x, h: F.gelu(h).reshape(-1, WIDTH // 2) * 2,
    "relu; in another shape": lambda m, x, h: (F.relu(h).unsqueeze(0) * 2).squeeze(0),
    "gelu; in another shape": lambda m, x, h: (F.gelu(h).unsqueeze(0) * 2).squeeze(0),
    "relu; transposed": lambda m, x, h: F.relu(h).transpose(-1, -2) * 2,
    "relu; a part": lambda m, x, h: F.relu(h)[..., : WIDTH // 2] * 2,
    "relu; beside the input": lambda m, x, h: torch.cat([F.relu(h), x], -1) * 2,
    "relu; to the power of 2": lambda m, x, h: F.relu(h) ** 2,
    "relu; another layer": lambda m, x, h: m.other(F.relu(h)) * 2,
    "relu; layer norm": lambda m, x, h: F.layer_norm(F.relu(h), (WIDTH,), m.scale, m.scale),
    "relu; batch norm": lambda m, x, h: F.batch_norm(
        F.relu(h).reshape(-1, WIDTH), m.linear.bias, m.scale, m.scale, m.scale
    ),
    "relu; maximum with a weight": lambda m, x, h: torch.maximum(F.relu(h), m.scale),
    "relu; minus the input": lambda m, x, h: (F.relu(h) - x, x - F.relu(h)),
    "relu; negated": lambda m, x, h: -F.relu(h),
    "relu behind a convolution; times 2": lambda m, x, h: F.relu(
        F.conv1d(x.reshape(-1, WIDTH, 1), m.linear.weight.unsqueeze(-1), m.linear.bias)
    ) * 2,
}  # fmt: skip

POWERS: dict[str, Tail] = {
    **{f"power; {exponent}": lambda m, x, h, k=exponent: x**k for exponent in (2, 3, 4, 5, 2.0, -1, -2)},
    "power; square": lambda m, x, h: x.square(),
    "power; 3 of a layer": lambda m, x, h: h**3,
    "power; 2 of gelu": lambda m, x, h: F.gelu(h) ** 2,
    "power; 0.5 of a magnitude": lambda m, x, h: x.abs() ** 0.5,
    "power; 2 to the power of it": lambda m, x, h: 2**x,
}  # fmt: skip


def _image(x: Tensor) -> Tensor:
    """Returns the input as images of four channels."""
    return x.reshape(-1, 4, 8, 8)


def _resized(mode: str, size: tuple[int, int], corners: bool | None = None) -> Callable[[Tensor], Tensor]:
    return lambda image: F.interpolate(image, size, mode=mode, align_corners=corners)


WINDOWS: dict[str, Callable[[Tensor], Tensor]] = {
    "nearest": _resized("nearest", (15, 5)),
    "nearest, larger": _resized("nearest", (16, 24)),
    "nearest-exact": _resized("nearest-exact", (15, 6)),
    "bilinear": _resized("bilinear", (14, 6), False),
    "bilinear, corners": _resized("bilinear", (13, 7), True),
    "average": lambda image: F.avg_pool2d(image, 3, 2, 1, count_include_pad=False),
    "average, padding counts": lambda image: F.avg_pool2d(image, 3, 2, 1),
    "average, no padding": lambda image: F.avg_pool2d(image, 2),
}


def _windows(*names: str, once: bool = True) -> Tail:
    """Returns a tail of several layers that read the same image, or each its own view of the input."""

    def tail(m: Layers, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        image = _image(x)
        return tuple(WINDOWS[name](image if once else _image(x)) for name in names)

    return tail


# Several layers that read one tensor.
SHARED: dict[str, Tail] = {
    **{f"window; {one} and {other}": _windows(one, other) for one in WINDOWS for other in WINDOWS if one != other},
    **{
        f"window; {one} and {other}, of two views": _windows(one, other, once=False)
        for one, other in (("nearest", "bilinear"), ("average", "average, padding counts"))
    },
    "window; nearest, bilinear, nearest-exact": _windows("nearest", "bilinear", "nearest-exact"),
    "window; three averages": _windows("average", "average, padding counts", "average, no padding"),
}
_FORMS = [(sizes, dynamic) for sizes in ((4, WIDTH), (2, 4, WIDTH)) for dynamic in (False, True)]
_IN_EVERY_FORM = ("times 2", "times another layer")


def cases() -> Iterator[Case]:
    for name, activation in ACTIVATIONS.items():
        for operation, tail in _operations(activation).items():
            yield Case(tail, f"{name}; {operation}")
    for name, tail in OTHERS.items():
        for sizes, dynamic in _FORMS:
            yield Case(tail, name, sizes, dynamic)
    for name in ("relu", "gelu", "gelu, tanh", "gelu by hand", "gelu, tanh by hand"):
        for operation in _IN_EVERY_FORM:
            tail = _operations(ACTIVATIONS[name])[operation]
            for precision in ("fp32", "fp16"):
                for sizes, dynamic in _FORMS:
                    if (sizes, dynamic, precision) != ((4, WIDTH), False, "fp32"):
                        yield Case(tail, f"{name}; {operation}", sizes, dynamic, precision)
    for name, tail in SHARED.items():
        for precision in ("fp32", "fp16"):
            yield Case(tail, name, precision=precision)
    for name, tail in POWERS.items():
        for shape in ((WIDTH,), (4, WIDTH), (2, 4, WIDTH), (2, 3, 4, WIDTH)):
            for dynamic in (False, True) if len(shape) > 1 else (False,):
                yield Case(tail, name, shape, dynamic)


def build(folder: Path) -> None:
    from tests.integration.harness import build_here, imported_builder
    from toolchain.targets import Platform

    folder.mkdir(parents=True, exist_ok=True)
    builder = imported_builder()
    ours = builder.prepare
    for case in cases():
        for kind in case.builds:
            out = case.file(folder, kind)
            if out.exists() and kind == "plain":  # the other kind is built again, because it changes with our code
                continue
            builder.prepare = ours if kind == "avoided" else lambda partition: None
            torch.manual_seed(1)
            call = (torch.randn(case.sizes),)
            options = {"precision": case.precision, "golden": 1, "target": Platform.LINUX_X86_64}
            try:
                built = build_here(
                    Layers(case.tail).eval(), call, folder=folder, dynamic=("x.0=1:4:8",) * case.dynamic, **options
                )
            except Exception as error:  # noqa: BLE001 - one case's failure must not stop the others
                print("FAILED", out.stem, str(error)[:300], flush=True)
                continue
            built.artifact.path.replace(out)
            built.artifact.path.parent.rmdir()


def run_one(job: tuple[str, str, str, str]) -> dict[str, Any]:
    from toolchain import open_artifact
    from windows_side import load
    from windows_side.verification.golden import compare_golden

    name, form, kind, path = job
    row: dict[str, Any] = {"case": name, "form": form, "build": kind}
    try:
        with open_artifact(path) as artifact:
            errors = compare_golden(artifact, load(artifact, allow_unlisted_gpu=True, runtime_cache=False))
    except Exception as error:  # noqa: BLE001 - as above
        return {**row, "error": str(error)[:300]}
    row["within"] = all(error.within for error in errors)
    if not all(math.isfinite(error.relative_l2) for error in errors):
        return {**row, "not_finite": True}
    return {**row, "relative_l2": max(error.relative_l2 for error in errors)}


def run(folder: Path, out: Path) -> int:
    """Runs all cases; returns how many are wrong although they are ``avoided``. One that was not built is wrong."""
    wanted = [(case, kind) for kind in reversed(BUILDS) for case in cases() if kind in case.builds]
    jobs = [(case.name, case.form, kind, str(case.file(folder, kind))) for case, kind in wanted]
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        for row in pool.map(run_one, jobs):
            rows.append(row)
            if len(rows) % 20 == 0 or len(rows) == len(jobs):
                out.write_text(json.dumps({"gpu": torch.cuda.get_device_name(), "rows": rows}, indent=1))
    for kind in BUILDS:
        mine = [row for row in rows if row["build"] == kind]
        wrong = [row for row in mine if not row.get("within")]
        print(f"{kind}: {len(mine)} cases, {len(wrong)} wrong", flush=True)
    return sum(row["build"] == "avoided" and not row.get("within") for row in rows)


if __name__ == "__main__":
    if sys.argv[1] == "build":
        build(Path(sys.argv[2]))
    else:
        sys.exit(min(run(Path(sys.argv[2]), Path(sys.argv[3])), 1))
