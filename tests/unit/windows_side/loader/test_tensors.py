"""Our own reader of weights and buffers reads what torch has written, with the same sharing of memory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch")

from toolchain.container.reader import Container
from windows_side.loader.tensors import read_tensors


class Shared(torch.nn.Module):  # type: ignore[misc, unused-ignore]
    def __init__(self) -> None:
        super().__init__()
        whole = torch.arange(12.0)
        self.register_buffer("whole", whole)
        self.register_buffer("part", whole[2:6])
        self.register_buffer("turned", whole.view(3, 4).t())
        self.register_buffer("halves", torch.arange(5, dtype=torch.bfloat16))
        self.register_buffer("nothing", torch.zeros(0, 3, dtype=torch.int64))
        self.register_buffer("yes", torch.tensor(True))
        self.one, self.two = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
        self.two.weight = self.one.weight

    def forward(self, x: Any) -> Any:
        rest = self.halves.sum() + self.nothing.sum() + self.yes
        return self.two(self.one(x)) + self.whole.sum() + self.part + self.turned.sum() + rest


def test_tensors_are_those_that_torch_has_written(tmp_path: Path) -> None:
    program = torch.export.export(Shared(), (torch.zeros(4),))
    torch.export.save(program, tmp_path / "model.pt2")
    container = Container(tmp_path / "model.pt2")
    artifact: Any = SimpleNamespace(container=container, path=tmp_path / "model.pt2")
    want = program.state_dict
    found = read_tensors(artifact, list(want), torch.device("cpu"))
    container.close()
    assert found.keys() == want.keys() > {"whole", "part", "turned", "halves", "nothing", "yes", "one.weight"}
    for name, tensor in want.items():
        assert found[name].dtype == tensor.dtype and found[name].stride() == tensor.stride(), name
        assert torch.equal(found[name], tensor) and type(found[name]) is type(tensor), name
    found["whole"][3] = -1  # as a call that changes a buffer does
    assert found["part"][1] == -1 and found["turned"][3, 0] == -1
    with torch.no_grad():
        found["one.weight"].zero_()
    assert not found["two.weight"].any()
