"""Measures errors, latency and engine size of the models of ``benchmarks/models`` in each precision.

    python -m benchmarks.gpu.precision build FOLDER [MODEL ...]           # where artifacts are built; needs no GPU
    python -m benchmarks.gpu.precision run FOLDER OUT.json [--raw]        # on a GPU host
    python -m benchmarks.gpu.precision eager FOLDER EAGER.json            # there, on a torch that runs eager models
    python -m benchmarks.gpu.precision report OUT.json EAGER.json         # a Markdown table, anywhere

Each model is built in fp32, by the rules of fp16 and bf16, with ``--precision auto``, and as ``cast``, which is the
model after ``.half()``. An error is the relative L2 error of the worst output, compared with fp32 on the CPU. The goal
is that no error exceeds four times that of eager PyTorch in the same precision on the same GPU, and that no variant is
more than 5% slower than ``cast``. Latency is that of the loaded model with CUDA graphs; the variants of one model are
called in turns.

With ``--raw`` an artifact's only engine is called by TensorRT-RTX's own API, as a CUDA graph, which needs no
Torch-TensorRT and no particular torch. ``run`` first loads everything in $TRTCROSS_PROCESSES (8) processes, which fills
the runtime cache, and then measures in one process. Files are written after each result.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils import _pytree as pytree

from benchmarks.gpu.processes import in_processes

PROCESSES = int(os.environ.get("TRTCROSS_PROCESSES", "8"))
MODELS = (
    "three_stages", "encoder", "flux", "llama", "unet", "mask_decoder", "resnet", "vit", "efficientnet", "swin",
    "interpolation",
)  # fmt: skip
# The precision of eager PyTorch with which each variant is compared.
VARIANTS = {"fp32": "fp32", "fp16": "fp16", "bf16": "bf16", "auto": "fp16", "cast": "fp16"}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
TOLERANCE = 1e-2
RATIO, SLOWER = 4.0, 1.05
CALLS = 100

Row = dict[str, Any]


def example(name: str) -> tuple[torch.nn.Module, tuple[Any, ...]]:
    from benchmarks import models

    made: tuple[torch.nn.Module, tuple[Any, ...]] = getattr(models, name)()
    return made


# Building


def build(folder: Path, names: Sequence[str]) -> None:
    """Builds the artifacts that are not in the folder yet, and the golden values of each model."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(str(folder), name, variant) for name in names or MODELS for variant in VARIANTS]
    jobs = [job for job in jobs if not artifact_of(*job).exists()]
    for (_, name, variant), result in in_processes(build_one, jobs, min(PROCESSES, len(jobs))):
        print(f"{name}-{variant}: {f'FAILED {result}' if isinstance(result, Exception) else result}", flush=True)


def artifact_of(folder: str | Path, name: str, variant: str) -> Path:
    return Path(folder) / f"{name}-{variant}.pt2"


def golden(folder: Path, name: str) -> None:
    path = folder / f"{name}.safetensors"
    if not path.exists():
        model, args = example(name)
        with torch.no_grad():
            outputs = pytree.tree_leaves(model(*args))
        values = {f"in.{index}": value.contiguous() for index, value in enumerate(args)}
        values |= {f"out.{index}": value.contiguous() for index, value in enumerate(outputs)}
        part = path.with_suffix(f".{os.getpid()}")
        save_file(values, part)
        part.replace(path)


def read_golden(folder: Path, name: str) -> tuple[list[Tensor], list[Tensor]]:
    values = load_file(folder / f"{name}.safetensors")
    lists = [[values[key] for key in sorted(values) if key.startswith(prefix)] for prefix in ("in.", "out.")]
    return lists[0], lists[1]


def build_one(job: tuple[str, str, str]) -> str:
    import tempfile
    from contextlib import nullcontext

    from linux_side.driver.pipeline import Pipeline
    from linux_side.frontend.source import export_source
    from linux_side.options import BuildOptions
    from tests.integration.harness import imported_builder
    from toolchain.targets import Platform

    (folder, name, variant), out, began = job, artifact_of(*job), time.monotonic()
    golden(Path(folder), name)
    model, args = example(name)
    options: dict[str, Any] = {"target": Platform.LINUX_X86_64, "precision": variant}
    if variant == "cast":
        model, args = model.half(), tuple(placed(args, "fp16", "cpu"))
        options |= {"precision": None, "golden": 0}
    elif variant == "auto":
        options |= {"tolerance": TOLERANCE}
    parsed = BuildOptions.model_validate(options)
    source = export_source(name, model, args, {}, parsed)
    with tempfile.TemporaryDirectory() as spool:
        Pipeline(parsed, imported_builder(), Path(spool), lambda _: nullcontext()).run_source(source, out)
    return f"{out.stat().st_size / 2**20:.1f} MiB, {time.monotonic() - began:.0f} s"


def placed(leaves: Sequence[Any], precision: str, device: str) -> list[Any]:
    """Returns the arguments on a device, with floats in a precision."""
    moved = [leaf.to(device) for leaf in leaves]
    return [leaf.to(DTYPES[precision]) if leaf.is_floating_point() else leaf for leaf in moved]


def worst_error(got: Sequence[Tensor], want: Sequence[Tensor]) -> float:
    """Returns the relative L2 error of the worst output; infinite where an error is not finite."""
    errors = []
    for a, b in zip(got, want, strict=True):
        a, b = a.detach().cpu().double(), b.double()
        error = (a - b).norm() / b.norm()
        errors.append(error.item() if error.isfinite() else float("inf"))
    return max(errors)


# On the GPU host


def run(folder: Path, out: Path, raw: bool = False) -> None:
    import tensorrt_rtx

    document: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "tensorrt_rtx": tensorrt_rtx.__version__,
        "raw": raw, "rows": [],
    }  # fmt: skip
    rows: dict[str, Row] = {}

    def write() -> None:
        document["rows"] = list(rows.values())
        out.write_text(json.dumps(document, indent=1))

    jobs = [(str(folder), name, variant, raw) for name, variant in artifacts(folder)]
    for (_, name, variant, _), result in in_processes(measure_error, jobs, min(PROCESSES, len(jobs))):
        row = result if isinstance(result, dict) else {"failed": f"{type(result).__name__}: {result}"[:300]}
        rows[f"{name}-{variant}"] = {"model": name, "variant": variant, **row}
        print(json.dumps(rows[f"{name}-{variant}"]), flush=True)
        write()
    for name in dict.fromkeys(name for name, _ in artifacts(folder)):
        variants = [v for n, v in artifacts(folder) if n == name and "failed" not in rows[f"{n}-{v}"]]
        try:
            for variant, latency in measure_latencies(folder, name, variants, raw).items():
                rows[f"{name}-{variant}"] |= latency
                print(name, variant, json.dumps(latency), flush=True)
        except Exception as error:  # noqa: BLE001 - one model's failure must not stop the others
            print("FAILED", name, type(error).__name__, str(error)[:300], flush=True)
        write()


def artifacts(folder: Path) -> Iterator[tuple[str, str]]:
    for name in MODELS:
        yield from ((name, variant) for variant in VARIANTS if artifact_of(folder, name, variant).exists())


def measure_error(job: tuple[str, str, str, bool]) -> Row:
    """Loads an artifact and calls it once, which also writes its kernels into the runtime cache; returns the row."""
    from toolchain import open_artifact

    folder, name, variant, raw = Path(job[0]), *job[1:]
    with open_artifact(artifact_of(folder, name, variant)) as artifact:
        facts = {
            "engines": len(artifact.engines),
            "engine_bytes": sum(len(engine.read()) for engine in artifact.engines),
            "in_torch": sum(operator.count for operator in artifact.manifest.fallback),
            "predicted": _predicted(artifact.manifest),
        }
    leaves, want = read_golden(folder, name)
    began = time.monotonic()
    call = called(folder, name, variant, leaves, raw=raw, first=True)
    error = worst_error(pytree.tree_leaves(call()), want)
    return {**facts, "error": error, "first_call": time.monotonic() - began}


def _predicted(manifest: Any) -> float | None:
    """Returns the error that this precision costs the worst output, as the build measured it on the CPU."""
    errors = [error for error in manifest.precision.errors if error is not None] if manifest.precision else []
    return max(errors, default=None)


def called(
    folder: Path, name: str, variant: str, leaves: Sequence[Tensor], *, raw: bool, first: bool = False
) -> Callable[[], Any]:
    """Loads an artifact, and returns a call that returns its outputs.

    Args:
        raw: call the only engine by TensorRT-RTX's own API.
        first: fill the runtime cache, and use no CUDA graphs.
    """
    path = artifact_of(folder, name, variant)
    args = placed(leaves, "fp16" if variant == "cast" else "fp32", "cuda")
    if not raw:
        from windows_side import load

        model = load(path, allow_unlisted_gpu=True, cuda_graphs=not first)
        return lambda: model(*args)
    from benchmarks.gpu.raw import RawEngine, captured
    from toolchain import open_artifact

    with open_artifact(path) as artifact:
        (info,) = (engine.info for engine in artifact.engines)
        given = dict(zip((spec.name for spec in artifact.manifest.inputs), args, strict=True))
        inputs = [given[binding].contiguous() for binding in info.input_names]
        engine = RawEngine(artifact.engines[0], inputs, path.with_suffix(".kernels"))
    if first:
        engine()
        torch.cuda.synchronize()
        engine.keep_kernels()
        return lambda: engine.outputs
    replay = captured(engine)
    return lambda: (replay(), engine.outputs)[1]


def measure_latencies(folder: Path, name: str, variants: Sequence[str], raw: bool) -> dict[str, Row]:
    from windows_side.benchmark.measure import measure_latency, measure_throughput

    leaves, _ = read_golden(folder, name)
    with torch.no_grad():
        calls = {variant: called(folder, name, variant, leaves, raw=raw) for variant in variants}
        latencies = measure_latency(list(calls.values()), calls=CALLS, warm_up=30)
        return {
            variant: {
                "one_at_a_time": latency.median,
                "p5": latency.p5,
                "p95": latency.p95,
                "back_to_back": measure_throughput(call, calls=CALLS, repeats=5),
            }
            for (variant, call), latency in zip(calls.items(), latencies, strict=True)
        }


# Eager, on another torch


def eager(folder: Path, out: Path) -> None:
    """Measures errors and latency of the models as PyTorch itself casts them; fp32 uses TF32, as TensorRT-RTX does."""
    from windows_side.benchmark.measure import measure_latency

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    document: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": []}
    for name in MODELS:
        if not (folder / f"{name}.safetensors").exists():
            continue
        leaves, want = read_golden(folder, name)
        for precision, dtype in DTYPES.items():
            row: Row = {"model": name, "precision": precision}
            try:
                model, _ = example(name)
                with torch.no_grad():
                    if precision == "fp32":  # checks that this version of PyTorch has made the same model
                        row["cpu_error"] = worst_error(pytree.tree_leaves(model(*leaves)), want)
                    model, args = model.cuda().to(dtype), placed(leaves, precision, "cuda")
                    row["error"] = worst_error(pytree.tree_leaves(model(*args)), want)
                    (latency,) = measure_latency([lambda m=model, a=args: m(*a)], calls=30, warm_up=5)
                    row["one_at_a_time"] = latency.median
            except Exception as error:  # noqa: BLE001 - a failure of PyTorch is a result
                row["failed"] = f"{type(error).__name__}: {error}"[:300]
            print(json.dumps(row), flush=True)
            document["rows"].append(row)
            out.write_text(json.dumps(document, indent=1))


# The table


def report(rows: Sequence[Row], peers: Sequence[Row]) -> Iterator[str]:
    """A Markdown table, and below it what misses a goal."""
    peer = {(row["model"], row["precision"]): row for row in peers}
    cast = {row["model"]: row for row in rows if row["variant"] == "cast" and "one_at_a_time" in row}
    missed = []
    header = (
        "model", "precision", "error", "on the CPU", "eager", "error / eager", "latency, ms", "/ cast",
        "back to back, ms", "/ cast", "eager, ms", "engine, MiB", "first call, s",
    )  # fmt: skip
    yield "| " + " | ".join(header) + " |"
    yield "| " + " | ".join(["---"] * len(header)) + " |"
    for row in rows:
        title = f"{row['model']}, {row['variant']}"
        if "failed" in row:
            missed.append(f"{title}: {row['failed']}")
            continue
        beside = peer.get((row["model"], VARIANTS[row["variant"]]), {})
        ratio = _ratio(row, beside, "error")
        single, many = (_ratio(row, cast.get(row["model"], {}), key) for key in ("one_at_a_time", "back_to_back"))
        if ratio is not None and not ratio <= RATIO:
            missed.append(f"{title}: {ratio:.1f} times eager's error")
        if row["variant"] in ("fp16", "auto") and single is not None and single > SLOWER:
            missed.append(f"{title}: {single:.2f} of the whole cast's latency")
        cells = (
            row["model"], row["variant"], f"{row['error']:.1e}", _text(row.get("predicted"), ".1e"),
            _text(beside.get("error"), ".1e"), _text(ratio, ".2f"),
            _text(row.get("one_at_a_time"), ".3f"), _text(single, ".2f"), _text(row.get("back_to_back"), ".3f"),
            _text(many, ".2f"), _text(beside.get("one_at_a_time"), ".3f"), f"{row['engine_bytes'] / 2**20:.1f}",
            f"{row['first_call']:.1f}",
        )  # fmt: skip
        yield "| " + " | ".join(cells) + " |"
    other = [row["model"] for row in peers if row.get("cpu_error", 0) > 1e-4]
    yield ""
    yield from (f"- **missed**: {line}" for line in missed)
    yield from (f"- eager made another model of {name}: its errors say nothing" for name in other)


def _ratio(row: Row, other: Row, key: str) -> float | None:
    return row[key] / other[key] if key in row and other.get(key) else None


def _text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def main(arguments: Sequence[str]) -> None:
    verb, *rest = arguments
    if verb == "build":
        build(Path(rest[0]), rest[1:])
    elif verb == "run":
        run(Path(rest[0]), Path(rest[1]), raw="--raw" in rest)
    elif verb == "eager":
        eager(Path(rest[0]), Path(rest[1]))
    else:
        documents = [json.loads(Path(path).read_text()) for path in rest]
        print("\n".join(report(documents[0]["rows"], documents[1]["rows"])))


if __name__ == "__main__":
    main(sys.argv[1:])
