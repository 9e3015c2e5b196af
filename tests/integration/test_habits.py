"""Models as people have them: in a file, compiled by torch, with an example by name or on the meta device."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from linux_side.driver.building import build
from tests.integration.warm import warm_builds
from toolchain.artifact import open_artifact

pytestmark = pytest.mark.rtx

MODEL = """
import torch
from layers import SIZE

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(SIZE, SIZE)

    def forward(self, x, scale):
        return torch.relu(self.linear(x)) * scale

def factory():
    model = torch.compile(Net().eval())
    return model, {"scale": torch.ones(1), "x": torch.empty(2, SIZE, device="meta")}

if __name__ == "__main__":
    raise SystemExit("as a script it does something else")
"""


def test_a_file_in_another_folder_is_built_whatever_is_in_this_one_and_an_edit_beside_it_is_a_new_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRTCROSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TRTCROSS_CACHE_SIZE", "1GiB")
    for name in ("torch", "torch_tensorrt", "select", "toolchain", "linux_side", "sympy"):  # of the current folder
        (tmp_path / f"{name}.py").write_text("raise SystemExit('it was imported')")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model.py").write_text(MODEL)
    model, out, keys = f"{tmp_path / 'models' / 'model.py'}:factory", tmp_path / "out.pt2", []
    # Where a new Python looks for its modules is told by one that begins.
    for size, start in ((8, nullcontext), (8, warm_builds), (16, warm_builds)):
        (tmp_path / "models" / "layers.py").write_text(f"SIZE = {size}")
        with start():
            build(model, out).close()
        with open_artifact(out) as artifact:
            manifest = artifact.manifest
        assert manifest.model.name == "factory" and len(manifest.engines) == 1 and not manifest.fallback
        assert {spec.name: spec.shape for spec in manifest.inputs} == {"scale": [1], "x": [2, size]}
        keys.append((manifest.build.cache_key, manifest.build.from_cache))
    assert [cached for _, cached in keys] == [False, True, False]
    assert keys[0][0] == keys[1][0] != keys[2][0]
