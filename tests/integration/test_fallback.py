"""An operator that TensorRT refuses stays in PyTorch by itself, and is reported with its line and a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from linux_side.cache.notes import Notes
from linux_side.cache.store import BuildCache
from linux_side.driver.building import build
from linux_side.lowering import fallback
from linux_side.lowering import lower as lowering
from tests.integration.harness import assert_right, assert_same_wiring, build_here
from toolchain.errors import BuildFailedError, UsageError
from toolchain.manifest.models import fallback_warnings

pytestmark = pytest.mark.rtx

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randn(1, 8, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def _unmarked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes nonzero reach its converter, which raises in TensorRT-RTX.

    A build keeps it in PyTorch beforehand, because its sizes depend on data. No other operator of core ATen is known
    whose converter raises: every other one is rewritten or kept outside.
    """
    monkeypatch.setattr(lowering, "keep_data_sizes_in_torch", lambda gm: None)


class Rows(nn.Module):
    """A model with nonzero, whose converter raises in TensorRT-RTX."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return torch.nonzero(self.layer(x) > 0) * 2  # the line that is named


class Layered(nn.Module):
    """A model with int16, which TensorRT lacks: the operator that reads it stays in PyTorch, the rest is an engine."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x.float())
        return result


class Short(nn.Module):
    """A model with an int16 input, which TensorRT lacks, so that the network cannot even have its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float() / 2


class Projection(nn.Module):
    """GPT-2's projection to query, key and value, so small that the builder refuses it."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.weights = nn.ParameterList(torch.randn(16, 48) / 4 for _ in range(layers))
        self.bias = nn.Parameter(torch.randn(48))

    def forward(self, x: Tensor) -> Tensor:
        for weight in self.weights:
            flat = torch.addmm(self.bias, self.norm(x).view(-1, 16), weight).view(1, 8, 48)
            query, key, value = (part.view(1, 8, 2, 8).transpose(1, 2) for part in flat.split(16, 2))
            mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + mixed.transpose(1, 2).reshape(1, 8, 16)
        return x


class OnlyRows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.nonzero(x)


class NextAfter(nn.Module):
    """A model whose only operator has no converter."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.nextafter(x.relu(), x)


def in_torch(manifest: Any) -> dict[str, int]:
    return {item.operator: item.count for item in manifest.fallback}


@pytest.mark.usefixtures("_unmarked")
def test_an_operator_whose_converter_raises_stays_in_pytorch_and_is_named_with_its_line(tmp_path: Path) -> None:
    built = build_here(Rows(), (X,), folder=tmp_path)
    assert_same_wiring(built, X)
    assert in_torch(built.artifact.manifest) == {"aten.nonzero.default": 1}
    (text,) = fallback_warnings(built.artifact.manifest)
    line = next(n for n, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "the line that is" in text)
    assert text.startswith(
        f"aten.nonzero.default stays in PyTorch ({Path(__file__).name}:{line}): its converter raised"
    )
    assert "TensorRT-RTX" in text, "the converter's own words"


def test_the_operator_that_takes_what_tensorrt_has_no_type_for_stays_in_pytorch(tmp_path: Path) -> None:
    built = build_here(Short(), (torch.arange(4, dtype=torch.int16),), folder=tmp_path)
    assert in_torch(built.artifact.manifest) == {"aten._to_copy.default": 1}
    assert "torch.int16" in fallback_warnings(built.artifact.manifest)[0]


def test_the_one_operator_is_found_that_the_builder_refuses_and_its_like_in_other_layers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    built = build_here(Projection(3), (TOKENS,), folder=tmp_path)
    assert built.original is not None
    assert_same_wiring(built, TOKENS)
    assert_right(built, built.original, (TOKENS,))
    manifest = built.artifact.manifest
    assert in_torch(manifest) == {"aten.permute.default": 3}, "three of nine, one in each layer"
    assert len(built.artifact.engines) == 4
    assert built.attempts == 2, "those of the other layers are not found one by one"
    (text,) = fallback_warnings(manifest)
    assert "Myelin" in text and "test_fallback.py:" in text


@pytest.mark.usefixtures("_unmarked")
def test_full_coverage_refuses_with_the_operator_the_line_and_the_reason(tmp_path: Path) -> None:
    with pytest.raises(BuildFailedError, match=r"aten\.nonzero.*test_fallback\.py:\d+.*raised") as caught:
        build_here(Rows(), (X,), folder=tmp_path, require_full_coverage=True)
    assert caught.value.where == "--require-full-coverage" and caught.value.remedy
    with pytest.raises(BuildFailedError, match=r"1 operators would stay .*aten\.nextafter.*, .*test_fallback\.py:\d+"):
        build_here(NextAfter(), (X,), folder=tmp_path, require_full_coverage=True)


def test_an_artifact_that_needs_torch_is_refused_where_none_must_be_needed(tmp_path: Path) -> None:
    with pytest.raises(BuildFailedError, match=r"PyTorch, which runs .*aten\.nonzero\.default") as caught:
        build_here(Rows(), (X,), folder=tmp_path, require_no_torch=True)
    assert caught.value.where == "--require-no-torch"
    built = build_here(nn.Linear(8, 8), (X,), folder=tmp_path, require_no_torch=True)
    assert not in_torch(built.artifact.manifest)


@pytest.mark.usefixtures("_unmarked")
def test_a_fallback_that_leaves_nothing_for_tensorrt_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(BuildFailedError, match=r"can take no operator of this model \(aten\.nonzero.*raised"):
        build_here(OnlyRows(), (X,), folder=tmp_path)
    built = build_here(OnlyRows(), (X,), folder=tmp_path, allow_no_engine=True)
    assert torch.equal(built.run(X), X.nonzero())


def test_a_precision_that_the_gpus_lack_is_an_error_and_not_a_fallback_of_everything(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
    with pytest.raises(BuildFailedError, match="no engine in bfloat16 for these GPUs") as caught:
        build_here(model, (X,), folder=tmp_path, precision="bf16", gpus=["sm_75"])
    assert "fp16, fp32" in str(caught.value.remedy)


@pytest.mark.usefixtures("_unmarked")
def test_after_so_many_rebuilds_it_gives_up_and_says_what_it_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fallback, "MOST_REBUILDS", 0)
    with pytest.raises(BuildFailedError, match=r"kept in PyTorch: aten\.nonzero\.default stays in PyTorch") as caught:
        build_here(Rows(), (X,), folder=tmp_path)
    assert "--torch-executed-op" in str(caught.value.remedy)


def test_an_operator_that_the_model_lacks_may_not_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"does not call the operator aten\.relu_\.default") as caught:
        build_here(nn.ReLU(), (X,), folder=tmp_path, torch_executed_ops=["aten.relu_.default"])
    assert "aten.relu.default" in str(caught.value.remedy), "the nearest"


def test_one_that_is_computed_from_constants_may_be_asked_for(tmp_path: Path) -> None:
    """torch and Torch-TensorRT compute it while they lower the graph, so nothing of it is left to keep."""

    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weights", torch.arange(8.0))

        def forward(self, x: Tensor) -> Tensor:
            return x.relu() * torch.softmax(self.weights.contiguous(), 0)

    built = build_here(Weighted(), (X,), folder=tmp_path, torch_executed_ops=["aten._softmax.default"])
    assert built.original is not None
    assert_right(built, built.original, (X,))


def test_what_an_operator_becomes_stays_in_pytorch_with_it(tmp_path: Path) -> None:
    model = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8))
    built = build_here(model, (X,), folder=tmp_path, torch_executed_ops=["aten.layer_norm.default"])
    assert in_torch(built.artifact.manifest) == {"aten.native_layer_norm.default": 1}


@pytest.mark.usefixtures("_unmarked")
def test_the_next_build_of_the_same_model_does_not_fail_again(tmp_path: Path) -> None:
    cache = BuildCache(tmp_path / "cache", 2**30)
    notes = Notes(cache, "0" * 64)
    first = build_here(Rows(), (X,), folder=tmp_path, golden=0, notes=notes)
    second = build_here(Rows(), (X,), folder=tmp_path, golden=0, notes=notes)
    assert [first.attempts, second.attempts] == [2, 1]
    assert fallback_warnings(first.artifact.manifest) == fallback_warnings(second.artifact.manifest)
    other = build_here(Short(), (torch.arange(4.0),), folder=tmp_path, golden=0, notes=notes)
    assert not in_torch(other.artifact.manifest), "what is not in the model is passed over"
    (cache.folder / f"{'0' * 64}.json").write_text("[{]")
    assert build_here(Rows(), (X,), folder=tmp_path, golden=0, notes=notes).attempts == 2


@pytest.mark.usefixtures("warm_builds")
def test_a_build_warns_and_remembers_and_the_cache_warns_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_trtcross: Any
) -> None:
    monkeypatch.setenv("TRTCROSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TRTCROSS_CACHE_SIZE", "1GiB")
    model = tmp_path / "layered.pt2"
    torch.export.save(torch.export.export(Layered().eval(), (X.to(torch.int16),)), model)
    events: list[dict[str, Any]] = []
    artifact = build(model, tmp_path / "out.pt2", on_event=events.append, golden=0)
    warnings = fallback_warnings(artifact.manifest)
    (said,) = [event["text"] for event in events if event["event"] == "warning"]
    assert [said.replace(f"{Path(__file__).parent}/", "")] == warnings, "the artifact names no folder"
    key = artifact.manifest.build.cache_key
    (note,) = json.loads((tmp_path / "cache" / f"{key}.json").read_text())
    assert note["operator"] == "aten._to_copy.default" and note["reason"] in warnings[0]
    events.clear()
    build(model, tmp_path / "again.pt2", on_event=events.append, golden=0).close()
    assert [event["event"] for event in events] == ["cached", "warning"] and events[1]["text"] == warnings[0]
    assert warnings[0] in warm_trtcross("inspect", tmp_path / "again.pt2").stdout
    assert "1 build(s)" in warm_trtcross("store", "verify").stdout
    assert warm_trtcross("store", "prune", "--all").returncode == 0
    assert [path.name for path in (tmp_path / "cache").glob("*.json")] == ["times.json"]  # how long builds take
