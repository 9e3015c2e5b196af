"""The machinery of the zoo: forks, random weights, and which results count as worse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytest.importorskip("torch")
pytest.importorskip("benchmarks", reason="the sources are not here")

FORKS = """
import json, os, sys, time
from pathlib import Path
from benchmarks.zoo.forking import in_forks

def work(job):
    print("said by", job, flush=True)
    if job == "dies":
        os._exit(3)
    if job == "sleeps":
        time.sleep(60)
    if job == "raises":
        raise ValueError("no")
    return {"state": "right", "job": job}

folder = Path(sys.argv[1])
jobs = ["works", "dies", "sleeps", "raises"]
logs = [folder / f"{job}.log" for job in jobs]
print(json.dumps(dict(in_forks(work, jobs, logs=logs, folder=folder, count=2, seconds=4.0))))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_row_that_dies_or_hangs_is_a_result_and_not_the_end(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FORKS, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    results = json.loads(ended.stdout)
    assert results["works"] == {"state": "right", "job": "works"}
    assert results["dies"] == {"state": "refused", "reason": "the process ended with 3"}
    assert results["sleeps"] == {"state": "refused", "reason": "took over 4 s"}
    assert results["raises"]["state"] == "refused"
    assert "ValueError: no" in (tmp_path / "raises.log").read_text()
    assert {path.suffix for path in tmp_path.iterdir()} == {".log"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_process_with_two_threads_does_not_fork() -> None:
    code = "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    code += "from benchmarks.zoo.forking import require_one_thread; require_one_thread()"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1 and "has 2 threads" in ended.stderr


GOOD: dict[str, Any] = {"state": "right", "engines": 1, "in_torch": {}, "errors": [1e-6, 2e-6]}


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (GOOD, None),
        ({**GOOD, "errors": [1e-5, 1.5e-5]}, None),
        ({**GOOD, "errors": [1e-6, 9e-5]}, "an error of 9.0e-05, 2.0e-06 before"),
        ({**GOOD, "engines": 2}, "2 engines instead of 1"),
        ({**GOOD, "in_torch": {"aten.roll.default": 1}}, "1 operators stay in PyTorch, 0 did before"),
        ({**GOOD, "state": "wrong"}, "was right, is wrong: 1e-06 2e-06"),
        ({"state": "refused", "reason": "a guard"}, "was right, is refused: a guard"),
    ],
)
def test_a_row_is_worse_by_state_engines_coverage_or_error(after: dict[str, Any], said: str | None) -> None:
    from benchmarks.zoo.table import worse

    assert worse(GOOD, after) == said


def test_a_row_that_builds_now_is_not_worse() -> None:
    from benchmarks.zoo.table import worse

    assert worse({"state": "refused", "reason": "a guard"}, {**GOOD, "engines": 3}) is None


def test_random_weights_give_outputs_of_a_usual_size_that_depend_on_the_input() -> None:
    import torch
    from torch import nn

    from benchmarks.zoo.weights import doubts, settle

    def unit(inner: int, outer: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(inner, outer, 3, padding=1), nn.BatchNorm2d(outer), nn.ReLU())

    model = nn.Sequential(unit(3, 16), *(unit(16, 16) for _ in range(30)), nn.Flatten(), nn.LazyLinear(4))
    x = torch.randn(1, 3, 8, 8)
    model.eval()(x)
    assert doubts(model, (x,), {}), "as torch initializes it, its output hardly depends on the input"
    settle(model, (x,), {})
    assert not doubts(model, (x,), {})
    assert model(x).std() > 0.1


def test_a_row_without_engines_or_tensors_is_not_right() -> None:
    from types import SimpleNamespace

    import torch

    from benchmarks.zoo.building import _compared
    from benchmarks.zoo.row import Row

    row = Row("a", "b", lambda: (torch.nn.Identity(), (torch.ones(2),)))
    call: Any = (torch.ones(2),), {}

    def compared(networks: dict[str, Any], outputs: list[Any]) -> str:
        # A stand-in for the result of a build: a row without engines would be compared with itself.
        built = SimpleNamespace(networks=networks, run_networks=lambda *_: outputs)
        sample = SimpleNamespace(inputs=[torch.ones(2)], outputs=outputs)
        return str(_compared(row, built, [sample], call)["state"])

    assert compared({"engine": None}, [torch.ones(2)]) == "right"
    assert compared({}, [torch.ones(2)]) == compared({"engine": None}, [3]) == "unknown"


def test_the_rows_have_names_of_their_own_and_name_inputs_that_models_have() -> None:
    from benchmarks.zoo.rows import FIXED, zoo

    rows = {row.name: row for row in zoo()}
    assert len(rows) >= 120 and set(FIXED) <= set(rows) and len(FIXED) == 12
    assert [row.name for row in zoo("convnext*,vit")] == ["convnext", "convnextv2", "vit"]
    assert rows["bert"].words().endswith("--precision fp16")


def test_a_row_in_halves_may_be_as_wrong_as_eager_pytorch_in_halves_but_no_worse() -> None:
    from types import SimpleNamespace

    import torch
    from torch import nn

    from benchmarks.zoo.building import _compared
    from benchmarks.zoo.row import Row

    class Differences(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 100 - 100  # halves keep two digits of x

    x = torch.linspace(0, 1, 99)

    def state(output: torch.Tensor, precision: str | None = "fp16") -> str:
        row = Row("a", "b", lambda: (Differences(), (x,)), precision=precision, settled=False)
        # A stand-in for the result of a build: what matters is how its outputs are judged.
        built = SimpleNamespace(networks={"engine": None}, run_networks=lambda *_: [output])
        return str(_compared(row, built, [SimpleNamespace(inputs=[x], outputs=[x])], ((x,), {}))["state"])

    rounded = (x.half() + 100 - 100).float()
    assert (rounded - x).norm() > 0.01 * x.norm()
    assert state(rounded) == "right"
    assert state(x + 10 * (rounded - x)) == "wrong"
    assert state(rounded, None) == "wrong"


def test_the_table_says_where_a_gpu_is_only_as_wrong_as_eager_pytorch() -> None:
    from benchmarks.zoo.table import as_eager

    record = {"right": False, "error": 0.7, "graph_error": 0.6, "eager_error": 0.4}
    assert as_eager(record)
    assert not as_eager({**record, "graph_error": 1.7})
    assert not as_eager({"right": False, "error": 0.7, "eager_error": 0.4}), "it was not run as a CUDA graph"


STEPS = """
import os
from benchmarks.zoo.recording import print_steps

def steps():
    yield {"gpu": "G", "error": 0.5}
    HOW
    yield {"right": True}

print_steps(steps())
"""


def test_rows_that_fail_or_crash_keep_what_was_found_and_those_that_are_there_are_not_run_again(tmp_path: Path) -> None:
    from argparse import Namespace

    from benchmarks.zoo.recording import record
    from benchmarks.zoo.table import read_lines

    asked = Namespace(out=tmp_path / "rows.jsonl", jobs=3, each=120, seconds=240)
    hows = {"ends": "pass", "fails": "raise ValueError('no\\n  more')", "crashes": "os._exit(3)"}
    commands = {name: [sys.executable, "-c", STEPS.replace("HOW", how)] for name, how in hows.items()}
    asked.out.write_text('{"name": "there", "error": 1}\n')
    record(asked, commands | {"there": commands["crashes"]}, {"right": False})
    found = read_lines(asked.out)
    assert found["there"] == {"name": "there", "error": 1}
    assert {name: (found[name]["right"], found[name]["error"]) for name in hows} == {
        "ends": (True, 0.5), "fails": (False, 0.5), "crashes": (False, 0.5),
    }  # fmt: skip
    assert found["fails"]["failed"] == "ValueError: no more" and found["crashes"]["failed"].startswith("ended with 3")
    assert "failed" not in found["ends"]
