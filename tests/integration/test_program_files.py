"""``build`` accepts saved programs with any names of inputs, and from a machine with any devices."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from linux_side.driver.building import build
from linux_side.frontend.program_file import read_program
from tests.models import Tiny
from toolchain.errors import UsageError

pytestmark = [pytest.mark.rtx, pytest.mark.usefixtures("warm_builds")]


class Step(nn.Module):
    """A model with inputs of these names, in which an operator's name ends."""

    def forward(self, t: Tensor, lt: Tensor, default: Tensor, engine: Tensor) -> Tensor:
        return t + lt * default - engine


class Mixed(nn.Module):
    """A model with a parameter, a buffer, a constant that the graph makes on a device, and a lifted constant."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("steps", torch.arange(4.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.steps + torch.ones(4, device=x.device) + torch.tensor([1.0, 2.0, 3.0, 4.0])


def saved(module: nn.Module, args: tuple[Tensor, ...], path: Path) -> Path:
    torch.manual_seed(0)
    torch.export.save(torch.export.export(module.eval(), args), path)
    return path


def as_if_from_a_gpu(path: Path) -> Path:
    """Rewrites every device in a file, so that it is as a machine with a GPU writes it; there is no GPU here.

    The example inputs are a pickle in which storages name their device; those are rewritten too.
    """
    out = path.with_name("cuda.pt2")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as target:
        for info in source.infolist():
            data = source.read(info)
            if info.filename.endswith(".json"):
                data = json.dumps(json.loads(data, object_hook=on_cuda)).encode()
            elif info.filename.endswith("sample_inputs/model.pt"):
                data = pickled_on_cuda(data)
            target.writestr(info.filename, data)
    return out


def on_cuda(value: dict[str, object]) -> dict[str, object]:
    return {"type": "cuda", "index": 0} if value.keys() == {"type", "index"} else value


def pickled_on_cuda(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as target:
        for info in source.infolist():
            entry = source.read(info)
            if info.filename.endswith("data.pkl"):
                entry = entry.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
            target.writestr(info.filename, entry)
    return buffer.getvalue()


def test_no_input_name_makes_an_artifact_of_a_program(tmp_path: Path) -> None:
    path = saved(Step(), (torch.ones(2),) * 4, tmp_path / "step.pt2")
    with build(str(path), tmp_path / "artifact.pt2", cache=False) as artifact:
        assert [value.name for value in artifact.manifest.inputs] == ["t", "lt", "default", "engine"]


def test_an_artifact_is_still_distinguished_from_a_program(tmp_path: Path) -> None:
    path = saved(Tiny(), (torch.ones(2, 8),), tmp_path / "tiny.pt2")
    build(str(path), tmp_path / "artifact.pt2", cache=False).close()
    with pytest.raises(UsageError, match="an artifact already"):
        read_program(tmp_path / "artifact.pt2")


def test_a_program_of_a_gpu_machine_builds_on_one_without(tmp_path: Path) -> None:
    """The program is an export of the CPU with rewritten devices, because this machine has no GPU."""
    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    on_cpu = saved(Mixed(), (x,), tmp_path / "cpu.pt2")
    path = as_if_from_a_gpu(on_cpu)
    with pytest.raises(Exception, match=r"(?i)cuda|warnings above"):
        torch.export.load(path)
    program, _ = read_program(path)
    values = tree_leaves([node.meta.get("val") for node in program.graph.nodes])
    assert {value.device.type for value in values if isinstance(value, Tensor)} == {"cpu"}
    assert program.example_inputs is not None
    assert torch.equal(program.example_inputs[0][0], x)
    assert torch.equal(program.module()(x), torch.export.load(on_cpu).module()(x))
    with build(str(path), tmp_path / "artifact.pt2", cache=False) as artifact:
        assert artifact.manifest.golden is not None


def test_no_code_in_example_inputs_runs_for_the_sake_of_a_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = as_if_from_a_gpu(saved(Mixed(), (torch.ones(2, 4),), tmp_path / "cpu.pt2"))
    modes = []
    real = torch.load

    def load(*args: object, **kwargs: Any) -> object:
        modes.append(kwargs.get("weights_only"))
        return real(*args, **kwargs)

    monkeypatch.setattr(torch, "load", load)
    read_program(path)
    assert modes
    assert all(modes)


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04"])
def test_no_program_is_called_no_program(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"not a program that torch\.export\.save wrote"):
        read_program(path)


def test_a_program_that_torch_cannot_read_is_a_usage_error(tmp_path: Path) -> None:
    path = saved(Tiny(), (torch.ones(2, 8),), tmp_path / "tiny.pt2")
    out = tmp_path / "other.pt2"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as target:
        for info in source.infolist():
            data = source.read(info)
            target.writestr(
                info.filename, data.replace(b"torch.ops.aten.relu.default", b"torch.ops.aten.no_such.default")
            )
    with pytest.raises(UsageError, match=r"torch .* cannot read this program"):
        read_program(out)
