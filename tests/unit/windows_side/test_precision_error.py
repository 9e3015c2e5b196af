"""`verify` reports its errors with what the precision alone costs, and warns about much larger ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.unit.handmade import Handmade
from tests.unit.windows_side.reports.test_report import figures
from toolchain import open_artifact
from toolchain.cli.main import cli
from toolchain.errors import MalformedArtifactError
from windows_side.verification.output_error import doubts_of_added

PRECISION: dict[str, Any] = {
    "halves": "fp16",
    "in_halves": 12,
    "in_fp32": {"a norm": 3},
    "keep_fp32": ["head"],
    "errors": [3e-4],
    "warnings": [],
}


def artifact(path: Path, **changes: Any) -> Path:
    def edit(document: dict[str, Any]) -> None:
        document.update(schema_version=2, precision={**PRECISION, **changes})

    return Handmade(edit_manifest=edit).write(path)


def test_an_error_that_the_precision_explains_is_no_warning() -> None:
    assert figures(relative_l2=1e-3, precision_error=3e-4).added == pytest.approx(10 / 3)
    assert not doubts_of_added([figures(relative_l2=1e-3, precision_error=3e-4), figures(relative_l2=1.0)])


def test_over_four_times_the_precisions_error_is_a_warning_that_names_the_output() -> None:
    (doubt,) = doubts_of_added([figures("depth", relative_l2=2e-3, precision_error=3e-4)])
    assert doubt.startswith("depth of sample 0 is off by 2.0e-03, 7 times")


def test_what_summing_in_another_order_gives_is_no_warning() -> None:
    assert not doubts_of_added([figures(relative_l2=3e-5, precision_error=0.0)])


def test_inspect_shows_the_precision(tmp_path: Path) -> None:
    path = artifact(tmp_path / "a.pt2")
    text = CliRunner().invoke(cli, ["inspect", str(path)]).output
    assert "12 operators in fp16, 3 stayed in fp32" in text and "a norm x3" in text and "loses 3.0e-04" in text
    document = json.loads(CliRunner().invoke(cli, ["inspect", "--json", str(path)]).stdout)
    assert document["manifest"]["precision"] == PRECISION


@pytest.mark.parametrize(
    "changes",
    [{"errors": [0.1, 0.2]}, {"errors": [-1.0]}, {"halves": "int8"}, {"in_halves": -1}, {"keep_fp32": [""]}],
    ids=str,
)
def test_a_precision_that_cannot_be_is_malformed(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedArtifactError):
        open_artifact(artifact(tmp_path / "a.pt2", **changes))


def test_an_artifact_without_a_precision_stays_of_version_1(tmp_path: Path) -> None:
    with open_artifact(Handmade().write(tmp_path / "a.pt2")) as plain:
        assert plain.manifest.schema_version == 1 and '"precision"' not in plain.manifest.to_json()
