"""Makes plans of a network that each show one inner tensor, and computes what they must return. Needs no GPU.

A tensor that is an output cannot be fused away, so that showing all tensors at once may hide a defect. So each tensor
gets a plan of its own: the whole network with one more output (``marked``), or the network up to that tensor (``cut``).
The plan of the build (``whole``) shows the error that is to be explained.

The reference is the network in fp32 on the CPU (``tests/integration/network/exact.py``), with the weights of the plan.
Each tensor also has the error that rounding alone causes: that of the same network when each layer's result is rounded
to the dtype that TensorRT gives it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.gpu.plans import inner_tensors, sampled

SUBJECTS = "subjects.json"
WHOLE, MARKED, CUT = "whole", "marked", "cut"


@dataclass
class Inner:
    """A tensor that is compared.

    Attributes:
        layer: the name of the layer that computes it.
        kind: the kind of the layer.
        dtype: the tensor's dtype in the network.
        expected: the relative L2 error that rounding alone causes.
        sources: the slots of the tensors that the layer reads.
    """

    layer: str
    kind: str
    dtype: str
    expected: float
    sources: list[int] = field(default_factory=list)


@dataclass
class Probe:
    """One plan of a network.

    Attributes:
        plan: the plan's file.
        form: ``whole``, ``marked`` or ``cut``.
        slot: the slot of the tensor that it shows; None for ``whole``.
    """

    plan: str
    form: str
    slot: int | None = None


@dataclass
class Subject:
    """One network, and its plans.

    Attributes:
        values: the file of its inputs and of samples of its tensors in fp32.
        inputs: the names of the input bindings.
        outputs: the slots of the outputs, by binding name.
        aliases: for each output that shares an input's memory, that input.
        tensors: the tensors by slot (as text), in the order in which they are computed.
        probes: the network's plans.
    """

    name: str
    values: str
    inputs: list[str] = field(default_factory=list)
    outputs: dict[str, int] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, Inner] = field(default_factory=dict)
    probes: list[Probe] = field(default_factory=list)


def read_subjects(folder: Path) -> list[Subject]:
    """Reads what :func:`prepare` wrote into a folder or folders below it, whose names precede the networks' names."""
    return [
        Subject(
            **{
                **document,
                "name": str(path.parent.relative_to(folder) / document["name"]),
                "values": str(path.parent / document["values"]),
                "tensors": {slot: Inner(**inner) for slot, inner in document["tensors"].items()},
                "probes": [
                    Probe(**{**probe, "plan": str(path.parent / probe["plan"])}) for probe in document["probes"]
                ],
            }
        )
        for path in sorted(folder.rglob(SUBJECTS))
        for document in json.loads(path.read_text())
    ]


def prepare(
    folder: Path,
    name: str,
    source: Any,
    options: Any,
    call: tuple[tuple[Any, ...], dict[str, Any]],
    *,
    forms: Sequence[str] = (WHOLE, MARKED),
    most: int = 64,
) -> list[Subject]:
    """Builds a program as ``trtcross build`` does, and meanwhile the plans that show its inner tensors.

    Args:
        folder: where the plans go; other files in it stay.
        name: the name of the first network; the names of others are made from it.
        source: the program, of :mod:`linux_side.frontend.source`.
        options: the options of the build.
        call: the arguments and keywords with which the networks are run.
        forms: the forms of plans to make.
        most: the most tensors of one network that get plans, chosen at even distances.
    """
    from tests.integration.harness import build_source, imported_builder

    folder.mkdir(parents=True, exist_ok=True)
    builder = imported_builder()
    writer = _Writer(folder, name, forms, most)
    ours = builder.build
    builder.build = writer.build
    try:
        built = build_source(source, options, builder, folder)
    finally:
        builder.build = ours
    inputs: list[dict[str, Tensor]] = []
    for network in built.networks.values():
        watch_calls(network, inputs)
    built.run_networks(*call[0], **call[1])
    subjects = []
    for number, (network, engine) in enumerate(zip(built.networks.values(), built.artifact.engines, strict=True)):
        subject = subject_of(folder, f"{name}-{number}" if number else name, network, inputs[number])
        subject.aliases = {alias.output: alias.input for alias in engine.info.aliased_io}
        subject.probes = writer.probes[number]
        subjects.append(subject)
    built.artifact.path.unlink()
    built.artifact.path.parent.rmdir()
    remember(folder, subjects)
    return subjects


def watch_calls(network: Any, seen: list[dict[str, Tensor]]) -> None:
    """Records copies of a network's inputs at each call, before the call can change them."""
    run = network.run

    def watched(inputs: dict[str, Tensor]) -> Any:
        seen.append({name: value.clone() for name, value in inputs.items()})
        return run(inputs)

    object.__setattr__(network, "run", watched)


def remember(folder: Path, subjects: Sequence[Subject]) -> None:
    """Adds networks to the list that :func:`read_subjects` reads; they replace those of the same names."""
    path = folder / SUBJECTS
    known = json.loads(path.read_text()) if path.exists() else []
    names = {subject.name for subject in subjects}
    known = [document for document in known if document["name"] not in names]
    path.write_text(json.dumps([*known, *map(asdict, subjects)], indent=1))


def subject_of(folder: Path, name: str, network: Any, inputs: dict[str, Tensor]) -> Subject:
    """Computes a recorded network on the CPU, and writes what its plans must return. The result has no plans yet."""
    from tests.integration.network.exact import exact

    rounded = network.run_all(inputs)
    right = exact(network).run_all({key: _widened(value) for key, value in inputs.items()})
    subject = Subject(name, f"{name}.safetensors", list(inputs))
    subject.outputs = {network.slots[slot].name: slot for slot in network.outputs}
    values = {f"in.{key}": value.clone().contiguous() for key, value in inputs.items()}
    for step in network.layers:
        for slot in step.outputs:
            if step.kind == "CONSTANT" or slot not in right or not right[slot].is_floating_point():
                continue
            want = sampled(right[slot])
            values[str(slot)] = want
            subject.tensors[str(slot)] = Inner(
                step.layer,
                step.kind,
                str(network.slots[slot].dtype).removeprefix("torch."),
                relative_error(sampled(rounded[slot]), want),
                [index for index in step.inputs if index is not None],
            )
    save_file(values, folder / subject.values)
    return subject


def _widened(value: Tensor) -> Tensor:
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def relative_error(got: Tensor, want: Tensor) -> float:
    """Returns the relative L2 error of the elements that are finite in ``want``.

    It is infinite where another element differs from ``want``, or where one of those is not finite.
    """
    a, b = got.double(), want.double()
    finite = b.isfinite()
    if not torch.equal(a[~finite].nan_to_num(), b[~finite].nan_to_num()) or not a[finite].isfinite().all():
        return math.inf
    length, off = b[finite].norm().item(), (a - b)[finite].norm().item()
    return off / length if length else off


class _Writer:
    """Replaces ``EngineBuilder.build`` by one that also writes further plans of each network."""

    def __init__(self, folder: Path, name: str, forms: Sequence[str], most: int) -> None:
        self._folder, self._name, self._forms, self._most = folder, name, forms, most
        self.probes: list[list[Probe]] = []

    def build(self, interpreter: Any, platform: Any, gpus: Any, on_step: Any = None) -> Any:
        from linux_side import upstream

        network = upstream.network_of(interpreter)
        stem = f"{self._name}-{len(self.probes)}"
        outputs = [network.get_output(index) for index in range(network.num_outputs)]
        inner = _thinned(list(_of_interest(network)), self._most)
        plan = interpreter.builder.build_serialized_network(network, upstream.builder_config(interpreter))
        probes = [self._probe(plan, stem, WHOLE)] if WHOLE in self._forms else []
        for form in (MARKED, CUT):
            for slot, tensor in inner if form in self._forms else ():
                with_one = self._showing(interpreter, network, tensor, slot, outputs if form == CUT else ())
                if with_one is None:
                    print(f"{stem}: TensorRT does not take slot {slot} as an output ({form})", flush=True)
                else:
                    probes.append(self._probe(with_one, stem, form, slot))
        self.probes.append(probes)
        upstream.release_weights(interpreter)
        return plan

    def _showing(self, interpreter: Any, network: Any, tensor: Any, slot: int, without: Sequence[Any]) -> Any:
        """Builds the plan with one more output and without the given ones; the network stays as it was."""
        from linux_side import upstream

        for output in without:
            network.unmark_output(output)
        tensor.name = f"slot{slot}"
        network.mark_output(tensor)
        plan = interpreter.builder.build_serialized_network(network, upstream.builder_config(interpreter))
        network.unmark_output(tensor)
        for output in without:
            network.mark_output(output)
        return plan

    def _probe(self, plan: Any, stem: str, form: str, slot: int | None = None) -> Probe:
        name = f"{stem}-{form}" + ("" if slot is None else f"-{slot}") + ".plan"
        (self._folder / name).write_bytes(memoryview(plan))
        return Probe(name, form, slot)


def _of_interest(network: Any) -> Iterator[tuple[int, Any]]:
    """Yields the inner tensors of floats that depend on the network's inputs."""
    from tests.integration.network import record

    recorded = record(network)
    alive = set(recorded.inputs)
    for step in recorded.steps:
        if alive & {*step.inputs}:
            alive |= {*step.outputs}
    for slot, tensor in inner_tensors(network):
        if slot in alive and not tensor.is_network_output and tensor.dtype.name in ("FLOAT", "HALF", "BF16"):
            yield slot, tensor


def _thinned(items: list[Any], most: int) -> list[Any]:
    if len(items) <= most:
        return items
    return [items[round(place * (len(items) - 1) / (most - 1))] for place in range(most)]


def jobs_of(subjects: Sequence[Subject]) -> Iterator[tuple[Subject, Probe]]:
    """Yields every plan, the whole ones first."""
    for form in (WHOLE, MARKED, CUT):
        for subject in subjects:
            yield from ((subject, probe) for probe in subject.probes if probe.form == form)
