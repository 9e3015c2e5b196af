"""A message names a line of the user's model: not one of a library, of Python, or of the toolchain."""

from __future__ import annotations

import contextlib
import sysconfig
from pathlib import Path

import pytest

pytest.importorskip("torch")
import sympy
import torch

import linux_side
import toolchain
from linux_side.frontend import data_attributes, hidden_state, sliding_caches
from linux_side.guards.model_files import is_of_model, lines_in, model_lines_in

INSTALLED = Path(sysconfig.get_path("purelib"))
IN_PYTHON = Path(sysconfig.get_path("stdlib")) / "site-packages"


@pytest.mark.parametrize(
    "path", [__file__, "/home/me/torch/model.py", INSTALLED / "timm" / "vit.py", IN_PYTHON / "timm" / "vit.py"]
)
def test_the_users_files_and_installed_models_are_the_models(path: str | Path) -> None:
    assert is_of_model(str(path))


@pytest.mark.parametrize(
    "module",
    [
        torch,
        torch.nn.functional,
        sympy,
        contextlib,
        linux_side,
        toolchain,
        data_attributes,
        hidden_state,
        sliding_caches,
    ],
)
def test_what_runs_the_model_or_is_called_by_it_is_not(module: object) -> None:
    assert not is_of_model(str(getattr(module, "__file__", None)))


def test_code_without_a_file_is_not() -> None:
    assert not is_of_model("<eval_with_key>.3")


def test_the_lines_of_a_trace_are_the_innermost_last() -> None:
    library = torch.nn.functional.__file__
    trace = 'File "/m.py", line 1, in forward\n    x = f(x)\n  File "/m.py", line 5, in f\n'
    trace += f'File "{library}", line 9, in relu'
    assert lines_in(trace) == ["/m.py:1", "/m.py:5", f"{library}:9"] and model_lines_in(trace) == ["/m.py:1", "/m.py:5"]
    assert not lines_in(None)
