"""ONNX models with partitions for engines compute what the original model does: sizes, state, changed inputs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("onnx")
import onnx
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tests.integration.harness import Built, assert_right, build_here
from tests.integration.test_session_state import Exchange, Sums, Swap
from tests.unit.windows_side.onnxruntime.conftest import runtime  # noqa: F401 - a fixture
from toolchain.errors import MalformedArtifactError
from toolchain.formats.engine_folder import verify_engine_folder, write_engine_folder
from toolchain.formats.onnx_file import verify_onnx, write_onnx
from windows_side.onnxruntime.session import OnnxSession

if TYPE_CHECKING:
    from tests.unit.windows_side.onnxruntime.reference import ReferenceRuntime

pytestmark = pytest.mark.rtx


class Sizes(nn.Module):
    """A model that returns sizes and numbers computed from them, and tensors whose names are no identifiers."""

    def forward(self, images: dict[str, Tensor], flag: bool, scale: Tensor) -> dict[str, Any]:
        left = images["left"]
        batch, width = left.shape[0], left.shape[1]
        sizes = {"rows": batch, "area": batch * width}
        return {"sum": torch.relu(left * scale), "left": left, **sizes, "none": None, "flag": flag}


class Bytes(nn.Module):
    """A model that takes pictures as bytes, and returns masks and integers."""

    def forward(self, pictures: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
        batch = pictures.shape[0]
        x = pictures.float().view(batch, 3, -1) * scale
        y = torch.relu(x - 30.0)
        return y.view(-1, 12), y.flatten(1), (y.sum(-1) > 100), y.mean(1).unsqueeze(1).to(torch.int32)


class Quantized(nn.Module):
    """A view by a dynamic size, an alias and casts between engines, and a value that three engines read."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(8, 8), nn.Linear(4, 8), nn.Linear(8, 8)

    def forward(self, pictures: Tensor, scale: Tensor) -> tuple[Any, ...]:
        h = torch.relu(self.first(pictures.float() * scale))
        rows = h.shape[0]
        y = torch.relu(self.second(h.view(2 * rows, 4) * scale))
        q = (y.abs().clamp(max=1.0) * 255).to(torch.uint8)  # TensorRT has no such cast
        return self.third(q.float() / 255 * scale) + h.clone().sum(), h, y.sum(-1).to(torch.int32), rows


def _engines(reference: ReferenceRuntime, built: Built) -> None:
    for engine in built.artifact.engines:
        partition = built.partitions[engine.info.name]

        def run(*inputs: Any, partition: Any = partition) -> tuple[Any, ...]:
            with torch.no_grad():
                result = partition(*(torch.from_numpy(array.copy()) for array in inputs))
            return tuple(t.numpy() for t in (result if isinstance(result, (tuple, list)) else [result]))

        reference.functions[engine.sha256[:32]] = run


@pytest.mark.parametrize(("model", "inputs"), [(Sums, 1), (Swap, 1), (Exchange, 2)])
def test_state_goes_on_and_inputs_are_changed(
    model: type[nn.Module],
    inputs: int,
    runtime: ReferenceRuntime,  # noqa: F811
    tmp_path: Path,
) -> None:
    example = tuple(torch.zeros(2, 3) for _ in range(inputs))
    built = build_here(model(), example, folder=tmp_path, require_no_torch=True)
    _engines(runtime, built)
    original = model()
    torch.manual_seed(0)
    with OnnxSession(built.artifact) as session:
        for _ in range(4):
            values = [torch.randn(2, 3) for _ in range(inputs)]
            ours, theirs = ([value.clone() for value in values] for _ in range(2))
            got, want = session.run_leaves([t.numpy() for t in ours]), pytree.tree_leaves(original(*theirs))
            for a, b in zip([*map(torch.as_tensor, got), *ours], [*want, *theirs], strict=True):
                assert torch.equal(a, b)
    _assert_first_values_are_checked(built, tmp_path / "model.onnx")


def _assert_first_values_are_checked(built: Built, path: Path) -> None:
    write_onnx(built.artifact, path)
    verify_onnx(path)
    loaded = onnx.load(path)
    for tensor in loaded.graph.initializer:
        before = tensor.raw_data
        tensor.raw_data = b"\1" + before[1:]
        path.write_bytes(loaded.SerializeToString(deterministic=True))
        with pytest.raises(MalformedArtifactError, match="the buffer"):
            verify_onnx(path)
        tensor.raw_data = before


def test_casts_of_inputs_and_outputs_become_operators(
    runtime: ReferenceRuntime,  # noqa: F811
    tmp_path: Path,
) -> None:
    model, example = Bytes(), (torch.zeros(4, 3, 4, 3, dtype=torch.uint8), torch.tensor(1.0))
    built = build_here(model, example, folder=tmp_path, dynamic=("pictures.0=2:4:8",), require_no_torch=True)
    _engines(runtime, built)
    with OnnxSession(built.artifact) as session:
        for batch in (2, 5):
            call = (torch.randint(0, 255, (batch, 3, 4, 3), dtype=torch.uint8), torch.tensor(0.5))
            got, want = session.run_leaves([value.numpy() for value in call]), model(*call)
            for a, b in zip(got, want, strict=True):
                assert torch.equal(torch.as_tensor(a), b)
    assert {node.op_type for node in runtime.model.graph.node} == {"EPContext", "Cast"}
    write_engine_folder(built.artifact, tmp_path / "engines")
    kinds = {step.kind for step in verify_engine_folder(tmp_path / "engines").manifest.steps}
    assert kinds >= {"engine", "cast"}


def test_several_engines_have_one_name_for_each_value(
    runtime: ReferenceRuntime,  # noqa: F811
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    model, example = Quantized(), (torch.zeros(4, 8, dtype=torch.uint8), torch.tensor(1.0))
    built = build_here(
        model, example, folder=tmp_path, dynamic=("pictures.0=2:4:8",), torch_executed_ops=["aten.view", "aten.clone"]
    )
    engines = built.artifact.manifest.engines
    assert len(engines) == 3
    bindings = [([b.name for b in e.inputs], [b.name for b in e.outputs]) for e in engines]
    made = [name for _, outputs in bindings for name in outputs]
    assert len(set(made)) == len(made)
    assert bindings[0][1] == ["output0"]  # as Torch-TensorRT has it
    assert all("scale" in inputs for inputs, _ in bindings)
    assert_right(built, model, (torch.randint(0, 255, (5, 8), dtype=torch.uint8), torch.tensor(0.03)))
    _engines(runtime, built)
    with OnnxSession(built.artifact) as session:
        for batch in (2, 5):
            call = (torch.randint(0, 255, (batch, 8), dtype=torch.uint8), torch.tensor(0.03))
            got, want = session.run_leaves([value.numpy() for value in call]), model(*call)
            for a, b in zip(got, want, strict=True):
                torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), rtol=0, atol=0)
    graph = runtime.model.graph
    assert {node.op_type for node in graph.node} > {"EPContext", "Cast", "Reshape"}
    # onnxruntime infers no types of engines' outputs.
    assert {value.name for value in (*graph.value_info, *graph.output)} >= set(made)
    write_onnx(built.artifact, tmp_path / "model.onnx")
    assert len(verify_onnx(tmp_path / "model.onnx").source.manifest.engines) == 3
    write_engine_folder(built.artifact, tmp_path / "engines")
    kinds = [step.kind for step in verify_engine_folder(tmp_path / "engines").manifest.steps]
    assert kinds.index("cast", kinds.index("engine")) < len(kinds) - kinds[::-1].index("engine")


def test_sizes_are_whole_numbers_as_python_computes_them(
    runtime: ReferenceRuntime,  # noqa: F811
    tmp_path: Path,
) -> None:
    model, example = Sizes(), ({"left": torch.ones(4, 3)}, True, torch.tensor(2.0))
    built = build_here(model, example, folder=tmp_path, dynamic=("images.left.0=2:4:8",), require_no_torch=True)
    _engines(runtime, built)
    names = [spec.name for spec in built.artifact.manifest.outputs]
    with OnnxSession(built.artifact) as session:
        for batch in (2, 5, 8):
            call = ({"left": torch.randn(batch, 3)}, True, torch.tensor(-1.5))
            want = pytree.tree_leaves(model(*call))
            got = session.run_leaves([v.numpy() if isinstance(v, Tensor) else v for v in pytree.tree_leaves(call)])
            for name, a, b in zip(names, got, want, strict=True):
                assert torch.equal(torch.as_tensor(a), b) if isinstance(b, Tensor) else a == b, name
