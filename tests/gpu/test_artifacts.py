"""Artifacts that were built for Windows with no GPU, on this GPU: numbers, ownership of outputs, refusals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils import _pytree as pytree

from toolchain import open_artifact
from toolchain.errors import IncompatibleError
from windows_side import LoadedModel, load
from windows_side.golden import compare_golden, read_golden


def golden_call(model: LoadedModel, path: Path) -> tuple[tuple, dict]:
    with open_artifact(path) as opened:
        inputs, _ = read_golden(opened)[0]
    placed = [leaf.to(model.device) if isinstance(leaf, torch.Tensor) else leaf for leaf in inputs]
    return pytree.tree_unflatten(placed, pytree.treespec_loads(model.manifest.call.in_spec))


def tensors(result: object) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]


def test_numbers_agree_with_golden(artifact: Path, record_property) -> None:  # type: ignore[no-untyped-def]
    model = load(artifact, allow_unlisted_gpu=True)
    with open_artifact(artifact) as opened:
        errors = compare_golden(opened, model)
    for error in errors:
        print(
            f"\nERROR {artifact.name} {opened.manifest.model.name} sample {error.sample} {error.name} "
            f"l2 {error.relative_l2:.3e} max {error.max_relative:.3e} cosine {error.cosine:.7f}"
        )
    assert errors and all(error.within for error in errors)


def test_outputs_of_one_call_outlive_the_next(artifact: Path) -> None:
    model = load(artifact, allow_unlisted_gpu=True)
    args, kwargs = golden_call(model, artifact)
    first = tensors(model(*args, **kwargs))
    kept = [tensor.clone() for tensor in first]
    other = pytree.tree_map_only(torch.Tensor, lambda t: t.flip(0) if t.dim() else t, (args, kwargs))
    model(*other[0], **other[1])
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(first, kept, strict=True))


def test_on_a_side_stream(artifact: Path) -> None:
    model = load(artifact, allow_unlisted_gpu=True)
    args, kwargs = golden_call(model, artifact)
    want = tensors(model(*args, **kwargs))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        got = tensors(model(*args, **kwargs))
    stream.synchronize()
    assert all(torch.allclose(a.float(), b.float(), rtol=1e-3, atol=1e-4) for a, b in zip(got, want, strict=True))


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
    devices = {t.device.type for t in [*model.program.state_dict.values(), *model.program.constants.values()]
               if isinstance(t, torch.Tensor)}  # fmt: skip
    for node in model.program.graph.nodes:
        devices |= {t.device.type for t in pytree.tree_leaves(node.meta.get("val")) if isinstance(t, torch.Tensor)}
        if "device" in node.kwargs and node.kwargs["device"] is not None:
            devices.add(torch.device(node.kwargs["device"]).type)
    assert devices == {"cuda"}


def test_a_loaded_program_is_saved_again_as_a_live_one(artifact: Path, tmp_path: Path) -> None:
    model = load(artifact, allow_unlisted_gpu=True)
    args, kwargs = golden_call(model, artifact)
    want = tensors(model(*args, **kwargs))
    saved = tmp_path / "live.pt2"
    torch.export.save(model.program, saved)
    again = torch.export.load(saved).module(check_guards=False)
    got = tensors(again(*args, **kwargs))
    assert all(torch.allclose(a.float(), b.float(), rtol=1e-3, atol=1e-4) for a, b in zip(got, want, strict=True))


BAD_ENGINES = {
    "wrong ABI version": "fields[0] = '9'",
    "too few fields": "del fields[5:]",
    "truncated engine": "fields[3] = fields[3][: len(fields[3]) // 2]",
}


@pytest.mark.parametrize("damage", list(BAD_ENGINES))
def test_bad_engine_info_is_an_error_and_no_crash(tmp_path: Path, damage: str) -> None:
    """In a process of its own, which must end by an exception."""
    from tests.gpu.conftest import ARTIFACTS

    program = f"""
import torch
from toolchain import open_artifact
from windows_side.runtime import load_runtime
from windows_side.replace import make_engine
with open_artifact({str(ARTIFACTS / "two_outputs-fp32.pt2")!r}) as artifact:
    load_runtime(artifact.manifest.target.backend)
    fields = list(artifact.placeholders[0].fields)
    fields[8] = "linux_x86_64"
    fields[3] = artifact.engines[0].read()
    {BAD_ENGINES[damage]}
    try:
        make_engine(fields)
    except Exception as error:
        print("REFUSED", type(error).__name__, str(error)[:300])
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    print(result.stdout, result.stderr[-500:])
    assert result.returncode == 0 and "REFUSED" in result.stdout
