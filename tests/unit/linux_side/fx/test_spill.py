"""Weights that are moved to a file keep their values for every holder, and use no memory of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch")

from linux_side.fx.spill import LEAST, Spill, joined
from tests.conftest import ROOT
from toolchain.errors import BuildFailedError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the producer runs on Linux: Windows keeps a mapped file")

SIDE = 512  # a square of floats of 1 MiB


def anonymous() -> int:
    """Returns the bytes of this process's anonymous memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def test_tensors_keep_their_values_views_and_sharing(tmp_path: Path) -> None:
    whole = torch.arange(SIDE * SIDE, dtype=torch.float32).reshape(SIDE, SIDE)
    view, turned = whole[10:20], whole.t()
    weight = torch.nn.Parameter(torch.randn(SIDE, SIDE).half())
    flags, small = torch.rand(SIDE, SIDE) > 0.5, torch.arange(3)
    tensors = [whole, view, turned, weight, flags, small]
    before = [(tensor.clone(), tensor.stride(), tensor.dtype) for tensor in tensors]
    spill = Spill(tmp_path)
    spill.move([*tensors, weight])
    for tensor, (value, stride, dtype) in zip(tensors, before, strict=True):
        assert torch.equal(tensor, value) and tensor.stride() == stride and tensor.dtype == dtype
    assert whole.data_ptr() == turned.data_ptr() == view.data_ptr() - 10 * SIDE * 4
    assert weight.requires_grad and isinstance(weight, torch.nn.Parameter)
    whole[10, 0] = -1.0  # in place, as state is changed
    assert view[0, 0] == turned[0, 10] == -1.0
    spill.move(tensors)
    assert whole[10, 0] == -1.0 and not list(tmp_path.iterdir())


def test_conjugates_and_what_torch_negates_only_when_it_is_read_keep_their_values(tmp_path: Path) -> None:
    numbers = torch.randn(SIDE, SIDE, dtype=torch.complex64)
    conjugate = numbers.conj()
    tensors = [numbers, conjugate, conjugate.imag, torch.nn.Parameter(conjugate.t().imag)]
    before = [tensor.clone() for tensor in tensors]
    assert conjugate.is_conj() and tensors[2].is_neg() and tensors[3].is_neg()
    Spill(tmp_path).move(tensors)
    for tensor, value in zip(tensors, before, strict=True):
        assert torch.equal(tensor, value)
    numbers[0, 1] = 3 + 4j
    assert conjugate[0, 1] == 3 - 4j and tensors[2][0, 1] == -4


def test_what_is_no_tensor_in_memory_stays_as_it_is(tmp_path: Path) -> None:
    tensor, meta = torch.ones(SIDE, SIDE), torch.empty(SIDE, SIDE, device="meta")
    empty, sparse = torch.empty(0, SIDE), torch.eye(SIDE).to_sparse()
    spill = Spill(tmp_path)
    spill.move([tensor, meta, empty, sparse])
    assert tensor.sum() == SIDE * SIDE and sparse.to_dense().sum() == SIDE
    small = torch.ones(LEAST // 8)
    place = small.data_ptr()
    spill.move([small])
    assert small.data_ptr() == place


def mapped(path: Path) -> torch.Tensor:
    """Returns a tensor of 1 MiB that is mapped from its file, as safetensors does."""
    return torch.from_file(str(path), shared=False, size=SIDE * SIDE, dtype=torch.float32)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux lists mappings")
def test_what_is_mapped_from_a_file_stays_there_until_most_of_it_was_written_to(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(torch.arange(SIDE * SIDE, dtype=torch.float32).numpy().tobytes())
    kept, changed = mapped(path), mapped(path)
    changed.add_(1)
    places = kept.data_ptr(), changed.data_ptr()
    spill = Spill(tmp_path)
    spill.move([kept, changed])
    assert kept.data_ptr() == places[0] and changed.data_ptr() != places[1]
    assert kept[1] == 1 and changed[1] == 2
    spill.require_unchanged()


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux lists mappings")
@pytest.mark.parametrize("how", ["written to", "another in its place"])
def test_weights_that_change_while_they_are_mapped_are_refused(tmp_path: Path, how: str) -> None:
    path = tmp_path / "model.safetensors"
    data = torch.ones(SIDE * SIDE).numpy().tobytes()
    path.write_bytes(data)
    weight, spill = mapped(path), Spill(tmp_path)
    spill.move([weight])
    if how == "written to":
        with path.open("r+b") as file:
            file.write(bytes(4))
    else:
        (tmp_path / "new").write_bytes(data)
        (tmp_path / "new").replace(path)
    with pytest.raises(BuildFailedError, match="written to while they were built") as caught:
        spill.require_unchanged()
    assert str(caught.value.where) == str(path)


def test_matrices_are_joined_row_by_row(tmp_path: Path) -> None:
    first, second = torch.randn(3, 5).bfloat16(), torch.randn(5, 7).bfloat16().t()[:, :5]
    found = joined([first, second], tmp_path)
    assert torch.equal(found, torch.cat([first, second])) and not list(tmp_path.iterdir())


_GIVES_BACK = """
import pathlib, sys, torch
from linux_side.fx.spill import Spill
from tests.unit.linux_side.fx.test_spill import SIDE, anonymous
tensors = [torch.ones(8, SIDE, SIDE) for _ in range(8)]  # 64 MiB
before = anonymous()
Spill(pathlib.Path(sys.argv[1])).move(tensors)
assert all(tensor.sum() == 8 * SIDE * SIDE for tensor in tensors)
print((before - anonymous()) >> 20)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux reports anonymous memory")
def test_memory_is_given_back(tmp_path: Path) -> None:
    """Runs in a process of its own, because malloc keeps freed memory after tests that have used much."""
    command = [sys.executable, "-c", _GIVES_BACK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(done.stdout) > 60
