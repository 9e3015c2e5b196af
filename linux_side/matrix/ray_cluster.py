"""An existing Ray cluster: its nodes as hosts, and an executor that runs cells on them. Needs the extra ``cluster``.

Ray itself serves on the machine's network address and reports usage to its makers unless told not to: run it in a
network that you trust, with ``RAY_USAGE_STATS_ENABLED=0`` (docs/matrix.md).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from linux_side.matrix.hosts import ACCELERATORS, Host, installed_backends
from linux_side.matrix.ray_executor import RayExecutor
from toolchain.errors import MissingComponentError, UsageError
from toolchain.targets import Platform

_ACCELERATOR = "accelerator_type:"


class Cluster:
    """A connection to a cluster.

    Args:
        address: ``auto``, ``HOST:PORT`` or ``ray://HOST:PORT``; None: the environment's ``RAY_ADDRESS``.
        working_dir: a folder that Ray brings to each node, for models that are not installed there.
        shared: whether the run folder is at the same path on every node; artifacts travel through the object store
            otherwise.

    Raises:
        MissingComponentError: Ray is not installed.
        UsageError: there is no cluster at that address.
    """

    def __init__(self, address: str | None, working_dir: str | None, *, shared: bool) -> None:
        address = address or os.environ.get("RAY_ADDRESS")
        if not address:
            raise UsageError(
                "--executor ray needs the address of an existing cluster",
                where="--ray-address, RAY_ADDRESS",
                remedy="start one with `ray start --head` and give --ray-address HOST:6379",
            )
        self._ray = _import_ray()
        self._shared = shared
        self._working_dir = working_dir
        environment = {"working_dir": working_dir} if working_dir else None
        try:
            self._ray.init(address=address, runtime_env=environment, logging_level=logging.ERROR, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UsageError(
                f"there is no Ray cluster to be reached: {error}",
                where=f"--ray-address {address}",
                remedy="`ray status --address HOST:PORT` tells whether it is there; Ray and Python must be of the "
                "same versions as here",
            ) from error

    def hosts(self) -> list[Host]:
        """Its nodes. They are thought to have the packages that this machine has."""
        backends = installed_backends()
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        return [_host(index, node["Resources"], backends) for index, node in enumerate(nodes)]

    def executor(self) -> RayExecutor:
        return RayExecutor(self._ray, shared=self._shared, has_working_dir=self._working_dir is not None)


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingComponentError(
            "--executor ray needs Ray, which is not installed",
            where="this Python environment",
            remedy='python -m pip install "trtcross[cluster]"',
        ) from error
    return ray


def _host(index: int, resources: Mapping[str, float], backends: Mapping[Any, str]) -> Host:
    accelerators = tuple(name[len(_ACCELERATOR) :] for name in resources if name.startswith(_ACCELERATOR))
    gpus = tuple(gpu for gpu, names in ACCELERATORS.items() if set(names) & set(accelerators))
    return Host(
        name=f"node {index + 1}" + (f" ({', '.join(accelerators)})" if accelerators else ""),
        platform=Platform.LINUX_X86_64.value,
        gpus=gpus,
        accelerators=accelerators,
        backends=backends,
        memory=int(resources.get("memory", 0)) or None,
    )
