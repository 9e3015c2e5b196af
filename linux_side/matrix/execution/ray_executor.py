"""Runs cells on a Ray cluster, where Ray chooses nodes by their processors, memory and accelerators."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from linux_side.matrix.execution.job import Job, OnPhase, lost_record, run_job
from linux_side.matrix.execution.processes import Processes
from linux_side.matrix.planning.hosts import ACCELERATORS
from linux_side.matrix.planning.placement import needs_gpu
from linux_side.matrix.records import CellRecord
from toolchain.errors import BuildFailedError
from toolchain.io.atomic import write_bytes
from toolchain.targets import Backend

RETRIES = 3
_POLL = 0.5  # seconds between the driver's requests for new phases
_NEWS_TIMEOUT = 10.0
# A cell's share of a node's accelerator type. A small share is Ray's convention for requesting a type but no count.
_TYPE_SHARE = 0.001

Delivery = tuple[CellRecord, Any, bytes]


class RayExecutor:
    """Runs each cell as a Ray task. A task whose worker or node is lost runs again, up to :data:`RETRIES` times.

    Args:
        ray: the module, connected to a cluster.
        shared: whether the run folder is at the same path on every node.
        has_working_dir: whether Ray copies a folder to each node, from which models are then imported.
    """

    def __init__(self, ray: Any, *, shared: bool, has_working_dir: bool) -> None:
        self._ray = ray
        self._shared = shared
        self._has_working_dir = has_working_dir

    def run(self, jobs: Sequence[Job], on_phase: OnPhase) -> Generator[CellRecord, None, None]:
        ray = self._ray
        news = ray.remote(num_cpus=0, max_restarts=-1)(_News).remote()
        types = {name for node in ray.nodes() if node["Alive"] for name in node["Resources"]}
        tasks = {self._submit(job, news, types): job for job in sorted(jobs, key=lambda job: -job.memory)}
        try:
            while tasks:
                done, _ = ray.wait(list(tasks), num_returns=1, timeout=_POLL)
                for cell, phase in self._news(news):
                    on_phase(cell, phase)
                for task in done:
                    yield self._receive(task, tasks.pop(task))
        finally:
            for task in tasks:
                ray.cancel(task, force=True)
            ray.kill(news)

    def _news(self, news: Any) -> list[tuple[str, str]]:
        try:
            phases: list[tuple[str, str]] = self._ray.get(news.take.remote(), timeout=_NEWS_TIMEOUT)
        except self._ray.exceptions.RayError:  # the actor's node was lost; it restarts elsewhere
            return []
        return phases

    def _submit(self, job: Job, news: Any, types: set[str]) -> Any:
        # If Ray copies a folder to the nodes, tasks start in it.
        job = replace(job, cwd=".") if self._has_working_dir else job
        options = {"num_cpus": 1, "memory": job.memory, "max_retries": RETRIES, **accelerator_options(job, types)}
        # Only a lost worker is retried: an error of the build itself is its result.
        return self._ray.remote(retry_exceptions=False, **options)(_perform).remote(job, news, self._shared)

    def _receive(self, task: Any, job: Job) -> CellRecord:
        try:
            record, artifact, log = self._ray.get(task)
            if not self._shared:
                write_bytes(job.log, log)
                if artifact is not None:
                    write_bytes(job.artifact, artifact)
        except (self._ray.exceptions.RayError, OSError) as error:
            first = str(error).partition("\n")[0]
            return lost_record(
                job,
                BuildFailedError(
                    f"the cell was lost on the cluster: {type(error).__name__}: {first}",
                    where=job.cell.id,
                    remedy=f"a cell whose worker dies is retried up to {RETRIES} times; see Ray's own logs",
                ),
            )
        return record.model_copy(update={"reproduce": job.reproduce()})


def accelerator_options(job: Job, types: set[str]) -> dict[str, Any]:
    """Returns Ray's options for the GPU that a cell needs.

    Args:
        job: the cell's job.
        types: the names of the cluster's resources.
    """
    target = job.cell.target
    wanted = [target.accelerator] if target.accelerator else []
    uses_gpu = target.backend is Backend.TENSORRT or needs_gpu(job.level)
    if uses_gpu and not wanted:
        wanted = [name for gpu in target.gpus for name in ACCELERATORS.get(gpu, ())]
    there = [name for name in wanted if f"accelerator_type:{name}" in types]
    options: dict[str, Any] = {"num_gpus": 1} if uses_gpu else {}
    if there:
        options["resources"] = {f"accelerator_type:{there[0]}": _TYPE_SHARE}
    return options


class _News:
    """A Ray actor that passes phases from the workers to the driver."""

    def __init__(self) -> None:
        self._phases: list[tuple[str, str]] = []

    def put(self, cell: str, phase: str) -> None:
        self._phases.append((cell, phase))

    def take(self) -> list[tuple[str, str]]:
        phases, self._phases = self._phases, []
        return phases


def _perform(job: Job, news: Any, shared: bool) -> Delivery:
    """Runs a cell on a node, as a Ray task; returns its record, the artifact's bytes and its log."""

    def on_phase(cell: str, phase: str) -> None:
        news.put.remote(cell, phase)

    if shared:
        return run_job(job, Processes(), on_phase), None, b""
    with tempfile.TemporaryDirectory(prefix="trtcross-cell-") as folder:
        here = replace(job, artifact=Path(folder) / job.artifact.name, log=Path(folder) / job.log.name)
        record = run_job(here, Processes(), on_phase)
        # Out-of-band pickling puts the bytes into the object store, and from there into the driver's file, without
        # copies.
        artifact = pickle.PickleBuffer(here.artifact.read_bytes()) if here.artifact.is_file() else None
        return record, artifact, here.log.read_bytes()
