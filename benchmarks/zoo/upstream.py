"""Compiles the rows of the zoo by Torch-TensorRT's own ``compile`` on this machine's GPU, and checks the results.

    python -m benchmarks.zoo.upstream OUT.jsonl [--jobs 8] [--seconds 300] [--only PATTERN]
    python -m benchmarks.zoo.upstream OUT.jsonl --cross-compile    # three models, through cross_compile_for_windows

A row is compiled by ``torch_tensorrt.compile`` with ranges as ``torch_tensorrt.Input`` takes them. Where that fails, it
is first exported by ``torch.export`` with ``Dim.DYNAMIC``, which finds sizes that are equal. Rows are written as they
end, and rows that are in the file are not run again. ``--into-table OUT.jsonl`` puts them into the results that
``docs/build/zoo.md`` shows.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from benchmarks.zoo.processes import Found
from benchmarks.zoo.recording import add_options, into_table, print_steps, record, said
from benchmarks.zoo.row import TIMES_EAGER, Row
from benchmarks.zoo.rows import zoo
from benchmarks.zoo.table import UPSTREAM

# The most used models are first, because the time may not suffice for all.
FIRST = (
    "resnet18", "bert", "vit", "sd-unet", "llama", "convnext", "whisper", "yolo", "clip", "swin", "segformer", "gpt2",
    "qwen2", "vae-decoder", "sdxl-unet", "flux", "esrgan", "detr", "t5-encoder", "wav2vec2", "llama-step-static-cache",
    "efficientnet", "mobilenetv3", "deeplabv3", "modernbert", "mistral", "gemma3", "sam-image-encoder", "roberta",
    "distilbert", "controlnet", "sd3", "siglip", "depth-anything", "rife", "raft", "hifi-gan", "unet", "mixtral",
)  # fmt: skip
CROSS = ("resnet18", "bert", "sd-unet")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo.upstream", description=__doc__)
    add_options(parser, jobs=8, each=120, seconds=7200)
    parser.add_argument("--cross-compile", action="store_true", help="three rows, for Windows")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.into_table:
        into_table(asked, UPSTREAM)
    elif asked.one:
        print_steps((_cross_compiled if asked.cross_compile else _compiled)(zoo(asked.one)[0]))
    else:
        rows = sorted(zoo(asked.only), key=lambda row: FIRST.index(row.name) if row.name in FIRST else len(FIRST))
        names = [row.name for row in rows if not asked.cross_compile or row.name in CROSS]
        mode = ["--cross-compile"] if asked.cross_compile else []
        command = [sys.executable, "-m", "benchmarks.zoo.upstream", *mode, "--one"]
        record(asked, {name: [*command, name] for name in names}, {"built": False, "right": False})
    return 0


class _Example:
    """A row's model and its calls at the sizes of its ranges.

    Attributes:
        eager: the model on the GPU.
        samples: the leaves of calls on the CPU, at the example's sizes, the least and the greatest.
        wanted: the model's outputs for them, computed on the CPU in fp32.
    """

    def __init__(self, row: Row) -> None:
        from benchmarks.zoo.building import called, made
        from benchmarks.zoo.eager import Eager
        from linux_side.frontend.leaves import input_names
        from linux_side.frontend.structure import plain_spec
        from linux_side.options import BuildOptions

        model, *call = made(row)
        self._leaves, structure = pytree.tree_flatten(tuple(call))
        names = input_names(plain_spec(structure), list(inspect.signature(model.forward).parameters))
        dynamic = BuildOptions.model_validate({"dynamic": list(row.dynamic)}).dynamic
        self.ranges = {(names.index(item.input), item.dim): item.ranges[0] for item in dynamic}
        self.samples = [list(self._leaves), self.leaves_at("min"), self.leaves_at("max")]
        self.wanted = []
        for sample in self.samples:
            args, kwargs = called(tuple(call), [x.clone() if isinstance(x, torch.Tensor) else x for x in sample])
            with torch.no_grad():
                self.wanted.append(pytree.tree_leaves(model(*args, **kwargs)))
        self.eager = Eager(row)

    def leaves_at(self, kind: str) -> list[Any]:
        """Returns the example's leaves, cropped or tiled to the sizes ``min``, ``opt`` or ``max``."""
        leaves = list(self._leaves)
        for (index, dim), sizes in self.ranges.items():
            rows = torch.arange(getattr(sizes, kind)) % leaves[index].shape[dim]
            leaves[index] = leaves[index].index_select(dim, rows)
        return leaves

    def call_of(self, leaves: list[Any]) -> tuple[Any, Any]:
        """Returns arguments and keywords on the GPU, in the row's precision; values that are not tensors stay."""
        from benchmarks.zoo.building import called

        args, kwargs = called(self.eager.call, self.eager.placed(leaves))
        return args, kwargs

    def inputs(self) -> tuple[Any, Any]:
        """Returns the ``torch_tensorrt.Input`` objects in the structure of arguments and keywords."""
        import torch_tensorrt

        def described(index: int, leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return leaf
            low, high = (at[kind][index].shape for kind in ("min", "max"))
            if low == high:
                return torch_tensorrt.Input(shape=tuple(leaf.shape), dtype=leaf.dtype)
            shapes = {f"{kind}_shape": tuple(leaves[index].shape) for kind, leaves in at.items()}
            return torch_tensorrt.Input(**shapes, dtype=leaf.dtype)

        at = {kind: self.leaves_at(kind) for kind in ("min", "opt", "max")}
        leaves, structure = pytree.tree_flatten(self.eager.call)
        args, kwargs = pytree.tree_unflatten([described(*pair) for pair in enumerate(leaves)], structure)
        return args, kwargs

    def exported(self) -> torch.export.ExportedProgram:
        """Exports the model by torch.export, with every ranged size dynamic and within its range."""
        leaves, structure = pytree.tree_flatten(self.eager.call)
        for index, dim in self.ranges:  # torch.export specializes sizes of 1
            if leaves[index].shape[dim] == 1:
                leaves[index] = leaves[index].repeat_interleave(2, dim)
        wanted: dict[int, dict[int, Any]] = {}
        for (index, dim), sizes in self.ranges.items():
            wanted.setdefault(index, {})[dim] = torch.export.Dim.DYNAMIC(min=sizes.min, max=sizes.max)
        shapes = torch.export.ShapesCollection()
        for index, dims in wanted.items():
            shapes[leaves[index]] = dims
        args, kwargs = pytree.tree_unflatten(leaves, structure)
        with torch.no_grad():
            return torch.export.export(self.eager.module, args, kwargs, dynamic_shapes=shapes if self.ranges else None)


def _compiled(row: Row) -> Iterator[Found]:
    from benchmarks.zoo.eager import device_name, error_of
    from linux_side.frontend.golden_entry import tolerance_of

    example = _Example(row)
    pairs = list(zip(example.samples, example.wanted, strict=True))
    yield {"gpu": device_name()}
    of_eager = [example.eager.error(leaves, wanted) for leaves, wanted in pairs]
    yield {"eager_error": max(of_eager)}
    for way, compiler in (("compile", _by_compile), ("export", _by_export)):
        began = time.monotonic()
        try:
            model = compiler(example)
        except Exception as error:  # noqa: BLE001 - the error is the row's result
            traceback.print_exc()
            yield {f"{way}_failed": said(error)}
            continue
        yield {"built": True, "way": way, "compile_seconds": round(time.monotonic() - began, 1), **_counted(model)}
        errors = []
        for leaves, wanted in pairs:
            errors.append(error_of(model, example.call_of(leaves), wanted))
            yield {"errors": errors, "error": max(errors)}
        allowed = tolerance_of(row.precision if row.precision in ("fp16", "bf16") else "fp32").relative_l2
        limits = [max(allowed, TIMES_EAGER * error) for error in of_eager]
        yield {"right": all(error <= limit for error, limit in zip(errors, limits, strict=True))}
        return


def _by_compile(example: _Example) -> Any:
    import torch_tensorrt

    args, kwargs = example.inputs()
    return torch_tensorrt.compile(example.eager.module, ir="dynamo", arg_inputs=args, kwarg_inputs=kwargs)


def _by_export(example: _Example) -> Any:
    import torch_tensorrt

    args, kwargs = example.inputs()
    return torch_tensorrt.dynamo.compile(example.exported(), arg_inputs=args, kwarg_inputs=kwargs)


def _counted(model: Any) -> Found:
    engines = [name for name, _ in model.named_children() if name.startswith("_run_on_acc")]
    return {"engines": len(engines)}


def _cross_compiled(row: Row) -> Iterator[Found]:
    """Cross-compiles for Windows by upstream's own function, at the example's sizes."""
    import torch_tensorrt

    from benchmarks.zoo.eager import device_name

    example = _Example(row)
    args, kwargs = example.eager.call
    with torch.no_grad():
        program = torch.export.export(example.eager.module, args, kwargs)
    yield {"gpu": device_name()}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.ep"
        module = torch_tensorrt.dynamo.cross_compile_for_windows(program, arg_inputs=args, kwarg_inputs=kwargs)
        yield {"compile_seconds": round(time.monotonic() - began, 1), **_counted(module)}
        torch_tensorrt.dynamo.save_cross_compiled_exported_program(module, str(file))
        yield {"built": True, "bytes": file.stat().st_size}


if __name__ == "__main__":
    sys.exit(main())
