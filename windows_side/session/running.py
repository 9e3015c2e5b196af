"""The implementation of a session: an artifact's engines on a GPU, and their calls."""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Lock
from typing import Any
from weakref import WeakSet

from toolchain.artifact import Artifact, open_artifact
from toolchain.checker.classes import check_classes
from toolchain.checker.safety import require_safe_to_load
from toolchain.errors import IncompatibleError, TrtcrossError, UsageError
from toolchain.graph.program import Program
from toolchain.targets import Backend
from windows_side.calling.input_rules import SizeRules
from windows_side.engines import cuda
from windows_side.engines.engine import LoadedEngine, create_contexts
from windows_side.engines.kernels import Kernels
from windows_side.kernel_choice import strategy
from windows_side.kernel_files import chosen_folder, identity_of
from windows_side.launch_lock import LAUNCH_LOCK
from windows_side.preflight.admission import admit
from windows_side.preflight.requirements import Runtime
from windows_side.session.ahead import Started
from windows_side.session.arrays import cast
from windows_side.session.calling import Convention
from windows_side.session.input_check import InputCheck
from windows_side.session.lane import Lane
from windows_side.session.memory import DeviceMemory
from windows_side.session.plan import Tensor, Workspace, plan_of
from windows_side.session.program import read_program
from windows_side.session.settings import Request, SessionSettings, read_settings
from windows_side.session.weights import Weight, read_weights

logger = logging.getLogger("trtcross.session")  # at the level DEBUG, it reports the phases of a start

# Sessions to close when Python exits: TensorRT's objects must be released before CUDA is.
_OPEN: WeakSet[Running] = WeakSet()


class Running:
    """A session's engines, execution contexts and state.

    Attributes:
        manifest: the artifact's manifest.
        device: the GPU, as ``cuda:0``.
    """

    def __init__(self, request: Request, started: Future[Started]) -> None:
        self._closed = True  # until everything is loaded
        self._process = os.getpid()
        self._forked = False
        self._lock = Lock()
        self._runtime: Any = None
        self._engines: list[LoadedEngine] = []
        self._lanes: SimpleQueue[Lane | None] = SimpleQueue()  # None: the session is closed
        self._state: dict[str, Tensor] = {}
        self._state_memory = DeviceMemory()
        settings = read_settings(request)
        self._count, self._cuda_graphs = settings.contexts, settings.cuda_graphs
        self._strategy = strategy(settings.kernels, cuda_graphs=settings.cuda_graphs)
        if isinstance(request.artifact, Artifact):
            self._load(request.artifact, settings, started)
        else:
            with open_artifact(request.artifact) as opened:
                self._load(opened, settings, started)

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs the model on the original's arguments."""
        return self._convention.result(self._call(self._convention.leaves(args, kwargs)))

    def run(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        """Runs the model on inputs by name."""
        return self._convention.named_result(self._call(self._convention.leaves_of_feed(feed)))

    def run_leaves(self, leaves: Sequence[Any]) -> list[Any]:
        """Runs the model on the leaves of a call in the order of the manifest's inputs, and returns the result's."""
        return self._call(leaves)

    @property
    def kernels_are_cached(self) -> bool:
        return self._kernels.warm

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Waits for running calls, writes compiled kernels, and frees engines and memory."""
        self._close(keep_kernels=True)

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if not is_finalizing() or self._process != os.getpid():
            # TensorRT-RTX has crashed where the cache of a collected object was serialized.
            self._close(keep_kernels=False)

    def _close(self, *, keep_kernels: bool) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        _OPEN.discard(self)
        if os.getpid() != self._process:
            # A forked child must not call CUDA, so it must never release TensorRT's objects: their counts are raised.
            for kept in (self._engines, self._lanes, self._kernels, self._runtime):
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
            return
        lanes = [self._lanes.get() for _ in range(self._count)]
        self._lanes.put(None)  # wakes calls that wait
        try:
            with self._gpu.current():
                if keep_kernels:
                    self._kernels.save()
                self._release(lanes)
        except TrtcrossError as error:
            logger.warning("what the session had on the GPU is not freed: %s", error.problem)

    def _release(self, lanes: list[Lane | None]) -> None:
        """Frees what is on the GPU: contexts before engines, and engines before the cache and the runtime."""
        for lane in filter(None, lanes):
            lane.close()
        for engine in self._engines:
            engine.close()
        self._engines.clear()
        self._kernels.close()
        self._runtime = None
        for tensor in self._state.values():
            self._state_memory.give_back(tensor.pointer)
        self._state_memory.close()

    def _load(self, artifact: Artifact, settings: SessionSettings, started: Future[Started]) -> None:
        logger.debug("the file is open")
        for doubt in admit(artifact, settings, Runtime.TENSORRT):
            warnings.warn(f"{doubt.name}: needs {doubt.needed}; here: {doubt.found}", stacklevel=5)
        self.manifest = manifest = artifact.manifest
        _require_rtx(artifact)
        logger.debug("this machine is admitted")
        require_safe_to_load(artifact, settings.trust)
        check_classes(artifact)
        artifact.check_files()
        program = read_program(artifact)
        _require_one_context(program, self._count, artifact)
        self._convention = Convention(manifest, str(artifact.path))
        self._casts = program.casts
        self._checks = [InputCheck(spec, name) for spec, name in zip(manifest.inputs, program.inputs, strict=True)]
        self._rules = SizeRules(manifest.inputs, manifest.guards)
        weights = read_weights(artifact, set(program.state.values()))
        logger.debug("all but engines is read")
        plans = _plans(artifact)
        self._gpu, self._runtime = started.result()
        logger.debug("the GPU is there")
        self.device = str(self._gpu)
        with self._gpu.current():
            identity = identity_of(manifest, self._gpu.name, self._gpu.capability)
            self._kernels = Kernels(chosen_folder(settings.runtime_cache), identity, self._gpu)
            try:
                self._load_onto_gpu(artifact, program, weights, plans, settings.stream)
            except BaseException:
                self._release([self._lanes.get() for _ in range(self._lanes.qsize())])
                raise
        self._closed = False
        logger.debug("contexts are there")
        _OPEN.add(self)

    def _load_onto_gpu(
        self,
        artifact: Artifact,
        program: Program,
        weights: Mapping[str, Weight],
        plans: Sequence[Callable[[], bytes]],
        stream: int | None,
    ) -> None:
        for engine, read in zip(artifact.engines, plans, strict=True):
            made = LoadedEngine(self._runtime, engine, read, self._kernels, strategy=self._strategy)
            self._engines.append(made)
        logger.debug("engines are on the GPU")
        artifact.container.check_unchanged()
        for name, fqn in program.state.items():
            self._state[name] = _uploaded(weights[fqn], self._state_memory)
        plan = plan_of(program, artifact.manifest, weights)
        for contexts in create_contexts(self._engines, self._kernels, self._count):
            own = cuda.create_stream() if stream is None else stream
            space = Workspace(plan, contexts, self._state, self._gpu, own, named=stream is not None)
            self._lanes.put(Lane(space, cuda_graphs=self._cuda_graphs))

    def _call(self, leaves: Sequence[Any]) -> list[Any]:
        self._require_usable()
        lane = self._lanes.get()
        try:
            if lane is None:
                raise _closed()
            if self._gpu.is_only:
                return self._call_in(lane, leaves)
            before = self._gpu.make_current()
            try:
                return self._call_in(lane, leaves)
            finally:
                self._gpu.put_back(before)
        finally:
            self._lanes.put(lane)

    def _call_in(self, lane: Lane, leaves: Sequence[Any]) -> list[Any]:
        outputs = lane.direct(leaves)
        if outputs is not None:
            return outputs
        if len(leaves) != len(self._checks):
            raise UsageError(
                f"the model takes {len(self._checks)} leaves, and {len(leaves)} were passed",
                where="run_leaves()",
                remedy="pass one for each of `manifest.inputs`",
            )
        given = [check(leaf, self._gpu, lane.stream) for check, leaf in zip(self._checks, leaves, strict=True)]
        shapes = tuple([leaf.shape if leaf is not None else () for leaf in given])
        if self._rules:
            self._rules(shapes)
        for wanted in self._casts:
            leaf = given[wanted.index]
            given.append(None if leaf is None else cast(leaf, wanted.dtype, lane.stream))
        with self._kernels.watched():
            outputs = lane.call(leaves, given)
        if self._kernels.are_new(shapes):
            with LAUNCH_LOCK.capturing():  # no engine may be launched while the cache is read
                self._kernels.save()
        return outputs

    def _require_usable(self) -> None:
        if self._forked:
            raise UsageError(
                "the session was made in another process, and CUDA does not go on in a forked child",
                where="Session",
                remedy="make the session in the process that uses it",
            )
        if self._closed:
            raise _closed()


def _note_fork() -> None:
    for running in list(_OPEN):
        running._forked = True


if hasattr(os, "register_at_fork"):  # Windows does not fork; comparing process numbers at each call would take time
    os.register_at_fork(after_in_child=_note_fork)


def _closed() -> UsageError:
    return UsageError("the session is closed", where="Session", remedy="make another one")


@atexit.register
def _close_all() -> None:
    for running in list(_OPEN):
        running.close()


def _plans(artifact: Artifact) -> list[Callable[[], bytes]]:
    """Returns a function for each engine that reads its bytes and checks their digest.

    The first engine is read now, while the GPU starts.
    """
    readers: list[Callable[[], bytes]] = [engine.read for engine in artifact.engines]
    if readers:
        first = [readers[0]()]
        readers[0] = first.pop  # so that nothing keeps the bytes after the engine is made
    return readers


def _require_rtx(artifact: Artifact) -> None:
    """Checks that the engines are TensorRT-RTX's.

    Raises:
        IncompatibleError: the engines are TensorRT's own.
    """
    if artifact.manifest.target.backend is not Backend.TENSORRT_RTX:
        raise IncompatibleError(
            "a session runs engines of TensorRT-RTX, and this artifact's are TensorRT's",
            where=str(artifact.path),
            remedy="use windows_side.load, or build it with --backend tensorrt-rtx",
        )


def _require_one_context(program: Program, contexts: int, artifact: Artifact) -> None:
    """Checks that a program whose calls change state has only one context.

    Raises:
        UsageError: several calls at once would change the same state.
    """
    changed = {target for target, _ in program.state_updates}
    if changed and contexts > 1:
        raise UsageError(
            f"the model has state that its calls change ({', '.join(sorted(changed)[:3])}): no two can run at once",
            where=f"{artifact.path}, contexts",
            remedy="use contexts=1, and a session for each sequence of calls",
        )


def _uploaded(weight: Weight, memory: DeviceMemory) -> Tensor:
    pointer = memory.take(len(weight.data))
    if weight.data:
        cuda.upload(pointer, weight.data)
    return Tensor(pointer, weight.shape)
