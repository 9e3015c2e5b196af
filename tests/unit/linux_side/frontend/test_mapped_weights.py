"""The weights of a saved program are mapped from its file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch")

from linux_side.frontend import source
from linux_side.frontend.program_file import read_program
from linux_side.fx.mapped_files import MappedFiles
from linux_side.options import BuildOptions
from toolchain.container.reader import Container
from toolchain.errors import BuildFailedError, UsageError

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux lists mappings")


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.large = torch.nn.Linear(1024, 512)
        self.small = torch.nn.Linear(512, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.small(self.large(x))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.export.save(torch.export.export(Model(), (torch.randn(2, 1024),)), tmp_path / "model.pt2")
    return tmp_path / "model.pt2"


def test_large_weights_are_mapped_and_all_have_their_values(saved: Path) -> None:
    program, _ = read_program(saved)
    large = program.state_dict["large.weight"]
    mapping = MappedFiles().at(large.data_ptr(), large.nbytes)
    assert mapping is not None and mapping.path == saved
    for name, value in Model().state_dict().items():
        assert torch.equal(program.state_dict[name], value), name


def test_a_damaged_weight_is_refused(saved: Path) -> None:
    container = Container(saved)
    entry = max(container.entries.values(), key=lambda entry: entry.size)
    container.close()
    with saved.open("r+b") as file:
        file.seek(entry.offset + 1000)
        file.write(b"\xff\xff")
    with pytest.raises(UsageError, match="the program is damaged: data/weights/weight_"):
        read_program(saved)


def test_a_program_that_is_written_to_while_it_is_loaded_is_refused(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_and_touch(path: Path) -> Any:
        found = read_program(path)
        with path.open("r+b") as file:
            file.write(file.read(1))
        return found

    monkeypatch.setattr(source, "read_program", read_and_touch)
    with pytest.raises(BuildFailedError, match="were written to while they were built"):
        source.load_source(str(saved), BuildOptions(golden=0))
