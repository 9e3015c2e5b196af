"""The resources that a cell requests of a Ray cluster; tests/integration/test_matrix_ray.py has a real cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from linux_side.matrix.execution.job import Job
from linux_side.matrix.execution.ray_cluster import connected
from linux_side.matrix.execution.ray_executor import accelerator_options
from linux_side.matrix.spec.cells import cells_of
from linux_side.matrix.spec.spec import parse_spec

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a matrix is built on Linux")

TYPES = {"CPU", "memory", "accelerator_type:L40S", "accelerator_type:A100"}


def job(level: str = "structure", **target: Any) -> Job:
    spec = {"version": 1, "models": {"m": {"model": "m:m"}}, "targets": [target]}
    cell = cells_of(parse_spec(spec, where="spec"))[0]
    return Job(cell, cell.digest(), level, Path("a"), Path("l"), 1)


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        (job(), {}),
        (job(accelerator="A100"), {"resources": {"accelerator_type:A100": 0.001}}),
        (
            job(backend="tensorrt", gpus=["sm_89"]),
            {"num_gpus": 1, "resources": {"accelerator_type:L40S": 0.001}},
        ),
        (
            job("numbers", platform="linux-x86_64", gpus=["sm_80"]),
            {"num_gpus": 1, "resources": {"accelerator_type:A100": 0.001}},
        ),
        (job("numbers", platform="linux-x86_64"), {"num_gpus": 1}),
        (job(gpus=["sm_89"]), {}),
    ],
)
def test_a_cell_asks_for_the_accelerator_that_it_needs_and_for_no_other(asked: Job, options: dict[str, Any]) -> None:
    assert accelerator_options(asked, TYPES) == options


class FakeRay:
    def __init__(self, *resources: dict[str, float]) -> None:
        self._nodes = [{"Alive": True, "Resources": found} for found in resources]

    def init(self, **_: Any) -> None:
        pass

    def shutdown(self) -> None:
        pass

    def nodes(self) -> list[dict[str, Any]]:
        return self._nodes


def test_nodes_of_one_kind_are_one_host_and_a_head_without_processors_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    small, big = {"CPU": 4, "memory": 10}, {"CPU": 4, "memory": 20}
    gpu = {"CPU": 8, "GPU": 1, "memory": 30, "accelerator_type:L4": 1}
    fake = FakeRay({"memory": 99}, small, gpu, big)
    monkeypatch.setattr("linux_side.matrix.execution.ray_cluster._import_ray", lambda: fake)
    with connected("here:6379", None, shared=False) as cluster:
        hosts = cluster.hosts()
    assert [(host.name, host.memory) for host in hosts] == [("2 nodes", 20), ("1 node with L4", 30)]
    assert hosts[1].gpus == ("sm_89",)
