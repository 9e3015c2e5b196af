"""Without TF32, products of fp32 are fp32's: the variable is set before the process begins, and checked by ``load``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from toolchain.engine.tf32 import VARIABLE

_CODE = """
import sys, torch
from windows_side import Session, load
torch.manual_seed(0)
model, x = torch.nn.Linear(512, 512), torch.randn(64, 512)
want = model.double()(x.double())
path, anyhow = sys.argv[1], {"allow_unlisted_gpu": True}
for got in (load(path, **anyhow)(x.cuda()), Session(path, **anyhow)(x.numpy())):
    print(((torch.as_tensor(got).double().cpu() - want).norm() / want.norm()).item())
"""


def built(folder: Path, *, tf32: bool) -> Path:
    from tests.integration.harness import build_here

    torch.manual_seed(0)
    model, x = torch.nn.Linear(512, 512), torch.randn(64, 512)
    return build_here(model, (x,), folder=folder, target="linux-x86_64", tf32=tf32).artifact.path


def run(path: Path, value: str | None) -> subprocess.CompletedProcess[str]:
    environment = {name: text for name, text in os.environ.items() if name != VARIABLE}
    environment |= {VARIABLE: value} if value is not None else {}
    command = [sys.executable, "-c", _CODE, str(path)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("tf32", [True, False], ids=["tf32", "no tf32"])
def test_products_are_as_exact_as_was_asked(tmp_path: Path, tf32: bool) -> None:
    path = built(tmp_path, tf32=tf32)
    right = run(path, None if tf32 else "0")
    assert right.returncode == 0, right.stderr
    errors = [float(line) for line in right.stdout.split()]
    assert len(errors) == 2 and all(1e-4 < error < 1e-3 if tf32 else error < 2e-5 for error in errors), errors
    wrong = run(path, "0" if tf32 else None)
    assert wrong.returncode and "NVIDIA_TF32_OVERRIDE" in wrong.stderr, wrong.stderr
