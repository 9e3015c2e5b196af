"""Compares the interpreter of TensorRT networks with TensorRT-RTX, layer by layer.

    python -m benchmarks.gpu.layers build FOLDER [MODEL ...]    # where the engines are built, without a GPU
    python -m benchmarks.gpu.layers run FOLDER OUT.json         # on a GPU host

For models of ``examples/models.py``, in fp32 and fp16, engines are built from the build's own network, with inner
tensors as further outputs. Each of two engines shows every other tensor, so that some layers are still fused. ``build``
also writes what ``tests/integration/network`` computes from the same inputs; large tensors are sampled. The networks
that are made by hand, one or more for each layer with the values that NVIDIA's documentation states, are compared in
the same way; MODEL may be ``hand-made``.

An error of an inner tensor includes the errors of all layers before it, so the first one matters. ``run`` needs only
torch, tensorrt_rtx and safetensors.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.gpu.plans import execute, inner_tensors, sampled

ENGINES = 2
# Relative L2, fp32 without TF32; integers and booleans must be equal.
TOLERANCES = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
HAND_MADE = "hand-made"


@dataclass(frozen=True)
class Model:
    """A model of ``examples/models.py``, and how it is built."""

    factory: str
    precisions: tuple[str, ...] = ("fp32", "fp16")
    dynamic: tuple[str, ...] = ()


MODELS = {
    **{
        name: Model(name)
        for name in (
            "two_outputs", "nested", "mixed", "kv_cache", "gates", "accumulator", "resnet18", "efficientnet_lite0",
            "minilm", "swin_t",
        )
    },
    "vit_b_16": Model("vit_b_16", ("fp16",)),  # it has 350 MB in fp32
    "gates-dynamic": Model("gates", dynamic=("x.0=1:4:8",)),
}  # fmt: skip


@dataclass
class Case:
    """One engine, and what its outputs must be.

    Attributes:
        name: the names of the model, its precision and its engine.
        plan: the engine's file.
        values: the file of its inputs and of its outputs' samples.
        inputs: the names of the input bindings.
        outputs: for each binding that is compared, the layer that computes it and the layer's kind.
        aliases: for each output that shares an input's memory, that input.
    """

    name: str
    plan: str
    values: str
    inputs: list[str] = field(default_factory=list)
    outputs: dict[str, tuple[str, str]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)


# Building


def build(folder: Path, names: Sequence[str]) -> None:
    """Builds the engines of these models, or of all; engines that are in the folder are built again."""
    folder.mkdir(parents=True, exist_ok=True)
    cases: list[Case] = []
    for name in names or (HAND_MADE, *MODELS):
        for made in [_hand_made(folder)] if name == HAND_MADE else _of_model(folder, name):
            cases += (new := list(made))
            print(f"{name}: {len(new)} engines, {sum(len(case.outputs) for case in new)} tensors", flush=True)
            (folder / "cases.json").write_text(json.dumps([asdict(case) for case in cases], indent=1))


def _hand_made(folder: Path) -> Iterator[Case]:
    from tests.integration.network import record
    from tests.integration.network.hand_made import CASES, HandMade

    for number, (name, make) in enumerate(CASES.items()):
        net = HandMade()
        make(net)
        network = record(net.network)
        makers = {
            network.slots[index].name: (step.layer, step.kind) for step in network.layers for index in step.outputs
        }
        plan = net.plan()
        if plan is None:
            print("REFUSED BY TENSORRT", name, flush=True)
            continue
        stem = f"hand-made-{number}"
        (folder / f"{stem}.plan").write_bytes(memoryview(plan))
        _save(folder, stem, net.inputs, net.expected)
        case = Case(f"by hand: {name}", f"{stem}.plan", f"{stem}.safetensors", list(net.inputs))
        case.outputs = {output: makers[output] for output in net.expected}
        if name == "cache update":
            case.aliases = {"output0": "input0"}
        yield case


def _save(folder: Path, stem: str, inputs: dict[str, Tensor], outputs: dict[str, Tensor]) -> None:
    values = {f"in.{name}": value.contiguous() for name, value in inputs.items()}
    values |= {f"out.{name}": sampled(value) for name, value in outputs.items()}
    save_file({name: value.clone() for name, value in values.items()}, folder / f"{stem}.safetensors")


def _of_model(folder: Path, name: str) -> Iterator[Iterator[Case]]:
    for precision in MODELS[name].precisions:
        yield _of_precision(folder, name, precision)


def _of_precision(folder: Path, name: str, precision: str) -> Iterator[Case]:
    """Builds the model as ``trtcross build`` does, and meanwhile further engines of each of its networks."""
    import examples.models
    from tests.integration.harness import build_here, imported_builder

    model, args, *kwargs = getattr(examples.models, MODELS[name].factory)()
    options: dict[str, Any] = {"precision": precision, "tf32": False, "dynamic": MODELS[name].dynamic}
    builder = imported_builder()
    writer = _Writer(folder, f"{name}-{precision}")
    ours = builder.build
    builder.build = writer.build
    try:
        built = build_here(model, args, *kwargs, folder=folder, **options)
    finally:
        builder.build = ours
    inputs: list[dict[str, Tensor]] = []
    for network, info in zip(built.networks.values(), (engine.info for engine in built.artifact.engines), strict=True):
        _watch(network, inputs)
        writer.aliases.append({alias.output: alias.input for alias in info.aliased_io})
    built.run_networks(*args, **(kwargs[0] if kwargs else {}))
    for number, (network, bound) in enumerate(zip(built.networks.values(), inputs, strict=True)):
        values = network.run_all(bound)
        yield from writer.cases(number, network, bound, values)
    built.artifact.path.unlink()
    built.artifact.path.parent.rmdir()


def _watch(network: Any, seen: list[dict[str, Tensor]]) -> None:
    """Records copies of a network's inputs at each call, before the call can change them."""
    run = network.run

    def watched(inputs: dict[str, Tensor]) -> Any:
        seen.append({name: value.clone() for name, value in inputs.items()})
        return run(inputs)

    object.__setattr__(network, "run", watched)


class _Writer:
    """Replaces ``EngineBuilder.build`` by one that also writes further engines."""

    def __init__(self, folder: Path, stem: str) -> None:
        self._folder = folder
        self._stem = stem
        self._engines: list[list[tuple[str, dict[str, int]]]] = []
        self.aliases: list[dict[str, str]] = []

    def build(self, interpreter: Any, platform: Any, gpus: Any, on_step: Any = None) -> Any:
        from linux_side import upstream

        network = upstream.network_of(interpreter)
        tensors = list(inner_tensors(network))
        engines = []
        for part in range(ENGINES):
            engines += self._marked(interpreter, tensors[part::ENGINES], f"{self._stem}-{len(self._engines)}-{part}")
        self._engines.append(engines)
        plan = interpreter.builder.build_serialized_network(network, upstream.builder_config(interpreter))
        upstream.release_weights(interpreter)
        return plan

    def _marked(self, interpreter: Any, tensors: list[tuple[int, Any]], stem: str) -> list[tuple[str, dict[str, int]]]:
        """Writes an engine with these outputs.

        Where TensorRT refuses it, integers and booleans are left out; then the outputs are divided among two engines.
        """
        from linux_side import upstream

        network = upstream.network_of(interpreter)
        marked = {}
        for slot, tensor in tensors:
            if not tensor.is_network_output:
                tensor.name = f"slot{slot}"
                network.mark_output(tensor)
                marked[tensor.name] = slot
        plan = interpreter.builder.build_serialized_network(network, upstream.builder_config(interpreter))
        for _, tensor in tensors:
            if tensor.name in marked:
                network.unmark_output(tensor)
        if plan is not None:
            (self._folder / f"{stem}.plan").write_bytes(memoryview(plan))
            return [(stem, marked)]
        numbers = [(slot, tensor) for slot, tensor in tensors if tensor.dtype.name in ("FLOAT", "HALF", "BF16")]
        if len(numbers) < len(tensors):
            print("NOT AS OUTPUTS:", len(tensors) - len(numbers), "integers and booleans of", stem, flush=True)
            return self._marked(interpreter, numbers, stem)
        if len(tensors) <= 1:
            print("NOT AS AN OUTPUT:", [tensor.name for _, tensor in tensors], flush=True)
            return []
        middle = len(tensors) // 2
        return [
            *self._marked(interpreter, tensors[:middle], stem + "a"),
            *self._marked(interpreter, tensors[middle:], stem + "b"),
        ]

    def cases(self, number: int, network: Any, inputs: dict[str, Tensor], values: dict[int, Tensor]) -> Iterator[Case]:
        makers = {index: (step.layer, step.kind) for step in network.layers for index in step.outputs}
        own = {network.slots[index].name: index for index in network.outputs}
        for stem, marked in self._engines[number]:
            compared = {name: slot for name, slot in {**own, **marked}.items() if slot in values}
            _save(self._folder, stem, inputs, {name: values[slot] for name, slot in compared.items()})
            case = Case(stem, f"{stem}.plan", f"{stem}.safetensors", list(inputs), aliases=self.aliases[number])
            case.outputs = {name: makers.get(slot, ("", "INPUT")) for name, slot in compared.items()}
            yield case


# Running


def run(folder: Path, out: Path) -> int:
    """Runs the engines; returns how many tensors are outside their tolerance. An engine that fails counts as one."""
    cases = [Case(**case) for case in json.loads((folder / "cases.json").read_text())]
    rows = []
    for case in cases:
        try:
            rows += list(_compared(folder, case))
        except Exception as error:  # noqa: BLE001 - one engine's failure must not stop the others
            rows.append({"case": case.name, "kind": "", "layer": "", "error": str(error)[:300], "within": False})
        out.write_text(json.dumps({"gpu": torch.cuda.get_device_name(), "rows": rows}, indent=1))
    _print(rows)
    return sum(not row["within"] for row in rows)


def _compared(folder: Path, case: Case) -> Iterator[dict[str, Any]]:
    values = load_file(folder / case.values)
    got = execute(folder / case.plan, {name: values[f"in.{name}"] for name in case.inputs}, case.aliases)
    for name, (layer, kind) in case.outputs.items():
        want = values[f"out.{name}"]
        row = {"case": case.name, "kind": kind, "layer": layer, "dtype": str(want.dtype).removeprefix("torch.")}
        yield {**row, **_error(sampled(got[name]).cpu(), want)}


def _error(got: Tensor, want: Tensor) -> dict[str, Any]:
    if (got.dtype, got.shape) != (want.dtype, want.shape):
        return {"error": f"{got.dtype} {tuple(got.shape)}, not {want.dtype} {tuple(want.shape)}", "within": False}
    if not want.is_floating_point():
        different = int((got != want).sum())
        return {"different": different, "of": want.numel(), "within": not different}
    a, b = got.double(), want.double()
    finite = b.isfinite()
    if not torch.equal(a[~finite].nan_to_num(), b[~finite].nan_to_num()) or not a[finite].isfinite().all():
        return {"error": "not finite elsewhere", "within": False}
    norm = b[finite].norm().item()
    error = (a - b)[finite].norm().item() / norm if norm else (a - b)[finite].norm().item()
    return {"relative_l2": error, "within": error <= TOLERANCES[want.dtype]}


def _print(rows: list[dict[str, Any]]) -> None:
    print(f"{'layer':<18}{'dtype':<10}{'tensors':>8}{'beyond':>8}  worst")
    kinds = sorted({(row["kind"], row.get("dtype", "")) for row in rows})
    for kind, dtype in kinds:
        mine = [row for row in rows if (row["kind"], row.get("dtype", "")) == (kind, dtype)]
        worst = max(mine, key=_badness)
        figure = worst.get("error") or (
            f"{worst['relative_l2']:.1e}" if "relative_l2" in worst else f"{worst['different']} of {worst['of']} differ"
        )
        beyond = sum(not row["within"] for row in mine)
        print(f"{kind:<18}{dtype:<10}{len(mine):>8}{beyond:>8}  {figure}: {worst['case']}, {worst['layer']}")


def _badness(row: dict[str, Any]) -> float:
    return math.inf if "error" in row else float(row.get("relative_l2", row.get("different", 0)))


if __name__ == "__main__":
    if sys.argv[1] == "build":
        build(Path(sys.argv[2]), sys.argv[3:])
    else:
        sys.exit(min(run(Path(sys.argv[2]), Path(sys.argv[3])), 1))
