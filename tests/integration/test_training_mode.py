"""Training mode is refused before anything is built: modules are named, and operators are named with their line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from linux_side.frontend.source import export_source, load_source
from linux_side.options import BuildOptions
from tests.conftest import Trtcross
from tests.integration.cases import training
from tests.integration.harness import build_here, build_source, imported_builder
from toolchain.errors import BuildFailedError

pytestmark = pytest.mark.rtx

REFUSED = {
    "dropout_on": "in training mode: linear (Linear), drop (Dropout), the model itself (Case)",
    "batch_norm_on": "in training mode: 0 (Linear), 1 (BatchNorm1d), the model itself (Sequential)",
    "one_part_on": "in training mode: 1.1.drop (Dropout)",
    "replaced_head": "in training mode: 2 (Linear)",
    "many_parts_on": "0 (Linear), 1 (Linear), 2 (Linear), 3 (Linear), 4 (Linear) and 5 more",
}


@pytest.mark.parametrize("name", REFUSED)
def test_modules_in_training_mode_are_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.export, "export", lambda *_, **__: pytest.fail("it was exported"))
    with pytest.raises(BuildFailedError) as caught:
        model, args = getattr(training, name)()
        export_source(name, model, args, {}, BuildOptions())
    assert REFUSED[name] in caught.value.problem
    assert "model.eval()" in str(caught.value.remedy)


def test_the_command_refuses_them(tmp_path: Path, warm_trtcross: Trtcross) -> None:
    result = warm_trtcross("build", "tests.integration.cases.training:dropout_on", "-o", tmp_path / "out.pt2")
    assert result.returncode == 7 and "drop (Dropout)" in result.stderr and "model.eval()" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["dropout_in_eval", "dropout_of_nothing", "batch_norm_of_the_batch", "attention"])
def test_what_only_looks_like_training_is_built_and_right(tmp_path: Path, name: str) -> None:
    model, args = getattr(training, name)()
    built = build_here(model, args, folder=tmp_path)
    assert len(built.artifact.engines) == 1 and not built.artifact.manifest.fallback
    assert (built.run(*args) - model(*args)).norm() <= 1e-5 * model(*args).norm()


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("name", training.TRAINING_FORMS)
def test_an_operators_training_form_is_refused_with_its_line(tmp_path: Path, name: str, saved: bool) -> None:
    model, args = training.training_form(name)
    if saved:
        path = tmp_path / "program.pt2"
        torch.export.save(torch.export.export(model, args), path)
        source = load_source(str(path), BuildOptions(golden=0))
    else:
        source = export_source(name, model, args, {}, BuildOptions(golden=0))
    operator, _ = training.TRAINING_FORMS[name]
    with pytest.raises(BuildFailedError, match="in its training form") as caught:
        build_source(source, BuildOptions(golden=0), imported_builder(), tmp_path)
    assert operator in caught.value.problem
    assert f"{operator}, " in str(caught.value.where) and "cases/__init__.py:" in str(caught.value.where)


@pytest.mark.parametrize(
    ("module", "operator"),
    [
        (torch.nn.Dropout(0.5), "aten.dropout.default"),
        (torch.nn.BatchNorm1d(8), "aten.batch_norm.default"),
        (torch.nn.LSTM(8, 8, 2, dropout=0.5, batch_first=True), "aten.lstm.input"),
    ],
)
def test_a_program_exported_in_training_mode_is_refused(tmp_path: Path, module: torch.nn.Module, operator: str) -> None:
    x = torch.randn(2, 3, 8) if isinstance(module, torch.nn.LSTM) else training.X
    path = tmp_path / "program.pt2"
    torch.export.save(torch.export.export(module.train(), (x,)), path)
    source = load_source(str(path), BuildOptions(golden=0))
    with pytest.raises(BuildFailedError, match=f"calls {operator} in its training form"):
        build_source(source, BuildOptions(golden=0), imported_builder(), tmp_path)


def test_an_exported_programs_module_has_no_mode_of_its_own(tmp_path: Path) -> None:
    """Its ``training`` is true and cannot be changed; only its operators show the mode."""
    model, args = training.dropout_in_eval()
    exported = torch.export.export(model, args).module()
    assert exported.training
    source = export_source("exported", exported, args, {}, BuildOptions())
    assert build_source(source, BuildOptions(), imported_builder(), tmp_path).artifact.engines
