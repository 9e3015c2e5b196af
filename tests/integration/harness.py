"""The differential harness, which checks artifacts without a GPU.

A real artifact is built in this process by the real builder, loaded by the real consumer, and run on the CPU. In the
place of each engine runs one of two things:

- the partition from which the engine was built (:meth:`Built.run`). The result must equal that of the partitioned graph
  to the bit, so every mistake in wiring is found: a wrong order, a wrong ``getitem``, a lost buffer, a clashing name.
- the TensorRT network from which the engine was built (:meth:`Built.run_networks`), which ``tests.integration.network``
  computes. The result must be that of the original model, so every mistake of lowering and of a converter is found too
  (:func:`assert_right`).
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from linux_side.backends import engine_builder
from linux_side.cache.notes import Notes
from linux_side.frontend.hidden_state import held_tensors
from linux_side.frontend.structure import plain_spec
from linux_side.fx.state import STATE
from linux_side.options import BuildOptions, DynamicDimension
from tests.integration.network import Network, NetworkError, record
from tests.unit.programs import assert_same_program
from toolchain import Artifact, open_artifact
from toolchain.engine.info import EngineInfo
from toolchain.targets import Backend
from windows_side.execution.flat_program import FlatProgram, flat_program
from windows_side.execution.model import LoadedModel
from windows_side.loader.loading import load_flat, load_program
from windows_side.loader.runtime_library import load_runtime

CPU = torch.device("cpu")
EngineCall = Callable[..., Any]


@cache
def imported_builder() -> Any:
    """Returns the TensorRT-RTX builder, which imports Torch-TensorRT once in this process."""
    builder = engine_builder("tensorrt-rtx")
    builder.import_upstream()
    return builder


@dataclass
class Built:
    """An artifact, and what it was built from.

    Attributes:
        reference: the lowered, partitioned graph before conversion, with folded batch norms.
        partitions: copies of the partitions from which engines were built, by the engine's name.
        networks: the TensorRT networks from which engines were built, by the engine's name.
        unrecorded: why an engine's network is missing, by the engine's name.
        original: a copy of the model from before its export; None where a program was built.
        attempts: how often the graph was partitioned and converted.
    """

    artifact: Artifact
    program: ExportedProgram
    reference: torch.fx.GraphModule
    partitions: dict[str, torch.fx.GraphModule] = field(default_factory=dict)
    networks: dict[str, Network] = field(default_factory=dict)
    unrecorded: dict[str, NetworkError] = field(default_factory=dict)
    original: torch.nn.Module | None = None
    attempts: int = 1

    def loaded(self) -> ExportedProgram:
        """The exported program on the CPU, with a stand-in for each engine: its partition's index as a tensor."""
        load_runtime(Backend.TENSORRT_RTX)
        names = list(self.partitions)
        return load_program(self.artifact, CPU, None, lambda fields: torch.tensor(names.index(str(fields[1]))))

    def flat(self) -> FlatProgram:
        """The flat program that ``load`` reads, with the same stand-ins."""
        load_runtime(Backend.TENSORRT_RTX)
        names = list(self.partitions)
        return load_flat(self.artifact, CPU, None, lambda fields: torch.tensor(names.index(str(fields[1]))))

    @cached_property
    def model(self) -> LoadedModel:
        """The loaded model as users have it, with state and checks, on the CPU with partitions for engines."""
        return self._model(list(self.partitions.values()))

    @cached_property
    def network_model(self) -> LoadedModel:
        """The loaded model with networks for engines, and with a state of its own.

        Raises:
            NetworkError: a network could not be recorded.
        """
        for error in self.unrecorded.values():
            raise error
        infos = {engine.info.name: engine.info for engine in self.artifact.engines}
        return self._model([network_call(self.networks[name], infos[name]) for name in self.partitions])

    def _model(self, engines: Sequence[EngineCall]) -> LoadedModel:
        flat = self.flat()
        assert_same_program(flat, flat_program(self.loaded()))
        model = LoadedModel(flat, self.artifact.manifest, CPU)
        put_partitions(model._flat, engines)
        return model

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the artifact with partitions for engines; its state is kept from call to call."""
        return self.model(*args, **kwargs)

    def run_networks(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the artifact with TensorRT networks for engines; their state is kept from call to call."""
        return self.network_model(*args, **kwargs)

    def state_names(self) -> list[str]:
        """The names of the state that calls change."""
        return [change.target for change in self.reference.meta[STATE] if change.value is not None]

    def buffers(self) -> list[torch.Tensor]:
        """The tensors of the loaded model's state that calls change."""
        return [self.model._flat.get_buffer(name) for name in self.state_names()]

    def expected(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Returns the leaves of the partitioned graph's own result, followed by the state's new values."""
        leaves = [*self.model._call.leaves(args, kwargs), *self.buffers()]
        with torch.no_grad():
            return pytree.tree_leaves(torch.fx.Interpreter(self.reference).run(*leaves, enable_io_processing=False))


def put_partitions(gm: torch.fx.GraphModule, partitions: Sequence[EngineCall]) -> None:
    """Makes each ``execute_engine`` node call its partition, or another callable, instead of the operator.

    The operator itself accepts only a real engine.
    """

    def execute_partition(inputs: list[torch.Tensor], index: torch.Tensor) -> list[torch.Tensor]:
        result = partitions[int(index)](*inputs)
        return list(result) if isinstance(result, (tuple, list)) else [result]

    for node in gm.graph.nodes:
        if node.target is torch.ops.tensorrt.execute_engine.default:
            node.target = execute_partition
    gm.recompile()


def network_call(network: Network, info: EngineInfo) -> EngineCall:
    """Returns a call of a network as of an engine: bindings in the engine info's order, aliased outputs in place."""
    aliases = {alias.output: alias.input for alias in info.aliased_io}

    def call(*inputs: torch.Tensor) -> list[torch.Tensor]:
        bound = dict(zip(info.input_names, inputs, strict=True))
        outputs = network.run(bound)
        for output, source in aliases.items():
            outputs[output] = bound[source].copy_(outputs[output])
        return [outputs[name] for name in info.output_names]

    return call


@contextmanager
def _untimed(_name: str) -> Iterator[None]:
    yield


def build_here(
    module: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    *,
    folder: Path,
    dynamic: tuple[str, ...] = (),
    notes: Notes | None = None,
    **options: Any,
) -> Built:
    """Exports and builds a model in this process with the real builder.

    Args:
        module: the model; it is put into eval mode.
        args: the example's positional arguments.
        kwargs: the example's keyword arguments.
        folder: where the artifact goes.
        dynamic: the dynamic dimensions, as on the command line.
        notes: the notes of earlier builds.
        options: fields of :class:`linux_side.options.BuildOptions`; by default engines may be of any size.
    """
    from linux_side.frontend.source import export_source

    builder = imported_builder()
    options.setdefault("min_block_size", 1)  # many engines, however small, test the wiring
    parsed = BuildOptions(dynamic=[DynamicDimension.parse(text) for text in dynamic], **options)
    original = copy.deepcopy(module.eval())
    built = build_source(export_source("test", module, args, kwargs or {}, parsed), parsed, builder, folder, notes)
    built.original = original
    return built


def build_source(source: Any, options: BuildOptions, builder: Any, folder: Path, notes: Notes | None = None) -> Built:
    """Builds the artifact of a program that is exported already."""
    from linux_side.backends.batch_norm_folding import fold_batch_norms
    from linux_side.driver import pipeline as pipelines
    from linux_side.lowering.parts import engine_parts

    taken: dict[str, Any] = {"attempts": 0}

    class Recording(pipelines.Pipeline):
        def partitioned(self, lowered: torch.fx.GraphModule) -> torch.fx.GraphModule:
            for recorded in (partitions, networks, unrecorded):  # of an earlier attempt
                recorded.clear()
            taken["attempts"] += 1
            partitioned = super().partitioned(lowered)
            taken["reference"] = copy.deepcopy(partitioned)
            for _, part in engine_parts(taken["reference"]):
                fold_batch_norms(part)  # as the builder does: folded weights round differently
            return partitioned

    partitions: dict[str, torch.fx.GraphModule] = {}

    def remember(name: str, partition: torch.fx.GraphModule) -> None:
        partitions[f"{name}_engine"] = copy.deepcopy(partition)

    networks: dict[str, Network] = {}
    unrecorded: dict[str, NetworkError] = {}

    def remember_network(name: str, network: Any) -> None:
        try:
            networks[f"{name}_engine"] = record(network)
        except NetworkError as error:  # raised when a test asks for the network; the build does not need it
            unrecorded[f"{name}_engine"] = error

    out = Path(tempfile.mkdtemp(dir=folder)) / "artifact.pt2"
    hooks = {"on_partition": remember, "on_network": remember_network}
    with tempfile.TemporaryDirectory() as spool:
        pipeline = Recording(options, builder, Path(spool), _untimed, notes=notes or Notes(), **hooks)
        pipeline.run_source(source, out)
    built = Built(open_artifact(out), source.program, taken["reference"], partitions, networks, unrecorded)
    built.attempts = taken["attempts"]
    return built


def assert_same_wiring(built: Built, *args: Any, **kwargs: Any) -> Any:
    """Checks that the artifact and the partitioned graph agree to the bit, in state too; returns the result."""
    leaves = pytree.tree_leaves((args, kwargs))
    want = built.expected(*args, **kwargs)
    result = built.run(*args, **kwargs)
    got = pytree.tree_leaves(result)
    buffers = iter(built.buffers())
    for change in built.reference.meta[STATE]:
        got.append(next(buffers) if change.value is not None else leaves[_user_inputs(built).index(change.target)])
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        if isinstance(b, torch.Tensor):
            assert a.dtype == b.dtype and a.shape == b.shape
            assert torch.equal(a, b) or (
                torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())
            )
        else:
            assert a == b
    return result


def _user_inputs(built: Built) -> list[str]:
    return [node.name for node in built.reference.graph.nodes if node.op == "placeholder"]


# The largest error of an element, relative to itself and to its tensor's root mean square, by the coarsest dtype that
# its computation uses.
TOLERANCES = {torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}


def assert_right(
    built: Built,
    module: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    *,
    other_args: Sequence[tuple[Any, ...]] = (),
    tolerance: float | None = None,
) -> None:
    """Checks that the artifact, with its TensorRT networks on the CPU, does what the original model does.

    Structure, dtypes, shapes, values, changes of the caller's tensors and state must agree with eager PyTorch.

    Args:
        module: the model as it was before the build (``built.original`` is a copy). It is called as often as the
            artifact, so that its state changes alike.
        args: the first call's positional arguments; none of them is written to.
        kwargs: every call's keyword arguments.
        other_args: positional arguments of further calls, which may have other sizes.
        tolerance: replaces that of ``TOLERANCES``.
    """
    for values in (args, *other_args):
        call = (values, kwargs or {})
        theirs, ours = _copied(call), _copied(call)
        with torch.no_grad():
            want = module(*theirs[0], **theirs[1])
        got = built.run_networks(*ours[0], **ours[1])
        limit = _tolerance(built) if tolerance is None else tolerance
        _assert_close(got, want, limit, "output")
        _assert_close(ours, theirs, limit, "argument after the call")
        for name in built.state_names():
            expected = {**dict(module.named_buffers()), **held_tensors(module)}[name]
            state = built.network_model._flat.get_buffer(name).to(expected.dtype)  # the artifact may keep it in halves
            _assert_close(state, expected, limit, f"state {name}")


def _copied(call: Any) -> Any:
    return pytree.tree_map_only(torch.Tensor, torch.clone, call)


def _tolerance(built: Built) -> float:
    dtypes = {slot.dtype for network in built.networks.values() for slot in network.slots}
    return max((TOLERANCES[dtype] for dtype in dtypes if dtype in TOLERANCES), default=TOLERANCES[torch.float32])


def _assert_close(got: Any, want: Any, tolerance: float, what: str) -> None:
    # The consumer has records in the places of classes.
    structures = [plain_spec(pytree.tree_structure(value)) for value in (got, want)]
    assert structures[0] == structures[1], f"{what}: another structure"
    for index, (a, b) in enumerate(zip(pytree.tree_leaves(got), pytree.tree_leaves(want), strict=True)):
        where = f"{what}, leaf {index}"
        if not isinstance(b, torch.Tensor):
            assert a == b and type(a) is type(b), f"{where}: {a!r} instead of {b!r}"
            continue
        assert (a.dtype, a.shape) == (b.dtype, b.shape), f"{where}: {a.dtype} {a.shape}, not {b.dtype} {b.shape}"
        if b.is_complex():
            a, b = torch.view_as_real(a), torch.view_as_real(b)
        if not b.is_floating_point():
            assert torch.equal(a, b), f"{where}: {a} instead of {b}"
            continue
        a, b = a.double(), b.double()
        finite = b.isfinite()
        assert torch.equal(finite, a.isfinite()), f"{where}: {a} instead of {b}"
        assert torch.equal(a[~finite].nan_to_num(), b[~finite].nan_to_num()), f"{where}: {a} instead of {b}"
        a, b = a[finite], b[finite]
        if b.numel():
            excess = (a - b).abs() / (b.abs() + b.square().mean().sqrt()).clamp(min=1e-30)
            assert excess.max() <= tolerance, f"{where}: off by {excess.max():.1e}, {a} instead of {b}"
