"""`--executor ray` on a real cluster of several processes; one worker is killed during a build."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.ray_session import in_namespace, why_not
from toolchain.io.hashing import file_digest

pytestmark = [pytest.mark.rtx, pytest.mark.slow, pytest.mark.xdist_group("matrix ray")]

HERE = Path(__file__).parent
PLAIN = "patient-fp32-windows_x86_64-rtx1.6"
PLACED = "patient-fp16-windows_x86_64-rtx1.6-sm_89"


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if reason := why_not():
        pytest.skip(f"NO RAY CLUSTER: {reason}")
    folder = tmp_path_factory.mktemp("ray")
    done = in_namespace("-m", "tests.integration.ray_scenario", str(folder), timeout=400)
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout.splitlines()[-1]), "folder": folder}


def test_the_plan_says_which_nodes_and_what_none_has(answer: dict[str, Any]) -> None:
    cells = {cell["id"]: cell for cell in answer["plan"]["cells"]}
    assert cells[PLACED]["host"] == "1 node with L4"
    impossible = cells["patient-bf16-windows_x86_64-rtx1.6"]
    assert impossible["action"] == "impossible"
    assert "accelerator B200" in impossible["reason"]


def test_a_killed_workers_cell_runs_again(answer: dict[str, Any]) -> None:
    assert answer["code"] == 0, answer["said"]
    assert {record["id"]: record["state"] for record in answer["run"]["records"]} == {PLAIN: "passed", PLACED: "passed"}
    assert not answer["orphan"], "the killed worker's build went on"


def test_artifacts_come_whole_through_the_object_store(answer: dict[str, Any]) -> None:
    for record in answer["run"]["records"]:
        artifact = answer["folder"] / "run" / "artifacts" / f"{record['id']}.pt2"
        assert file_digest(artifact) == record["artifact"]["sha256"]
        assert "trtcross build" in (answer["folder"] / "run" / "logs" / f"{record['id']}.log").read_text()
        assert str(artifact) in " ".join(record["reproduce"])


def test_a_shared_folder_is_written_to_directly(answer: dict[str, Any]) -> None:
    (record,) = answer["shared"]["records"]
    assert record["state"] == "passed"
    assert (answer["folder"] / "shared" / "artifacts" / f"{PLAIN}.pt2").is_file()


def test_a_folder_is_brought_to_the_nodes(answer: dict[str, Any]) -> None:
    (record,) = answer["brought"]["records"]
    assert record["state"] == "passed", record["error"]
