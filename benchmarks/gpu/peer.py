"""Measures the original models in eager and compiled PyTorch, on a host's own torch; needs no TensorRT.

    python -m benchmarks.gpu.peer OUT.json resnet50-fp16 ...

The models are named as the artifacts are. Latency is in milliseconds as in ``benchmarks.gpu.latency``. Errors are
relative L2, compared with fp32 on the CPU.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from examples import models
from windows_side.benchmark.measure import measure_latency, measure_throughput

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
BATCHES = (1, 8)


def measure(callee: Callable[[], Any], calls: int = 100) -> dict[str, float]:
    (latency,) = measure_latency([callee], calls=calls, warm_up=10)
    return {"one_at_a_time": latency.median, "back_to_back": measure_throughput(callee, calls=calls, repeats=3)}


def rows(name: str, precision: str) -> list[dict[str, Any]]:
    model, args, *rest = getattr(models, name)()
    kwargs = rest[0] if rest else {}
    leaves, spec = pytree.tree_flatten((args, kwargs))
    with torch.no_grad():
        want = pytree.tree_leaves(model(*args, **kwargs))
    dtype = DTYPES[precision]
    model = model.cuda().to(dtype)
    found = []
    for batch in BATCHES:
        if batch > 1 and name in ("kv_cache", "mixed"):
            continue
        placed = [_placed(leaf, dtype, batch) for leaf in leaves]
        args, kwargs = pytree.tree_unflatten(placed, spec)
        with torch.no_grad():
            got = pytree.tree_leaves(model(*args, **kwargs))
            error = max(
                ((a.double().cpu() - b[: len(a)].double()).norm() / b[: len(a)].double().norm()).item()
                for a, b in zip(got, want, strict=True)
            ) if batch == 1 else None  # fmt: skip
            row = {"model": name, "precision": precision, "batch": batch, "error": error}
            row["eager"] = measure(lambda a=args, k=kwargs: model(*a, **k))
            try:
                compiled = torch.compile(model, mode="reduce-overhead")
                row["compiled"] = measure(lambda c=compiled, a=args, k=kwargs: c(*a, **k))
            except Exception as problem:  # noqa: BLE001 - a failure of PyTorch is a result
                row["compiled"] = {"error": str(problem)[:300]}
            torch._dynamo.reset()
        print(json.dumps(row), flush=True)
        found.append(row)
    return found


def _placed(leaf: Any, dtype: torch.dtype, batch: int) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    leaf = leaf.cuda()
    if leaf.is_floating_point():
        leaf = leaf.to(dtype)
    return leaf[:1].repeat(batch, *[1] * (leaf.dim() - 1)) if leaf.dim() and leaf.shape[0] != batch else leaf


def main(out: Path, names: list[str]) -> None:
    document: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": []}
    for name in names:
        try:
            document["rows"] += rows(*name.rsplit("-", 1))
        except Exception as error:  # noqa: BLE001 - one model's failure must not stop the others
            print("FAILED", name, str(error)[:300], flush=True)
        out.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    main(Path(sys.argv[1]), sys.argv[2:])
