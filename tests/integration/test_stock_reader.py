"""Stock torch and Torch-TensorRT read our artifacts, in a process that cannot import trtcross."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.warm import warm_builds
from toolchain import open_artifact
from toolchain.container.reader import Container

pytestmark = [pytest.mark.rtx, pytest.mark.xdist_group("stock reader")]

# The stand-ins are needed without a GPU: torch_tensorrt asks for one when it is imported.
READER = """
import base64, hashlib, json, pickle, sys
class NoTrtcross:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("toolchain", "linux_side", "windows_side"):
            raise ImportError(name)
sys.meta_path.insert(0, NoTrtcross())
import torch
if not torch.cuda.is_available():
    torch.cuda.get_device_capability = lambda *a: (8, 6)
    torch.cuda.current_device = lambda: 0
import torch_tensorrt
result = {}
for path in sys.argv[1:]:
    program = torch.export.load(path)
    calls = [n for n in program.graph.nodes if "no_op_placeholder_for_execute_engine" in str(n.target)]
    result[path] = {
        "engines": [hashlib.sha256(base64.b64decode(n.args[4], validate=True)).hexdigest() for n in calls],
        "metadata": [sorted(pickle.loads(base64.b64decode(n.args[8]))) for n in calls],
        "devices": sorted({n.meta["val"].device.type for n in program.graph.nodes
                           if isinstance(n.meta.get("val"), torch.Tensor)}),
        "ranges": len(program.range_constraints),
    }
print("RESULT" + json.dumps(result))
"""


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    from linux_side import build

    folder = tmp_path_factory.mktemp("stock")
    mixed = {"dynamic": ["x.0=1:4:8"], "torch_executed_ops": ["aten.arange.start_step", "aten.full.default"]}
    for name, options in {"mixed": mixed, "nested": {}, "efficientnet_lite0": {"golden": 2}, "minilm": {}}.items():
        with warm_builds():
            build(f"examples.models:{name}", folder / f"{name}.pt2", **options).close()
    return sorted(folder.glob("*.pt2"))


def test_stock_torch_reads_them_golden_and_all(artifacts: list[Path]) -> None:
    command = [sys.executable, "-c", READER, *map(str, artifacts)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", timeout=600)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.rpartition("RESULT")[2])
    for path in artifacts:
        with open_artifact(path) as artifact:
            assert result[str(path)]["engines"] == [engine.sha256 for engine in artifact.engines]
        assert result[str(path)]["devices"] == ["cuda"]
        assert all(names == ["inout_symexprs", "output_tensors_are_unowned"] for names in result[str(path)]["metadata"])
    assert result[str(next(path for path in artifacts if path.stem == "mixed"))]["ranges"] == 1


@pytest.mark.parametrize("name", ["efficientnet_lite0", "minilm"])
def test_a_real_model_is_one_engine_and_nothing_in_pytorch(artifacts: list[Path], name: str) -> None:
    with open_artifact(next(path for path in artifacts if path.stem == name)) as artifact:
        assert len(artifact.engines) == 1 and not artifact.manifest.fallback
        artifact.check_integrity()


def test_no_pickle_but_the_metadata_that_stock_readers_unpickle(artifacts: list[Path]) -> None:
    for path in artifacts:
        container = Container(path)
        try:
            assert container.entry("data/sample_inputs/model.pt").size == 0
            for name in container.entries:
                if name.endswith("_config.json"):
                    config = json.loads(container.read(name))["config"]
                    assert not any(payload["use_pickle"] for payload in config.values())
        finally:
            container.close()
