"""What an artifact's golden I/O is, and what `build`, `inspect`, `verify` and `convert` report about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import Trtcross
from tests.integration.cases import golden as cases
from tests.integration.cases import halves
from tests.integration.harness import build_here
from toolchain import open_artifact
from toolchain.checker.golden_header import check_golden_header
from toolchain.errors import IncompatibleError
from windows_side.execution.samples import read_golden
from windows_side.verification.golden import compare_golden
from windows_side.verification.levels import golden_errors

pytestmark = pytest.mark.rtx

MODULE = "tests.integration.cases.golden"


def test_samples_of_all_sizes_are_right_when_they_are_verified(tmp_path: Path) -> None:
    model, args = cases.embedding()
    built = build_here(model, args, folder=tmp_path, dynamic=("x.0=1:2:6", "x.1=4:8:28"), golden=5)
    check_golden_header(built.artifact)
    samples = read_golden(built.artifact)
    assert [tuple(inputs[0].shape) for inputs, _ in samples[:3]] == [(2, 8), (1, 4), (6, 28)] and len(samples) == 5
    errors = compare_golden(built.artifact, built.model)
    assert len(errors) == 5 and all(error.relative_l2 < 1e-5 for error in errors)


class WithAConstant(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        return {"sum": x.sum() * 2, "count": 3, "nothing": None}


def test_a_constant_output_is_not_compared(tmp_path: Path) -> None:
    built = build_here(WithAConstant().eval(), (torch.ones(2, 3),), folder=tmp_path)
    assert [error.name for error in compare_golden(built.artifact, built.model)] == ["output.sum"]


def test_an_artifact_holds_the_programs_padding_and_says_what_eager_gives(tmp_path: Path) -> None:
    model, args = cases.padded_encoder()
    built = build_here(model, args, folder=tmp_path)
    (error,) = compare_golden(built.artifact, built.model)
    assert error.within and error.relative_l2 < 1e-5
    (warning,) = built.artifact.manifest.settings["golden_warnings"]
    assert "the model itself gives another" in warning


def test_the_commands_repeat_the_warnings_of_the_build(tmp_path: Path, warm_trtcross: Trtcross) -> None:
    out = tmp_path / "out.pt2"
    result = warm_trtcross("build", f"{MODULE}:padded_encoder", "-o", out, "--json")
    assert result.returncode == 0, result.stderr
    (warning,) = json.loads(result.stdout)["warnings"]
    assert "relative difference" in warning and f"warning: {warning}" in result.stderr
    assert warning in warm_trtcross("inspect", out).stdout
    noise = tmp_path / "noise.pt2"
    assert warm_trtcross("build", f"{MODULE}:live_noise", "-o", noise).returncode == 0
    with open_artifact(noise) as artifact:
        assert artifact.manifest.golden is None and artifact.manifest.schema_version == 1
        with pytest.raises(IncompatibleError, match="no golden I/O: the model gives other outputs each time"):
            golden_errors(artifact, None)
    assert warm_trtcross("verify", noise, "--level", "structure").returncode == 0


def test_a_build_from_the_cache_repeats_it_too(
    tmp_path: Path, warm_trtcross: Trtcross, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, args = cases.blind()
    torch.export.save(torch.export.export(model, args), tmp_path / "program.pt2")
    monkeypatch.setenv("TRTCROSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TRTCROSS_CACHE_SIZE", "1GiB")

    def build(source: Any) -> Any:
        return json.loads(warm_trtcross("build", source, "-o", tmp_path / "out.pt2", "--json").stdout)

    for source in (tmp_path / "program.pt2", f"{MODULE}:blind"):
        first, second = build(source), build(source)
        assert not first["manifest"]["build"]["from_cache"] and second["manifest"]["build"]["from_cache"]
        assert first["warnings"] == second["warnings"] == first["manifest"]["settings"]["golden_warnings"]
        assert len(first["warnings"]) == 2


@pytest.mark.parametrize("name", ["decoder", "convolutions"])
def test_golden_of_a_model_in_halves_is_computed_in_fp32_and_the_manifest_and_the_page_say_so(
    name: str, tmp_path: Path, trtcross: Trtcross
) -> None:
    out = tmp_path / "out.pt2"
    result = trtcross("build", f"tests.integration.cases.halves:{name}", "-o", out, "--json")
    assert result.returncode == 0, result.stderr
    assert not json.loads(result.stdout)["warnings"]
    model, _ = getattr(halves, name)()
    with open_artifact(out) as artifact:
        assert artifact.manifest.settings["golden_precision"] == "fp32" and artifact.manifest.schema_version == 1
        ((inputs, (want,)),) = read_golden(artifact)
    with torch.no_grad():
        exact = model.float()(*(leaf.float() if leaf.is_floating_point() else leaf for leaf in inputs))
    assert want.dtype in (torch.bfloat16, torch.float16) and torch.equal(want, exact.to(want.dtype))
    assert "golden:   1 sample(s), computed in fp32\n" in trtcross("inspect", out).stdout
    page = tmp_path / "page.html"
    assert trtcross("inspect", out, "--html", page).returncode == 0
    assert "1 sample(s), computed in fp32" in page.read_text()


def test_the_manifest_and_the_page_report_golden_data_that_is_rounded_itself(
    tmp_path: Path, trtcross: Trtcross
) -> None:
    out, page = tmp_path / "out.pt2", tmp_path / "page.html"
    result = trtcross("build", "tests.integration.cases.halves:rounded_positions", "-o", out, "--json")
    assert result.returncode == 0, result.stderr
    (warning,) = json.loads(result.stdout)["warnings"]
    assert warning.startswith("golden I/O is computed in bf16, as the model is, and rounded itself")
    assert trtcross("inspect", out, "--html", page).returncode == 0
    assert "1 sample(s), computed in bf16" in page.read_text() and warning in page.read_text()
    with open_artifact(out) as artifact:
        assert artifact.manifest.settings["golden_precision"] == "bf16"
