"""Finds the first layer that TensorRT-RTX computes wrongly in an engine.

    python -m benchmarks.gpu.bisect ARTIFACT [--model MODEL]            # on a GPU host that can build
    python -m benchmarks.gpu.bisect prepare MODEL -o FOLDER [OPTION ...]  # without a GPU
    python -m benchmarks.gpu.bisect run FOLDER [OUT.json] [--kernels K]   # on a GPU host
    python -m benchmarks.gpu.bisect report FOLDER OUT.json                # prints the report of a run again

``prepare`` builds the model as ``trtcross build`` does, and a plan for each inner tensor (``benchmarks.gpu.probes``).
``run`` needs only torch, tensorrt_rtx and safetensors. It calls each plan and prints, for each network, the error of
its outputs, the first layer whose error jumps, and the tensors that make the outputs right when they become outputs:
then a fusion across them is wrong. An error is relative L2, compared with the network in fp32. It jumps where it is
over four times what rounding alone costs while the errors of the layer's inputs are not.

With ARTIFACT the artifact's own options are used, and MODEL must be what it was built from. $TRTCROSS_PROCESSES (8)
processes run at once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.gpu.plans import execute, sampled
from benchmarks.gpu.probes import CUT, MARKED, WHOLE, Probe, Subject, jobs_of, prepare, read_subjects, relative_error
from benchmarks.gpu.processes import in_processes

PROCESSES = int(os.environ.get("TRTCROSS_PROCESSES", "8"))
RATIO = 4.0
# Errors below these are no defects: fp32 products use TF32, and halves round.
FLOOR = {"float32": 2e-3, "float16": 2e-3, "bfloat16": 1.5e-2}
FORMS = (WHOLE, MARKED, CUT)

Row = dict[str, Any]


# Preparing


def prepare_model(
    folder: Path, model: str, name: str, options: Any, *, forms: Sequence[str] = (WHOLE, MARKED), most: int = 64
) -> list[Subject]:
    """Prepares a ``.pt2`` program or a ``module:factory``."""
    from linux_side.frontend.source import load_source, original_model

    _, args, kwargs = original_model(model)
    source = load_source(model, options)
    return prepare(folder, name, source, options, (args, kwargs), forms=forms, most=most)


def prepare_artifact(folder: Path, artifact: Path, model: str | None) -> list[Subject]:
    """Prepares what an artifact was built from, with its options.

    Raises:
        SystemExit: the model is not known, or is not what the artifact was built from.
    """
    from linux_side.driver.artifact_writer import program_digest
    from linux_side.frontend.source import load_source
    from linux_side.options import BuildOptions
    from toolchain import open_artifact

    with open_artifact(artifact) as opened:
        manifest = opened.manifest
    known = {key: manifest.settings[key] for key in BuildOptions.model_fields if key in manifest.settings}
    options = BuildOptions.model_validate(known)
    model = model or _factory_of(manifest.model.name)
    with tempfile.TemporaryDirectory() as spool:
        path = Path(spool) / "model.pt2"
        torch.export.save(load_source(model, options).program, path)
        digest = program_digest(path)
    if digest != manifest.model.digest:
        raise SystemExit(f"{artifact} was not built from {model} as it is now: name the right one with --model")
    return prepare_model(folder, model, artifact.stem, options)


def _factory_of(name: str) -> str:
    """Returns the factory of one of the repository's own models, by the model's name.

    Raises:
        SystemExit: no model of the repository has this name.
    """
    from importlib import import_module

    for module in ("examples.models", "benchmarks.models"):
        if hasattr(import_module(module), name):
            return f"{module}:{name}"
    raise SystemExit(f"no model of this repository is called {name!r}: name what the artifact was built from, --model")


# Running


def run(folder: Path, out: Path, processes: int = PROCESSES, *, kernels: str | None = None) -> int:
    """Runs every plan of a folder, writes and prints the results, and returns how many networks have wrong outputs."""
    subjects = read_subjects(folder)
    jobs = list(jobs_of(subjects))
    rows: list[Row] = []
    began = time.monotonic()
    for (subject, probe), result in in_processes(partial(run_probe, kernels=kernels), jobs, min(processes, len(jobs))):
        row = result if isinstance(result, dict) else {"failed": f"{type(result).__name__}: {result}"[:300]}
        rows.append({"network": subject.name, "form": probe.form, "slot": probe.slot, **row})
        if len(rows) % 20 == 0 or len(rows) == len(jobs):
            _write(out, rows, time.monotonic() - began)
            print(f"{len(rows)} of {len(jobs)} plans, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return print_report(subjects, rows)


def print_report(subjects: Sequence[Subject], rows: Sequence[Row]) -> int:
    """Prints the results of each network, and at the end those that are wrong; returns how many are."""
    wrong = []
    for subject in subjects:
        mine = [row for row in rows if row["network"] == subject.name]
        wrong += [subject.name] * _is_wrong(subject, mine)
        print("\n".join(report(subject, mine)), flush=True)
    print(f"{len(wrong)} of {len(subjects)} networks are wrong{': ' * bool(wrong)}{', '.join(wrong)}", flush=True)
    return len(wrong)


def _write(out: Path, rows: list[Row], seconds: float) -> None:
    document = {"gpu": torch.cuda.get_device_name(), "seconds": seconds, "rows": rows}
    out.with_suffix(".part").write_text(json.dumps(document, indent=1))
    out.with_suffix(".part").replace(out)


def run_probe(job: tuple[Subject, Probe], *, kernels: str | None = None) -> Row:
    """Calls one plan, and returns the errors of the tensor that it shows and of the outputs."""
    subject, probe = job
    began = time.monotonic()
    values = load_file(subject.values)
    got = execute(Path(probe.plan), {name: values[f"in.{name}"] for name in subject.inputs}, subject.aliases, kernels)
    row: Row = {"seconds": time.monotonic() - began}
    if probe.slot is not None:
        row |= compared(got[f"slot{probe.slot}"], values[str(probe.slot)])
    if probe.form != CUT:
        row["outputs"] = {
            name: compared(got[name], values[str(slot)])
            for name, slot in subject.outputs.items()
            if str(slot) in values
        }
    return row


def compared(got: Tensor, want: Tensor) -> Row:
    """Returns a tensor's error, and the shares of elements that are wrongly 0 or far off.

    An element is far off if its difference exceeds a tenth of the tensor's root mean square.
    """
    got = sampled(got).float().cpu()
    if got.shape != want.shape:
        return {"error": float("inf"), "shape": list(got.shape)}
    far = (got - want).abs() > 0.1 * want[want.isfinite()].square().mean().sqrt()
    return {
        "error": relative_error(got, want),
        "zeros": ((got == 0) & (want != 0)).float().mean().item(),
        "far": far.float().mean().item(),
    }


# Reporting


def beyond(error: float, expected: float, dtype: str) -> bool:
    """Whether an error is more than rounding explains."""
    return not error <= max(RATIO * expected, FLOOR[dtype])


def _is_wrong(subject: Subject, rows: Sequence[Row]) -> bool:
    whole = next((row for row in rows if row["form"] == WHOLE), None)
    return whole is not None and not _outputs_right(subject, whole)


def _outputs_right(subject: Subject, row: Row) -> bool:
    if "failed" in row:
        return False
    inner = {name: subject.tensors[str(slot)] for name, slot in subject.outputs.items() if str(slot) in subject.tensors}
    return not any(
        beyond(found["error"], inner[name].expected, inner[name].dtype)
        for name, found in row["outputs"].items()
        if name in inner
    )


def report(subject: Subject, rows: Sequence[Row]) -> Iterator[str]:
    """Yields the lines of the report about one network."""
    by_form = {form: [row for row in rows if row["form"] == form] for form in FORMS}
    for row in by_form[WHOLE]:
        verdict = "right" if _outputs_right(subject, row) else "WRONG"
        yield f"{subject.name}: {verdict}: {_outputs_text(subject, row)}"
    if not by_form[MARKED] and not by_form[CUT]:
        return
    for form in (MARKED, CUT):
        if (first := first_jump(subject, by_form[form])) is not None:
            yield f"  first layer whose error jumps ({form}): {_tensor_text(subject, first)}"
        failed = [row for row in by_form[form] if "failed" in row]
        if failed:
            yield f"  {len(failed)} plans ({form}) cannot run: {failed[0]['failed']}"
    if _is_wrong(subject, rows):
        for row in by_form[MARKED]:
            if _outputs_right(subject, row):
                yield f"  right when shown: {_tensor_text(subject, row)}"
    yield from _table(subject, by_form)


def first_jump(subject: Subject, rows: Sequence[Row]) -> Row | None:
    """Returns the first tensor whose error exceeds what rounding explains, while those of its layer's inputs do not."""
    wrong = {str(row["slot"]): row for row in rows if "error" in row and _row_beyond(subject, row)}
    for slot, inner in subject.tensors.items():
        if slot in wrong and not any(str(source) in wrong for source in inner.sources):
            return wrong[slot]
    return None


def _row_beyond(subject: Subject, row: Row) -> bool:
    inner = subject.tensors[str(row["slot"])]
    return beyond(row["error"], inner.expected, inner.dtype)


def _tensor_text(subject: Subject, row: Row) -> str:
    inner = subject.tensors[str(row["slot"])]
    return f"slot {row['slot']}, {inner.kind} {inner.layer} ({inner.dtype}), {_figures(row, inner.expected)}"


def _figures(row: Row, expected: float) -> str:
    return (
        f"error {row['error']:.1e} (rounding {expected:.1e}), "
        f"{row.get('zeros', 0):.0%} zeros, {row.get('far', 0):.0%} far off"
    )


def _outputs_text(subject: Subject, row: Row) -> str:
    if "failed" in row:
        return str(row["failed"])
    return "; ".join(
        f"{name} {_figures(found, subject.tensors[str(subject.outputs[name])].expected)}"
        for name, found in row["outputs"].items()
    )


def _table(subject: Subject, by_form: dict[str, list[Row]]) -> Iterator[str]:
    """Yields a line for each tensor, in the order in which they are computed."""
    found = {(row["form"], str(row["slot"])): row for form in (MARKED, CUT) for row in by_form[form]}
    yield f"  {'slot':>6} {'layer':<16}{'dtype':<9}{'rounding':>9}{'marked':>9}{'outputs':>9}{'cut':>9}  name"
    for slot, inner in subject.tensors.items():
        marked, cut = found.get((MARKED, slot)), found.get((CUT, slot))
        if marked is None and cut is None:
            continue
        yield (
            f"  {slot:>6} {inner.kind:<16}{inner.dtype:<9}{inner.expected:>9.1e}{_error_text(marked)}"
            f"{_worst_output(marked)}{_error_text(cut)}  {inner.layer}"
        )


def _error_text(row: Row | None) -> str:
    return " " * 9 if row is None else f"{'failed':>9}" if "failed" in row else f"{row['error']:>9.1e}"


def _worst_output(row: Row | None) -> str:
    if row is None or not row.get("outputs"):
        return " " * 9
    return f"{max(found['error'] for found in row['outputs'].values()):>9.1e}"


def main(arguments: Sequence[str]) -> int:
    if arguments and arguments[0] == "prepare":
        return _main_prepare(arguments[1:])
    if arguments and arguments[0] == "run":
        parser = argparse.ArgumentParser("bisect run")
        parser.add_argument("folder", type=Path)
        parser.add_argument("out", type=Path, nargs="?")
        parser.add_argument("--kernels", choices=("lazy", "eager", "none"), help="the strategy for sizes that vary")
        parsed = parser.parse_args(arguments[1:])
        return min(run(parsed.folder, parsed.out or parsed.folder / "out.json", kernels=parsed.kernels), 1)
    if arguments and arguments[0] == "report":
        folder, out = map(Path, arguments[1:])
        return min(print_report(read_subjects(folder), json.loads(out.read_text())["rows"]), 1)
    parser = argparse.ArgumentParser("bisect")
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--model", help="what it was built from, unless it is a model of this repository")
    parsed = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        raise SystemExit("there is no GPU here: use `prepare MODEL -o FOLDER`, and `run FOLDER` on a GPU host")
    with tempfile.TemporaryDirectory() as temporary:
        prepare_artifact(Path(temporary), parsed.artifact, parsed.model)
        return min(run(Path(temporary), Path(temporary) / "out.json"), 1)


def _main_prepare(arguments: Sequence[str]) -> int:
    from linux_side.options import BuildOptions, DynamicDimension

    parser = argparse.ArgumentParser("bisect prepare")
    parser.add_argument("model")
    parser.add_argument("-o", dest="folder", type=Path, required=True)
    parser.add_argument("--name")
    parser.add_argument("--precision")
    parser.add_argument("--keep-fp32", action="append", default=[])
    parser.add_argument("--dynamic", action="append", default=[])
    parser.add_argument("--form", action="append", choices=FORMS)
    parser.add_argument("--most", type=int, default=64)
    parsed = parser.parse_args(arguments)
    options = BuildOptions(
        precision=parsed.precision,
        keep_fp32=parsed.keep_fp32,
        dynamic=[DynamicDimension.parse(text) for text in parsed.dynamic],
    )
    name = parsed.name or f"{Path(parsed.model.partition(':')[2] or parsed.model).stem}-{parsed.precision or 'fp32'}"
    for subject in prepare_model(
        parsed.folder, parsed.model, name, options, forms=parsed.form or (WHOLE, MARKED), most=parsed.most
    ):
        print(f"{subject.name}: {len(subject.tensors)} tensors, {len(subject.probes)} plans")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
