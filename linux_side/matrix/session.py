"""What one call of plan or run works with: the spec, its folder, what was learned, and the machines."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linux_side.matrix.execution.local_executor import LocalExecutor
from linux_side.matrix.planning.hosts import Host, this_host
from linux_side.matrix.planning.memory import Memory
from linux_side.matrix.planning.plan import Plan, make_plan
from linux_side.matrix.records import RunFolder
from linux_side.matrix.spec.spec import Spec, load_spec
from toolchain.cli.output import Output

if TYPE_CHECKING:
    from linux_side.matrix.execution.executor import Executor


def run_folder(spec: Path, out: Path | None) -> RunFolder:
    """Where a spec's runs are kept, unless somebody says otherwise."""
    return RunFolder(out or Path(".matrix") / spec.stem)


class MatrixRun:
    """A spec, opened; with Ray, connected to a cluster. Use it in a ``with`` block."""

    def __init__(
        self,
        output: Output,
        spec: Path,
        out: Path | None,
        only: tuple[str, ...],
        skip: tuple[str, ...],
        *,
        again: bool,
        executor_name: str,
        ray_address: str | None,
        ray_shared: bool,
        ray_working_dir: str | None,
    ) -> None:
        self._output = output
        self._spec: Spec = load_spec(spec)
        self.folder = run_folder(spec, out)
        self.memory = Memory.load(self.folder.memory)
        self._only, self._skip, self._again = only, skip, again
        if ray_working_dir:  # what the nodes will see is what is looked at here
            self.folder.path = self.folder.path.absolute()
            os.chdir(ray_working_dir)
            ray_working_dir = "."
        self._cluster: Any = None
        if executor_name == "ray":
            from linux_side.matrix.execution.ray_cluster import Cluster

            self._cluster = Cluster(ray_address, ray_working_dir, shared=ray_shared)
        self._hosts: list[Host] = self._cluster.hosts() if self._cluster else [this_host()]

    def __enter__(self) -> MatrixRun:
        # Ray prints what its nodes have to say to our stdout, where with --json there is nothing but the document.
        self._redirected: AbstractContextManager[Any] = (
            redirect_stdout(sys.stderr) if self._cluster and self._output.as_json else nullcontext()
        )
        self._redirected.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._cluster:
            self._cluster.close()
        self._redirected.__exit__(None, None, None)

    def plan(self) -> Plan:
        return make_plan(
            self._spec,
            self._hosts,
            self.folder,
            self.memory,
            only=self._only,
            skip=self._skip,
            again=self._again,
        )

    def executor(self, workers: int, budget: int) -> Executor:
        if self._cluster:
            executor: Executor = self._cluster.executor()
            return executor
        return LocalExecutor(workers, budget)
