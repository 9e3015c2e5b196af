"""Verifications as on a machine with a GPU: levels that need no GPU are run, and outputs are invented tensors."""

from __future__ import annotations

from pathlib import Path

import torch

from toolchain.errors import WrongNumbersError
from toolchain.host.requirements import Requirement, State
from toolchain.manifest.models import Tolerance
from windows_side.reports.verify_reports import Reports
from windows_side.verification.golden import compare_output
from windows_side.verification.levels import StepResult, Verification
from windows_side.verification.output_error import OutputError

TOLERANCE = Tolerance(relative_l2=0.005, max_relative=0.02)
LATENCY = {"latency": {"median": 0.401, "p5": 0.38, "p95": 0.45, "mean": 0.41}}
MACHINE = {"GPU": "an example: no GPU was used for this page", "driver": "an example"}


def outputs(name: str = "logits") -> list[OutputError]:
    """Returns the errors of two outputs that differ as much as TF32 does from fp32."""
    torch.manual_seed(0)
    want = torch.randn(8, 1000)
    coarse = want + 6e-4 * torch.randn_like(want) * torch.randn_like(want).exp()
    fine = want * (1 + 1e-5 * torch.randn_like(want))
    return [
        compare_output(coarse, want, TOLERANCE, name=name),
        compare_output(fine, want, TOLERANCE, name=name, sample=1),
    ]


def wrong_output(name: str = "features") -> OutputError:
    torch.manual_seed(1)
    want = torch.randn(8, 1000)
    got = want + 1e-4 * torch.randn_like(want)
    got[2, 2], got[3, 17] = got[2, 2] + 1, float("nan")
    return compare_output(got, want, TOLERANCE, name=name)


def verified(artifact: Path, page: Path) -> Path:
    return _write(_finished(artifact, outputs()), page)


def wrong_numbers(artifact: Path, page: Path) -> Path:
    error = WrongNumbersError("1 of 3 outputs are outside their tolerance", where=str(artifact), remedy="use fp32")
    return _write(_finished(artifact, [*outputs(), wrong_output()], error), page)


def hostile_figures(artifact: Path, page: Path, text: str) -> Path:
    error = WrongNumbersError(text, where=text, remedy=text)
    verification = _finished(artifact, [*outputs(text), wrong_output("x" * 5000)], error, "integrity")
    verification.requirements = [Requirement(text, State.NOT_MET, text, "y" * 5000, text)]
    verification.machine = {text: text}
    return _write(verification, page)


def _finished(
    artifact: Path, found: list[OutputError], error: WrongNumbersError | None = None, level: str = "structure"
) -> Verification:
    verification = Verification(artifact, level, about_machine=True)
    assert all(result.passed for result in verification.run())
    verification.level, verification.levels = "numbers", ("integrity", "structure", "load", "numbers")
    verification.results += [StepResult("load", True, 1.72), StepResult("numbers", error is None, 0.63, error)]
    verification.outputs = found
    verification.machine.update(MACHINE)
    verification.requirements = [
        Requirement(item.name, State.MET, item.needed, item.found if item.state is State.MET else item.needed)
        for item in verification.requirements
        if item.name != "wsl"
    ]
    return verification


def _write(verification: Verification, page: Path) -> Path:
    samples = (0.4 + 0.02 * torch.randn(200)).tolist()
    latency = {**LATENCY["latency"], "samples": samples}
    Reports(page, None, {"latency": latency}).write(verification)
    return page
