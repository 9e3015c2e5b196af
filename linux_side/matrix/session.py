"""Opens a matrix for one command: the spec, its run folder, the learned memory figures, and the machines."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from linux_side.matrix.execution.local_executor import LocalExecutor
from linux_side.matrix.planning.hosts import Host, this_host
from linux_side.matrix.planning.memory import Memory
from linux_side.matrix.planning.plan import Plan, make_plan
from linux_side.matrix.records import RunFolder
from linux_side.matrix.spec.spec import Spec, load_spec

if TYPE_CHECKING:
    from linux_side.matrix.execution.executor import Executor
    from linux_side.matrix.execution.ray_cluster import Cluster


def run_folder(spec: Path, out: Path | None) -> RunFolder:
    """Returns the run folder of a spec: ``out``, or else ``.matrix/NAME``."""
    return RunFolder(out or Path(".matrix") / spec.stem)


@dataclass(frozen=True)
class RayOptions:
    """The options for an existing Ray cluster.

    Attributes:
        address: its address; None for the environment's ``RAY_ADDRESS``.
        shared: whether the run folder is at the same path on every node.
        working_dir: a folder that Ray copies to each node, where modules and ``.pt2`` files are then looked up.
    """

    address: str | None = None
    shared: bool = False
    working_dir: Path | None = None


@dataclass(frozen=True)
class MatrixRun:
    """An open matrix.

    Attributes:
        spec: the spec.
        folder: its run folder.
        memory: the learned memory figures.
        hosts: the machines that the run can build on.
        base: the folder in which modules and ``.pt2`` files are looked up.
        cluster: the Ray cluster; None for this machine alone.
    """

    spec: Spec
    folder: RunFolder
    memory: Memory
    hosts: list[Host]
    base: Path
    cluster: Cluster | None

    def plan(self, *, only: tuple[str, ...] = (), skip: tuple[str, ...] = (), again: bool = False) -> Plan:
        """Plans the selected cells (see :func:`make_plan`)."""
        return make_plan(
            self.spec, self.hosts, self.folder, self.memory, only=only, skip=skip, again=again, base=self.base
        )

    def executor(self, workers: int, budget: int) -> Executor:
        """Returns what runs the cells. Ray ignores both arguments.

        Args:
            workers: how many cells run at a time.
            budget: the bytes that they may take together.
        """
        return self.cluster.executor() if self.cluster else LocalExecutor(workers, budget)


@contextmanager
def open_matrix(spec: Path, out: Path | None, ray: RayOptions | None, *, quiet_stdout: bool) -> Iterator[MatrixRun]:
    """Opens a spec, and with Ray connects to the cluster for the duration of the block.

    Args:
        spec: the spec's file.
        out: the run folder; None for the default.
        ray: the cluster; None for this machine alone.
        quiet_stdout: whether to send what Ray prints to stderr, because stdout has the document of ``--json``.

    Raises:
        UsageError: the spec cannot be read, or there is no such cluster.
        MissingComponentError: Ray is not installed.
    """
    loaded, folder = load_spec(spec), run_folder(spec, out)
    memory = Memory.load(folder.memory)
    if ray is None:
        yield MatrixRun(loaded, folder, memory, [this_host()], Path(), None)
        return
    from linux_side.matrix.execution.ray_cluster import connected

    with (
        redirect_stdout(sys.stderr) if quiet_stdout else nullcontext(),
        connected(ray.address, ray.working_dir, shared=ray.shared) as cluster,
    ):
        # Models are looked up in the folder that the nodes will have.
        yield MatrixRun(loaded, folder, memory, cluster.hosts(), ray.working_dir or Path(), cluster)
