"""Where TensorRT-RTX leaves out the bias of a linear layer: what follows the layer, by activation and operation.

    python -m benchmarks.gpu.lost_bias build FOLDER           # where the engines are built, without a GPU
    python -m benchmarks.gpu.lost_bias run FOLDER OUT.json    # on a GPU host

``build`` bypasses the way round that :mod:`linux_side.kept_biases` takes, so that the defect itself is seen.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

WIDTH = 64
PROCESSES = 14

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda h: h,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu, tanh": lambda h: F.gelu(h, approximate="tanh"),
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "leaky relu": F.leaky_relu,
    "elu": F.elu,
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "softplus": F.softplus,
}


class Case(nn.Module):
    """A linear layer with a bias that cannot be overlooked, and what follows it."""

    def __init__(self, tail: Callable[[Case, Tensor, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.other = nn.Linear(WIDTH, WIDTH)
        nn.init.normal_(self.linear.bias)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, WIDTH))
        self.register_buffer("minus_bias", -self.linear.bias.detach().clone())
        self.tail = tail

    def forward(self, x: Tensor) -> Any:
        return self.tail(self, x, self.linear(x))

    def without_bias(self, x: Tensor) -> Tensor:
        return F.linear(x, self.linear.weight)


def _followed_by(activation: Callable[[Tensor], Tensor]) -> dict[str, Callable[[Case, Tensor, Tensor], Any]]:
    return {
        "times 2": lambda m, x, h: activation(h) * 2,
        "times a weight": lambda m, x, h: activation(h) * m.scale,
        "divided by a weight": lambda m, x, h: activation(h) / m.scale,
        "plus a weight": lambda m, x, h: activation(h) + m.scale,
        "squared": lambda m, x, h: activation(h) * activation(h),
        "times the input": lambda m, x, h: activation(h) * x,
        "times another layer": lambda m, x, h: activation(h) * m.other(x),
        "minus 1 and times 2": lambda m, x, h: (activation(h) - 1, activation(h) * 2),
    }


# Ways to compute the same: does the bias stay in?
WAYS_ROUND: dict[str, Callable[[Case, Tensor, Tensor], Any]] = {
    "relu: minus the negative bias": lambda m, x, h: F.relu(m.without_bias(x) - m.minus_bias) * 2,
    "gelu: minus the negative bias": lambda m, x, h: F.gelu(m.without_bias(x) - m.minus_bias) * 2,
    "relu: bias added by hand": lambda m, x, h: F.relu(m.without_bias(x) + m.linear.bias) * 2,
    "relu: bias in two halves": lambda m, x, h: F.relu(m.without_bias(x) + m.linear.bias / 2 + m.linear.bias / 2) * 2,
    "relu: three dimensions": lambda m, x, h: F.relu(m.linear(x.unsqueeze(0))).squeeze(0) * 2,
    "gelu: three dimensions": lambda m, x, h: F.gelu(m.linear(x.unsqueeze(0))).squeeze(0) * 2,
    "relu: maximum": lambda m, x, h: torch.maximum(h, torch.zeros(())) * 2,
    "relu: clamp": lambda m, x, h: h.clamp(min=0) * 2,
    "relu: where": lambda m, x, h: torch.where(h > 0, h, torch.zeros(())) * 2,
    "relu: twice": lambda m, x, h: F.relu(F.relu(h)) * 2,
    "relu: abs": lambda m, x, h: F.relu(h).abs() * 2,
    "relu: plus zero": lambda m, x, h: (F.relu(h) + torch.zeros(WIDTH)) * 2,
    "gelu: plus zero": lambda m, x, h: (F.gelu(h) + torch.zeros(WIDTH)) * 2,
    "relu: reshaped": lambda m, x, h: F.relu(h).reshape(-1, 8, WIDTH // 8).mul(2).reshape(-1, WIDTH),
    "relu: divided by a half": lambda m, x, h: F.relu(h) / 0.5,
    "relu: negated twice": lambda m, x, h: F.relu(h).neg().neg() * 2,
    "relu: product before a sum": lambda m, x, h: F.relu(h) + F.relu(h),
    "gelu: product before a sum": lambda m, x, h: F.gelu(h) + F.gelu(h),
    "gelu: by hand": lambda m, x, h: (0.5 * h * (1 + torch.erf(h * 0.7071067811865476))) * 2,
    "gelu: doubled before": lambda m, x, h: (h * (1 + torch.erf(h * 0.7071067811865476))),
    "relu: convolution": lambda m, x, h: F.relu(
        F.conv1d(x.unsqueeze(-1), m.linear.weight.unsqueeze(-1), m.linear.bias)
    ).squeeze(-1) * 2,
    "gelu: convolution": lambda m, x, h: F.gelu(
        F.conv1d(x.unsqueeze(-1), m.linear.weight.unsqueeze(-1), m.linear.bias)
    ).squeeze(-1) * 2,
    "relu: bias as a row of weights": lambda m, x, h: F.relu(
        F.linear(
            torch.cat([x, torch.ones(x.shape[0], 1)], 1),
            torch.cat([m.linear.weight, m.linear.bias.unsqueeze(1)], 1),
        )
    ) * 2,
    "relu: layer also an output": lambda m, x, h: (F.relu(h) * 2, h),
    "relu: activation also an output": lambda m, x, h: (F.relu(h) * 2, F.relu(h)),
    "relu: softmax between": lambda m, x, h: F.relu(h).softmax(1) * 2,
    "relu: pool between": lambda m, x, h: F.relu(h).mean(1, keepdim=True) * 2,
}  # fmt: skip


# The same, in more shapes and precisions.
FORMS: dict[str, dict[str, Any]] = {
    f"{len(sizes)}-D, {'dynamic' if dynamic else 'static'}, {precision}": {
        "sizes": sizes, "dynamic": dynamic, "precision": precision,
    }
    for sizes in ((4, WIDTH), (2, 4, WIDTH))
    for dynamic in ((), ("x.0=1:4:8",))
    for precision in ("fp32", "fp16")
}  # fmt: skip
_ZEROS = torch.zeros(WIDTH)


def _gelu_by_hand(h: Tensor) -> Tensor:
    return 0.5 * h * (1 + torch.erf(h * 0.7071067811865476))


CANDIDATES: dict[str, Callable[[Case, Tensor, Tensor], Any]] = {
    "relu: as it is": lambda m, x, h: F.relu(h) * 2,
    "gelu: as it is": lambda m, x, h: F.gelu(h) * 2,
    "gelu: gate": lambda m, x, h: F.gelu(h) * m.other(x),
    "relu: bias added by hand": lambda m, x, h: F.relu(m.without_bias(x) + m.linear.bias) * 2,
    "gelu: bias added by hand": lambda m, x, h: F.gelu(m.without_bias(x) + m.linear.bias) * 2,
    "relu: plus zeros": lambda m, x, h: (F.relu(h) + _ZEROS.to(h.dtype)) * 2,
    "gelu: plus zeros": lambda m, x, h: (F.gelu(h) + _ZEROS.to(h.dtype)) * 2,
    "gelu: gate, plus zeros": lambda m, x, h: (F.gelu(h) + _ZEROS.to(h.dtype)) * m.other(x),
    "relu: plus 0": lambda m, x, h: (F.relu(h) + 0.0) * 2,
    "gelu: plus 0": lambda m, x, h: (F.gelu(h) + 0.0) * 2,
    "relu: clamp": lambda m, x, h: h.clamp(min=0) * 2,
    "gelu: by hand": lambda m, x, h: _gelu_by_hand(h) * 2,
    "gelu: gate, by hand": lambda m, x, h: _gelu_by_hand(h) * m.other(x),
    "relu: unsqueezed": lambda m, x, h: (F.relu(h).unsqueeze(0) * 2).squeeze(0),
    "gelu: unsqueezed": lambda m, x, h: (F.gelu(h).unsqueeze(0) * 2).squeeze(0),
    "gelu: gate, unsqueezed": lambda m, x, h: (F.gelu(h).unsqueeze(0) * m.other(x).unsqueeze(0)).squeeze(0),
}  # fmt: skip


def _gelu_doubled(h: Tensor) -> Tensor:
    return h * (1 + torch.erf(h * 0.7071067811865476))


def _gelu_tanh_by_hand(h: Tensor) -> Tensor:
    return 0.5 * h * (1 + torch.tanh(0.7978845608028654 * (h + 0.044715 * h.pow(3))))


def _late_bias(m: Case, x: Tensor) -> Tensor:
    return (m.without_bias(x) + 0.0) + m.linear.bias


MORE: dict[str, Callable[[Case, Tensor, Tensor], Any]] = {
    "gelu by hand: plus 0": lambda m, x, h: (_gelu_by_hand(h) + 0.0) * 2,
    "gelu by hand: layer plus 0": lambda m, x, h: _gelu_by_hand(h + 0.0) * 2,
    "gelu by hand: plus 0 before the bias": lambda m, x, h: _gelu_by_hand(_late_bias(m, x)) * 2,
    "relu: plus 0 before the bias": lambda m, x, h: F.relu(_late_bias(m, x)) * 2,
    "gelu: plus 0 before the bias": lambda m, x, h: F.gelu(_late_bias(m, x)) * 2,
    "gelu: gate, plus 0 before the bias": lambda m, x, h: F.gelu(_late_bias(m, x)) * m.other(x),
    "gelu: layer plus 0": lambda m, x, h: F.gelu(h + 0.0) * 2,
    "gelu doubled": lambda m, x, h: _gelu_doubled(h),
    "gelu doubled: layer plus 0": lambda m, x, h: _gelu_doubled(h + 0.0),
    "gelu doubled: plus 0 before the bias": lambda m, x, h: _gelu_doubled(_late_bias(m, x)),
    "gelu tanh by hand": lambda m, x, h: _gelu_tanh_by_hand(h) * 2,
    "gelu tanh by hand: plus 0": lambda m, x, h: (_gelu_tanh_by_hand(h) + 0.0) * 2,
    "gelu tanh by hand: layer plus 0": lambda m, x, h: _gelu_tanh_by_hand(h + 0.0) * 2,
    "gelu tanh by hand: plus 0 before the bias": lambda m, x, h: _gelu_tanh_by_hand(_late_bias(m, x)) * 2,
    "relu: power of two": lambda m, x, h: F.relu(h) ** 2,
    "relu: square": lambda m, x, h: F.relu(h).square(),
    "gelu: power of two": lambda m, x, h: F.gelu(h) ** 2,
    "relu: layer norm": lambda m, x, h: F.layer_norm(F.relu(h), (WIDTH,), m.scale, m.scale),
    "relu: maximum": lambda m, x, h: torch.maximum(F.relu(h), m.scale),
    "relu: minus the input": lambda m, x, h: (F.relu(h) - x, x - F.relu(h)),
    "relu: negated": lambda m, x, h: -F.relu(h),
    "relu: cast, times 2": lambda m, x, h: (F.relu(h).half() * 2).float(),
    "relu: transposed, times 2": lambda m, x, h: F.relu(h).transpose(-1, -2) * 2,
    "relu: sliced, times 2": lambda m, x, h: F.relu(h)[..., :32] * 2,
    "relu: beside the input, times 2": lambda m, x, h: torch.cat([F.relu(h), x], -1) * 2,
    "relu: addcmul": lambda m, x, h: torch.addcmul(x, F.relu(h), m.scale),
    "relu: batch norm": lambda m, x, h: F.batch_norm(
        F.relu(h).reshape(-1, WIDTH), m.minus_bias, m.scale, m.scale, m.scale
    ),
    "relu: 2 times": lambda m, x, h: torch.full((), 2.0) * F.relu(h),
    "relu: layer of three parts": lambda m, x, h: F.relu(
        torch.matmul(torch.matmul(x, m.linear.weight), m.other.weight) + m.linear.bias
    ) * m.scale,
    "relu: another layer behind": lambda m, x, h: m.other(F.relu(h)) * 2,
    "relu: divided by 2": lambda m, x, h: F.relu(h) / 2,
}  # fmt: skip


def cases() -> Iterator[tuple[str, nn.Module, dict[str, Any]]]:
    """Their names, models, and what :data:`FORMS` says of them."""
    plain = FORMS["2-D, static, fp32"]
    for name, activation in ACTIVATIONS.items():
        for words, tail in _followed_by(activation).items():
            yield f"{name}; {words}", Case(tail).eval(), plain
    for words, tail in WAYS_ROUND.items():
        yield f"way round; {words}", Case(tail).eval(), plain
    for form, settings in FORMS.items():
        more = {f"more; {words}": tail for words, tail in MORE.items()} if settings["precision"] == "fp32" else {}
        for words, tail in {**CANDIDATES, **more}.items():
            yield f"{form}; {words}", Case(tail).eval(), settings


def file_name(case: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in case) + ".pt2"


def build(folder: Path) -> None:
    from tests.integration.harness import build_here
    from toolchain.targets import Platform

    folder.mkdir(parents=True, exist_ok=True)
    for name, module, form in cases():
        out = folder / file_name(name)
        if not out.exists():
            torch.manual_seed(1)
            x = torch.randn(form["sizes"])
            try:
                built = build_here(
                    module, (x,), folder=folder, target=Platform.LINUX_X86_64, golden=1, dynamic=form["dynamic"],
                    precision=form["precision"],
                )  # fmt: skip
            except Exception as error:  # noqa: BLE001 - one case's trouble is not the others'
                print("FAILED", name, str(error)[:300], flush=True)
                continue
            built.artifact.path.replace(out)
            built.artifact.path.parent.rmdir()


def run_one(job: tuple[str, str]) -> dict[str, Any]:
    from toolchain import open_artifact
    from windows_side import load
    from windows_side.golden import compare_golden

    name, path = job
    try:
        with open_artifact(path) as artifact:
            errors = compare_golden(artifact, load(artifact, allow_unlisted_gpu=True, runtime_cache=False))
        return {"case": name, "relative_l2": max(error.relative_l2 for error in errors)}
    except Exception as error:  # noqa: BLE001 - as above
        return {"case": name, "error": str(error)[:300]}


def run(folder: Path, out: Path) -> None:
    jobs = [(name, str(folder / file_name(name))) for name, *_ in cases() if (folder / file_name(name)).exists()]
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        rows = list(pool.map(run_one, jobs))
    for row in rows:
        print(row["case"], row.get("relative_l2", row.get("error")), flush=True)
    out.write_text(json.dumps({"gpu": torch.cuda.get_device_name(), "rows": rows}, indent=1))


if __name__ == "__main__":
    if sys.argv[1] == "build":
        build(Path(sys.argv[2]))
    else:
        run(Path(sys.argv[2]), Path(sys.argv[3]))
