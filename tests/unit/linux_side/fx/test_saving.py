"""The records that a saved program would have are known without saving it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch")

from linux_side.fx.saving import records_of, save
from toolchain.container.entry_names import GRAPH_ENTRY
from toolchain.container.reader import Container


def test_records_are_those_of_the_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8)).eval()
    model.register_buffer("shared", model[0].weight.detach()[1:])
    program = torch.export.export(model, (torch.randn(2, 8),))
    path = tmp_path / "model.pt2"
    save(program, path)
    records, container = records_of(program), Container(path)
    try:
        assert records.graph == container.read(GRAPH_ENTRY)
        weights = [name for name in container.entries if name.startswith("data/weights/")]
        assert len(weights) > 4
        assert {name: records.digests[name] for name in weights} == {name: container.sha256(name) for name in weights}
    finally:
        container.close()
