"""A Ray cluster of several processes on this machine, for tests and benchmarks/ray_workers.py.

Ray listens on the machine's own address whatever its options are, so :func:`in_namespace` runs a command where loopback
is the only address.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_OBJECT_STORE = 160 * 2**20


def why_not() -> str | None:
    """Returns why there can be no cluster here, or None."""
    try:
        import ray.cluster_utils  # noqa: F401
    except ImportError:
        return "ray is not installed (the extra cluster)"
    if not shutil.which("unshare") or not shutil.which("ip"):
        return "there is no unshare or no ip command, and Ray must be kept off the network"
    if subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode:
        return "unshare -n is not allowed here, and Ray must be kept off the network"
    return None


def in_namespace(*arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
    """Runs Python in a network namespace that has only loopback; processes that are started there end with it."""
    folder = tempfile.mkdtemp(prefix="ray")  # short, because it holds sockets
    command = ["unshare", "-n", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": folder, "PYTHONUNBUFFERED": "1"}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[2])}
    try:
        return subprocess.run(
            [*command, 'ip link set lo up; exec "$@"', "sh", sys.executable, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def cluster(*nodes: dict[str, Any]) -> Iterator[str]:
    """Starts a head that takes no work, and nodes; yields the cluster's address."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": _OBJECT_STORE})
    try:
        for node in nodes:
            made.add_node(object_store_memory=_OBJECT_STORE, **node)
        yield str(made.address)
    finally:
        made.shutdown()


def matrix_command(address: str, verb: str, spec: Path, out: Path, *more: str) -> Sequence[str]:
    """Returns the command line of ``trtcross matrix VERB`` on a cluster."""
    command = [sys.executable, "-m", "toolchain", "matrix", verb, str(spec)]
    return [*command, "--out", str(out), "--executor", "ray", "--ray-address", address, "--json", *more]
