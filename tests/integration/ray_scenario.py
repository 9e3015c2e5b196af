"""Runs the scenario of tests/integration/test_matrix_ray.py on its cluster; prints a JSON document as the last line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil

from tests.conftest import ROOT
from tests.integration.ray_session import cluster, matrix_command
from tests.integration.waiting import running, started, wait_for

SPEC = """
version = 1
[models.patient]
model = "tests.integration.matrix_models:patient"
[[targets]]
version = "1.6"
[[include]]
model = "patient"
precision = "fp16"
version = "1.6"
gpus = ["sm_89"]
accelerator = "L4"
[[include]]
model = "patient"
precision = "bf16"
version = "1.6"
accelerator = "B200"
"""
BROUGHT = """
version = 1
[models.tiny]
model = "only_there:tiny"
[[targets]]
"""
LIMIT = 150.0


def main() -> None:
    folder = Path(sys.argv[1])
    os.environ["PATIENT"] = str(folder)  # the nodes' processes inherit it
    (folder / "m.toml").write_text(SPEC)
    run = folder / "run"
    run.mkdir()
    # The weights are known already, so that only builds call the factory.
    (run / "memory.json").write_text(json.dumps({"weights": {"tests.integration.matrix_models:patient": 1000}}))
    with cluster({"num_cpus": 1}, {"num_cpus": 1, "num_gpus": 1, "resources": {"accelerator_type:L4": 1}}) as address:
        plan = subprocess.run(
            matrix_command(address, "plan", folder / "m.toml", run), cwd=ROOT, capture_output=True, check=True
        )
        matrix = subprocess.Popen(
            matrix_command(address, "run", folder / "m.toml", run),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: len(started(folder)) == 2, LIMIT)
        victim = min(started(folder))
        # The parents of the build's process: the verb's process, and then Ray's worker that runs the task.
        worker = psutil.Process(victim).parents()[1]
        worker.kill()
        wait_for(lambda: len(started(folder)) == 3, LIMIT)
        orphan = running(victim)
        (folder / "go").touch()
        out, err = matrix.communicate(timeout=LIMIT)
        again = subprocess.run(
            matrix_command(address, "run", folder / "m.toml", folder / "shared", "--ray-shared", "--only", "*fp32*"),
            cwd=ROOT,
            capture_output=True,
            check=False,
        )
        (folder / "brought").mkdir()
        (folder / "brought" / "only_there.py").write_text((ROOT / "tests" / "models.py").read_text())
        (folder / "brought.toml").write_text(BROUGHT)
        command = matrix_command(address, "run", folder / "brought.toml", folder / "brought-run")
        brought = subprocess.run(
            [*command, "--ray-working-dir", str(folder / "brought")], cwd=folder, capture_output=True, check=False
        )
    answer = {
        "plan": json.loads(plan.stdout),
        "run": json.loads(out),
        "said": err,
        "code": matrix.returncode,
        "worker": worker.pid,
        "orphan": orphan,
        "shared": json.loads(again.stdout),
        "brought": json.loads(brought.stdout),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
