"""The file of outputs that ``run`` writes, with several writers at once and where it cannot be written."""

from __future__ import annotations

import sys
from multiprocessing import get_context
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from safetensors.torch import load, save

from toolchain.errors import UsageError
from windows_side.calling.files import write_outputs

SIZE = 2**20


def _write_for_ever(out: Path, outputs: dict[str, torch.Tensor]) -> None:
    while True:
        write_outputs(save(outputs), out)


@pytest.mark.skipif(sys.platform == "win32", reason="torch takes too long to import in three processes")
def test_two_runs_into_one_file_and_one_that_is_killed(tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    outputs = [{"y": torch.full((SIZE,), value)} for value in (1.0, 2.0)]
    runs = [get_context("fork").Process(target=_write_for_ever, args=(out, item)) for item in outputs]
    try:
        for run in runs:
            run.start()
        seen = set[float]()
        while len(seen) < 2:
            assert all(run.is_alive() for run in runs), "a run failed"
            seen |= _values(out)
        runs[0].kill()
        runs[0].join()
        while _values(out) != {2.0}:
            assert runs[1].is_alive()
    finally:
        for run in runs:
            run.kill()
            run.join()
    assert _values(out) == {2.0}


def _values(out: Path) -> set[float]:
    if not out.exists():
        return set()
    found = load(out.read_bytes())["y"]
    assert found.min() == found.max(), "a part of each run's"
    return {found[0].item()}


def test_a_place_where_nothing_can_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for out in (tmp_path / "none" / "out.safetensors", tmp_path / "folder"):
        with pytest.raises(UsageError, match="the outputs cannot be written") as caught:
            write_outputs(save({"y": torch.ones(2)}), out)
        assert caught.value.where == str(out)
