"""Artifacts that were built for Windows without a GPU, on this GPU: numbers, outputs, streams and errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.gpu.conftest import close, copied, record, tensors
from toolchain import open_artifact
from toolchain.errors import IncompatibleError, UsageError
from windows_side import LoadedModel, load
from windows_side.execution.samples import Call, sample_call
from windows_side.verification.golden import compare_golden


def loaded(path: Path, **options: bool) -> tuple[LoadedModel, Call]:
    model = load(path, allow_unlisted_gpu=True, **options)
    with open_artifact(path) as opened:
        return model, sample_call(opened, model.device)


@pytest.mark.parametrize("cuda_graphs", [False, True], ids=["launched", "graphs"])
def test_numbers_agree_with_golden(windows_artifact: Path, artifact: Path, cuda_graphs: bool) -> None:
    model = load(artifact, allow_unlisted_gpu=True, cuda_graphs=cuda_graphs)
    with open_artifact(artifact) as opened:
        errors = compare_golden(opened, model)
    for error in errors:
        record(
            {"against": "golden", "artifact": windows_artifact.stem, "output": error.name, "cuda_graphs": cuda_graphs,
             "relative_l2": error.relative_l2, "max_relative": error.max_relative, "cosine": error.cosine,
             "allowed_l2": error.tolerance.relative_l2, "allowed_max": error.tolerance.max_relative}
        )  # fmt: skip
    assert errors and all(error.within for error in errors)


@pytest.mark.parametrize("cuda_graphs", [False, True], ids=["launched", "graphs"])
def test_outputs_of_one_call_outlive_the_next(artifact: Path, cuda_graphs: bool) -> None:
    model, (args, kwargs) = loaded(artifact, cuda_graphs=cuda_graphs)
    first = tensors(model(*args, **kwargs))
    kept = [tensor.clone() for tensor in first]
    args, kwargs = torch.utils._pytree.tree_map_only(
        torch.Tensor, lambda t: t.flip(0) if t.dim() else t, (args, kwargs)
    )
    for _ in range(3):
        model(*args, **kwargs)
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(first, kept, strict=True))


@pytest.mark.parametrize("cuda_graphs", [False, True], ids=["launched", "graphs"])
def test_on_side_streams_in_turn(artifact: Path, cuda_graphs: bool) -> None:
    model, call = loaded(artifact, cuda_graphs=cuda_graphs)
    args, kwargs = copied(call)
    want = tensors(model(*args, **kwargs))
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in range(3)]
    results = []
    for turn in range(12):
        with torch.cuda.stream(streams[turn % 3]):
            args, kwargs = copied(call)
            results.append(tensors(model(*args, **kwargs)))
    torch.cuda.synchronize()
    for got in results:
        close(got, want)


def test_a_windows_artifact_is_refused_here(windows_artifact: Path) -> None:
    with pytest.raises(IncompatibleError, match="windows-x86_64"):
        load(windows_artifact)


def test_a_gpu_off_the_list_is_refused_unless_allowed(artifact: Path) -> None:
    with open_artifact(artifact) as opened:
        listed = opened.manifest.target.compute_capabilities
    here = "sm_{}{}".format(*torch.cuda.get_device_capability())
    if here in listed:
        pytest.skip("this GPU is on the engine's list")
    with pytest.raises(IncompatibleError, match="gpu"):
        load(artifact)


def test_every_tensor_of_the_graph_is_on_the_gpu(artifact: Path) -> None:
    model = load(artifact, allow_unlisted_gpu=True)
    devices = {t.device.type for t in tensors([model.program.state_dict, model.program.constants])}
    for node in model.program.graph.nodes:
        devices |= {t.device.type for t in tensors(node.meta.get("val"))}
        if "device" in node.kwargs and node.kwargs["device"] is not None:
            devices.add(torch.device(node.kwargs["device"]).type)
    assert devices == {"cuda"}


def test_a_loaded_program_is_saved_again_as_a_live_one(artifact: Path, tmp_path: Path) -> None:
    model, call = loaded(artifact)
    saved = tmp_path / "live.pt2"
    torch.export.save(model.program, saved)
    again = torch.export.load(saved)
    assert not any("no_op" in str(node.target) for node in again.graph.nodes)
    golden = model.manifest.golden
    assert golden is not None
    allowed = max(tolerance.relative_l2 for tolerance in golden.tolerance.values())  # other kernels, not other numbers
    results = []
    for callee in (again.module(check_guards=False), model):
        args, kwargs = copied(call)
        results.append(tensors(callee(*args, **kwargs)))
    close(*results, tolerance=allowed)


def test_wrong_inputs_are_named(artifact: Path) -> None:
    model, (args, kwargs) = loaded(artifact)
    name = model.manifest.inputs[0].name
    with pytest.raises(UsageError, match=f"'{name}' is on cpu"):
        model(*torch.utils._pytree.tree_map_only(torch.Tensor, lambda t: t.cpu(), args),
              **{k: v.cpu() if isinstance(v, torch.Tensor) else v for k, v in kwargs.items()})  # fmt: skip
