"""What ``benchmarks/gpu/bisect.py`` builds here for a GPU host, and what it reports there.

The plans are real. Engines need a GPU, so their results are read from the file of references, and changed as a defect
would change them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.gpu import bisect
from benchmarks.gpu.probes import CUT, MARKED, WHOLE, Subject, prepare, read_subjects
from tests.integration.harness import imported_builder

pytestmark = [pytest.mark.rtx, pytest.mark.xdist_group("bisect")]

# Returns what the engine computes for a slot, from the plan's form, the slot that it shows, and the slot.
Defect = Callable[[str, "int | None", int, Tensor], Tensor]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(32, 32), nn.Linear(32, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)) * 2).softmax(-1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from linux_side.frontend.source import export_source
    from linux_side.options import BuildOptions

    imported_builder()
    folder = tmp_path_factory.mktemp("bisect")
    options = BuildOptions(precision="fp16", golden=0)
    model, args = Net().eval(), (torch.randn(4, 32),)
    source = export_source("net", model, args, {}, options)
    prepare(folder / "nets", "net", source, options, (args, {}), forms=(WHOLE, MARKED, CUT))
    return folder


@pytest.fixture
def subject(folder: Path) -> Subject:
    (found,) = read_subjects(folder)
    return found


def run(
    folder: Path, subject: Subject, monkeypatch: pytest.MonkeyPatch, defect: Defect
) -> tuple[int, list[dict[str, Any]]]:
    probes = {Path(probe.plan): probe for probe in subject.probes}

    def execute(plan: Path, inputs: dict[str, Tensor], aliases: dict[str, str], _: str | None) -> dict[str, Tensor]:
        probe, values = probes[plan], load_file(subject.values)
        assert plan.stat().st_size and list(inputs) == subject.inputs
        shown = {} if probe.slot is None else {f"slot{probe.slot}": probe.slot}
        outputs = {} if probe.form == CUT else subject.outputs
        return {
            name: defect(probe.form, probe.slot, slot, values[str(slot)]) for name, slot in {**shown, **outputs}.items()
        }

    monkeypatch.setattr(bisect, "execute", execute)
    monkeypatch.setattr(bisect, "in_processes", lambda work, jobs, _: ((job, work(job)) for job in jobs))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "no GPU")
    wrong = bisect.run(folder, folder / "out.json")
    return wrong, json.loads((folder / "out.json").read_text())["rows"]


def slot_of(subject: Subject, kind: str) -> int:
    return next(int(slot) for slot, inner in subject.tensors.items() if inner.kind == kind)


def test_each_inner_tensor_has_a_plan_that_shows_it_and_one_that_ends_there(subject: Subject) -> None:
    shown = {form: {probe.slot for probe in subject.probes if probe.form == form} for form in (MARKED, CUT)}
    own = set(subject.outputs.values())
    computed = {slot for slot in map(int, subject.tensors) if slot not in own}
    assert shown[MARKED] == shown[CUT] <= computed
    assert {slot_of(subject, kind) for kind in ("MATRIX_MULTIPLY", "ACTIVATION", "SOFTMAX")} - own <= shown[MARKED]
    assert [probe.form for probe in subject.probes].count(WHOLE) == 1


def test_what_rounding_costs_stands_beside_each_tensor(subject: Subject) -> None:
    errors = [inner.expected for inner in subject.tensors.values() if inner.dtype == "float16"]
    assert errors and all(error < 2e-3 for error in errors)
    assert subject.tensors[str(slot_of(subject, "MATRIX_MULTIPLY"))].expected > 1e-5


def test_an_engine_that_is_right_is_called_right(
    folder: Path, subject: Subject, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong, rows = run(folder, subject, monkeypatch, lambda form, shown, slot, value: value)
    said = capsys.readouterr().out
    assert wrong == 0 and len(rows) == len(subject.probes)
    assert "nets/net: right" in said and "jumps" not in said


def test_the_first_layer_whose_error_jumps_is_named(
    folder: Path, subject: Subject, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tanh = slot_of(subject, "ACTIVATION")

    def defect(form: str, shown: int | None, slot: int, value: Tensor) -> Tensor:
        return value if slot < tanh else torch.where(torch.arange(value.numel()) % 3 == 0, 0.0, value)

    wrong, _ = run(folder, subject, monkeypatch, defect)
    said = capsys.readouterr().out
    assert wrong == 1 and "nets/net: WRONG" in said
    for form in (MARKED, CUT):
        assert f"jumps ({form}): slot {tanh}, ACTIVATION" in said
    assert "34% zeros" in said or "33% zeros" in said


def test_a_defect_that_goes_away_when_a_tensor_is_shown_is_laid_to_a_fusion(
    folder: Path, subject: Subject, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tanh = slot_of(subject, "ACTIVATION")

    def defect(form: str, shown: int | None, slot: int, value: Tensor) -> Tensor:
        return value * 2 if slot in subject.outputs.values() and shown != tanh else value

    assert run(folder, subject, monkeypatch, defect)[0] == 1
    said = capsys.readouterr().out
    assert said.count("right when shown") == 1 and f"right when shown: slot {tanh}, ACTIVATION" in said


def test_a_plan_that_cannot_run_is_a_row_and_not_the_end(
    folder: Path, subject: Subject, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(work: Any, jobs: Any, _: int) -> Any:
        return ((job, RuntimeError("refuses") if job[1].form == CUT else work(job)) for job in jobs)

    run(folder, subject, monkeypatch, lambda form, shown, slot, value: value)
    monkeypatch.setattr(bisect, "in_processes", broken)
    assert bisect.run(folder, folder / "out.json") == 0
    assert "plans (cut) cannot run: RuntimeError: refuses" in capsys.readouterr().out


def test_numbers_that_are_not_finite_are_wrong(subject: Subject) -> None:
    assert bisect.compared(torch.tensor([1.0, float("nan")]), torch.tensor([1.0, 2.0]))["error"] == float("inf")
    assert bisect.compared(torch.tensor([1.0, -float("inf")]), torch.tensor([1.0, -float("inf")]))["error"] == 0
