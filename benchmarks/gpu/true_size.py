"""Runs an artifact of a model at its true size and the model itself on this machine's GPU, and compares them.

    python -m benchmarks.gpu.true_size benchmarks.true_size:sdxl_unet ARTIFACT OUT.json
    python -m benchmarks.gpu.true_size benchmarks.true_size:sdxl_unet upstream OUT.json   # torch_tensorrt.compile

Both are compared with the model in fp32 (no TF32). cuDNN is disabled, because a host's may be too old for torch.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from toolchain import open_artifact
from toolchain.factory import call_factory
from windows_side import load

_CALLS = 5


def main(factory: str, path: str, out: str) -> int:
    found: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "model": factory}

    def keep(**what: Any) -> None:
        found.update(what)
        Path(out).write_text(json.dumps(found, indent=1))
        print(what, flush=True)

    module, args, kwargs = call_factory(factory)
    args, kwargs = _on_gpu(args), _on_gpu(kwargs)
    torch.backends.cudnn.enabled = False
    with torch.no_grad():
        if path == "upstream":
            start = time.monotonic()
            module = module.cuda()
            model = _by_upstream(module, args, kwargs)
            keep(compile=time.monotonic() - start, host=_host_memory())
        else:
            with open_artifact(path) as artifact:
                keep(engines=[[engine.entry.sha256, engine.entry.size] for engine in artifact.engines])
            start = time.monotonic()
            model = load(path, allow_unlisted_gpu=True)
            keep(load=time.monotonic() - start, loaded=_memory())
        start = time.monotonic()
        built = _cpu(model(*args, **kwargs))
        keep(first_call=time.monotonic() - start, ran=_memory(), steady=_seconds(model, args, kwargs))
        del model
        _free()
        module = module.cuda()
        eager = _cpu(module(*args, **kwargs))
        keep(eager_steady=_seconds(module, args, kwargs))
        torch.backends.cuda.matmul.allow_tf32 = False
        exact = _cpu(module.float()(*_floats(args), **_floats(kwargs)))
    error, eager_error = (_error(each, exact) for each in (built, eager))
    keep(error=error, eager_error=eager_error, right=error <= 4 * eager_error, spread=float(exact.std()))
    return 0


def _by_upstream(module: torch.nn.Module, args: Any, kwargs: Any) -> Callable[..., Any]:
    import torch_tensorrt

    model: Callable[..., Any] = torch_tensorrt.compile(module, ir="dynamo", arg_inputs=args, kwarg_inputs=kwargs)
    return model


def _host_memory() -> int:
    """Returns the peak of the process's resident bytes, mapped files included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _on_gpu(tree: Any) -> Any:
    return pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.cuda(), tree)


def _floats(tree: Any) -> Any:
    return pytree.tree_map_only(torch.Tensor, lambda t: t.float() if t.is_floating_point() else t, tree)


def _cpu(result: Any) -> torch.Tensor:
    output = pytree.tree_leaves(result)[0].float().cpu()
    torch.cuda.synchronize()
    return output


def _error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


def _seconds(model: Callable[..., Any], args: Any, kwargs: Any) -> float:
    torch.cuda.synchronize()
    start = time.monotonic()
    for _ in range(_CALLS):
        model(*args, **kwargs)
    torch.cuda.synchronize()
    return (time.monotonic() - start) / _CALLS


def _memory() -> int:
    free, whole = map(int, torch.cuda.mem_get_info())
    return whole - free


def _free() -> None:
    gc.collect()
    torch.cuda.empty_cache()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
