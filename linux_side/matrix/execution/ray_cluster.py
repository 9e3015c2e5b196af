"""Connects to an existing Ray cluster, whose nodes become hosts. Needs the extra ``cluster``.

Ray itself serves on the machine's network address, and reports usage to its makers unless it is disabled. Run it in a
trusted network with ``RAY_USAGE_STATS_ENABLED=0`` (docs/build/matrix.md).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from linux_side.matrix.execution.ray_executor import RayExecutor
from linux_side.matrix.planning.hosts import ACCELERATORS, Host, installed_backends
from toolchain.errors import MissingComponentError, UsageError
from toolchain.host.installed import install_line
from toolchain.targets import Platform

_ACCELERATOR = "accelerator_type:"


@contextmanager
def connected(address: str | None, working_dir: Path | None, *, shared: bool) -> Iterator[Cluster]:
    """Connects to a cluster for the duration of the block.

    Args:
        address: ``auto``, ``HOST:PORT`` or ``ray://HOST:PORT``; None for the environment's ``RAY_ADDRESS``.
        working_dir: a folder that Ray copies to each node, for models that are not installed there.
        shared: whether the run folder is at the same path on every node. Otherwise artifacts are sent through Ray's
            object store.

    Raises:
        MissingComponentError: Ray is not installed.
        UsageError: there is no cluster at that address.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if not address:
        raise UsageError(
            "--executor ray needs the address of an existing cluster",
            where="--ray-address, RAY_ADDRESS",
            remedy="start one with `ray start --head` and give --ray-address HOST:6379",
        )
    ray = _import_ray()
    environment = {"working_dir": str(working_dir.absolute())} if working_dir else None
    try:
        ray.init(address=address, runtime_env=environment, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"the Ray cluster cannot be reached: {error}",
            where=f"--ray-address {address}",
            remedy="`ray status --address HOST:PORT` tells whether it is there; Ray and Python must be of the "
            "same versions as here",
        ) from error
    try:
        yield Cluster(ray, shared=shared, has_working_dir=working_dir is not None)
    finally:
        ray.shutdown()


class Cluster:
    """A connected Ray cluster.

    Args:
        ray: the module, connected to the cluster.
        shared: whether the run folder is at the same path on every node.
        has_working_dir: whether Ray copies a folder to each node.
    """

    def __init__(self, ray: Any, *, shared: bool, has_working_dir: bool) -> None:
        self._ray, self._shared, self._has_working_dir = ray, shared, has_working_dir

    def hosts(self) -> list[Host]:
        """Returns the cluster's nodes, where all nodes with the same accelerators are one host: Ray chooses among them.

        The nodes are assumed to have the same packages as this machine.
        """
        backends = installed_backends()
        kinds: dict[tuple[str, ...], list[int]] = {}
        for node in self._ray.nodes():
            if node["Alive"] and node["Resources"].get("CPU"):
                kinds.setdefault(_accelerators(node), []).append(int(node["Resources"].get("memory", 0)))
        return [_host(kind, memory, backends) for kind, memory in kinds.items()]

    def executor(self) -> RayExecutor:
        """Returns an executor that runs cells on the cluster."""
        return RayExecutor(self._ray, shared=self._shared, has_working_dir=self._has_working_dir)


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingComponentError(
            "--executor ray needs Ray, which is not installed",
            where="this Python environment",
            remedy=install_line("cluster"),
        ) from error
    return ray


def _accelerators(node: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(sorted(name[len(_ACCELERATOR) :] for name in node["Resources"] if name.startswith(_ACCELERATOR)))


def _host(accelerators: tuple[str, ...], memory: Sequence[int], backends: Mapping[Any, str]) -> Host:
    count = "1 node" if len(memory) == 1 else f"{len(memory)} nodes"
    return Host(
        name=count + (f" with {', '.join(accelerators)}" if accelerators else ""),
        platform=Platform.LINUX_X86_64.value,
        gpus=tuple(gpu for gpu, names in ACCELERATORS.items() if set(names) & set(accelerators)),
        accelerators=accelerators,
        backends=backends,
        memory=max(memory) or None,
    )
