"""`trtcross build` by the real builder: what the artifact holds, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT, Trtcross
from tests.integration.waiting import running, started, wait_for
from toolchain import open_artifact
from toolchain.container.entry_names import MANIFEST_ENTRY

pytestmark = [pytest.mark.rtx, pytest.mark.xdist_group("build")]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, trtcross: Trtcross) -> Path:
    out = tmp_path_factory.mktemp("tiny") / "tiny.pt2"
    result = trtcross("build", "tests.models:tiny", "-o", out, "--golden", 2)
    assert result.returncode == 0, result.stderr
    for phase in ("export", "lower", "convert", "serialize", "write"):
        assert f"[{phase}] done in" in result.stdout
    return out


def contents(path: Path) -> dict[str, bytes]:
    """Returns every entry except the manifest, and the manifest without the members that may differ."""
    with open_artifact(path) as artifact:
        entries = {name: artifact.container.read(name) for name in artifact.container.entries}
    manifest = json.loads(entries.pop(MANIFEST_ENTRY))
    del manifest["created"], manifest["build"]
    return {**entries, MANIFEST_ENTRY: json.dumps(manifest).encode()}


def test_the_artifact_says_what_it_is(tiny: Path, warm_trtcross: Trtcross) -> None:
    result = warm_trtcross("inspect", tiny, "--digests", "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    manifest = document["manifest"]
    assert document["digests_checked"] and document["plan_headers_agree"]
    assert manifest["target"]["platform"] == "windows-x86_64" and manifest["target"]["runtime"].count(".") == 3
    assert manifest["inputs"] == [{"name": "x", "dtype": "float32", "device": "cuda:0", "shape": [2, 8], "value": None}]
    assert manifest["outputs"][0]["name"] == "output" and manifest["outputs"][0]["shape"] == [2, 4]
    assert manifest["coverage"]["operators"] == manifest["coverage"]["in_engines"] > 0
    assert manifest["golden"]["samples"] == 2 and manifest["stock_readable"]
    assert set(manifest["build"]["seconds"]) >= {"export", "lower", "convert", "serialize"}
    assert any("torch==" in line and "--index-url" in line for line in manifest["install"])


def test_verify_accepts_it_and_check_says_why_not_here(tiny: Path, warm_trtcross: Trtcross) -> None:
    assert warm_trtcross("verify", tiny, "--level", "structure").returncode == 0
    result = warm_trtcross("check", tiny, "--json")
    assert result.returncode == 3
    states = {item["name"]: item["state"] for item in json.loads(result.stdout)["requirements"]}
    assert states["platform"] == "not met" and states["runtime"] == "met"


def test_no_path_of_this_machine_is_in_the_file(tiny: Path) -> None:
    data = tiny.read_bytes()
    for trace in (str(ROOT), "site-packages", "stack_trace", "nn_module_stack"):
        assert trace.encode() not in data


@pytest.mark.usefixtures("warm_builds")
def test_different_gpus_in_one_process_give_the_bytes_of_two(tmp_path: Path, warm_trtcross: Trtcross) -> None:
    from linux_side import build

    masks = {"sm_86": 0x04, "sm_89": 0x08}
    for gpu, mask in masks.items():
        build("tests.models:tiny", tmp_path / f"here-{gpu}.pt2", gpus=[gpu]).close()
        result = warm_trtcross("build", "tests.models:tiny", "-o", tmp_path / f"child-{gpu}.pt2", "--gpu", gpu)
        assert result.returncode == 0, result.stderr
        assert contents(tmp_path / f"here-{gpu}.pt2") == contents(tmp_path / f"child-{gpu}.pt2")
        with open_artifact(tmp_path / f"here-{gpu}.pt2") as artifact:
            assert artifact.engines[0].plan_header().capability_mask == mask
            assert artifact.manifest.target.compute_capabilities == [gpu]


def test_the_callers_torch_is_not_touched(tmp_path: Path) -> None:
    from linux_side import build

    program = torch.export.export(torch.nn.Linear(4, 2).eval(), (torch.randn(1, 4),))
    before = set(sys.modules), torch.cuda.current_device
    build(program, tmp_path / "linear.pt2").close()
    assert torch.cuda.current_device is before[1]
    assert not any(name.split(".")[0] in ("torch_tensorrt", "tensorrt") for name in set(sys.modules) - before[0])


def test_a_saved_program_keeps_its_ranges_and_may_narrow_them(tmp_path: Path, warm_trtcross: Trtcross) -> None:
    batch = torch.export.Dim("batch", min=2, max=16)
    program = torch.export.export(
        torch.nn.Linear(4, 2).eval(), (torch.randn(4, 4),), dynamic_shapes={"input": {0: batch}}
    )
    source, out = tmp_path / "linear.pt2", tmp_path / "out.pt2"
    torch.export.save(program, source)
    assert warm_trtcross("build", source, "-o", out).returncode == 0
    with open_artifact(out) as artifact:
        (size, _) = artifact.manifest.inputs[0].shape or ()
        assert (size.min, size.max) == (2, 16)
    assert warm_trtcross("build", source, "-o", out, "--dynamic", "input.0=4:4:8").returncode == 0
    with open_artifact(out) as artifact:
        (size, _) = artifact.manifest.inputs[0].shape or ()
        assert (size.min, size.max) == (4, 8)
        assert next(iter(artifact.manifest.engines[0].profiles[0].values())).opt == [4, 4]
    result = warm_trtcross("build", source, "-o", out, "--dynamic", "input.0=1:4:32")
    assert result.returncode == 2 and "2 to 16" in result.stderr
    with open_artifact(out) as artifact:
        artifact.check_integrity()


@pytest.mark.usefixtures("warm_builds")
@pytest.mark.parametrize("precision, dtype", [("fp16", "float16"), ("bf16", "bfloat16")])
def test_precision_casts_inside_and_keeps_the_outside(tmp_path: Path, precision: str, dtype: str) -> None:
    from linux_side import build

    with build("tests.models:tiny", tmp_path / "cast.pt2", precision=precision) as artifact:
        assert artifact.manifest.inputs[0].dtype == "float32" and artifact.manifest.outputs[0].dtype == "float32"
        assert artifact.manifest.settings["precision"] == precision
        assert artifact.engines[0].size < 200_000
    full = build("tests.models:tiny", tmp_path / "full.pt2")
    assert full.engines[0].sha256 != artifact.engines[0].sha256
    full.close()


REFUSED = {
    "no such file": (["nowhere.pt2"], 2, "there is no model"),
    "no such module": (["nowhere.models:tiny"], 2, "no module 'nowhere'"),
    "no such factory": (["tests.models:nothing"], 2, "no 'nothing' in tests.models"),
    "factory raises": (["tests.models:raises"], 7, "the weights are gone"),
    "factory returns nonsense": (["tests.models:returns_nonsense"], 2, "must return"),
    "model fails": (["tests.models:failing"], 7, "never worked"),
    "no such input": (["tests.models:tiny", "--dynamic", "y.0=1:2:4"], 2, "no input 'y'"),
    "no such dimension": (["tests.models:tiny", "--dynamic", "x.7=1:2:4"], 2, "2 dimensions"),
    "not a range": (["tests.models:tiny", "--dynamic", "x.0=4:2:1"], 2, "not a dynamic dimension"),
    "no such platform": (["tests.models:tiny", "--target", "solaris"], 2, "no target platform"),
    "no such backend": (["tests.models:tiny", "--backend", "cuda"], 2, "no backend"),
    "no such precision": (["tests.models:tiny", "--precision", "fp8"], 2, "precision"),
    "no such GPU": (["tests.models:tiny", "--gpu", "sm_90"], 2, "no engine for sm_90"),
    "not a GPU": (["tests.models:tiny", "--gpu", "H100"], 2, "not a GPU compute capability"),
    "Turing with others": (["tests.models:tiny", "--gpu", "sm_75", "--gpu", "sm_86"], 2, "Turing"),
    "no full coverage": (["tests.models:unsupported", "--require-full-coverage"], 7, "aten.nextafter"),
    "custom operator": (["tests.models:custom"], 7, "trtcross_test.double"),
    "quantized": (["tests.models:quantized"], 7, "quantized"),
    "batch norm in training": (["tests.models:training_batch_norm"], 7, "model.eval()"),
    "no such operator": (["tests.models:tiny", "--torch-executed-op", "aten.nothing"], 2, "no operator"),
    "the other backend is missing": (["tests.models:tiny", "--backend", "tensorrt"], 8, "[tensorrt]"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_refused_with_its_reason_and_nothing_left(case: str, tmp_path: Path, warm_trtcross: Trtcross) -> None:
    arguments, code, words = REFUSED[case]
    out = tmp_path / "out.pt2"
    out.write_bytes(b"what was there before")
    result = warm_trtcross("build", *arguments, "-o", out, "--json")
    assert result.returncode == code, result.stderr
    assert words in result.stderr
    error = json.loads(result.stdout)["error"]
    assert error["exit_code"] == code and error["remedy"]
    assert [path.name for path in tmp_path.iterdir()] == ["out.pt2"]
    assert out.read_bytes() == b"what was there before"


def test_a_file_that_is_no_program(tmp_path: Path, warm_trtcross: Trtcross) -> None:
    source = tmp_path / "text.pt2"
    source.write_text("not a zip")
    result = warm_trtcross("build", source, "-o", tmp_path / "out.pt2")
    assert result.returncode == 2 and "not a program" in result.stderr


def test_a_program_without_example_inputs(tmp_path: Path, warm_trtcross: Trtcross) -> None:
    program = torch.export.export(torch.nn.Linear(4, 2).eval(), (torch.randn(1, 4),))
    program._example_inputs = None  # as a program that another tool made
    source = tmp_path / "bare.pt2"
    torch.export.save(program, source)
    result = warm_trtcross("build", source, "-o", tmp_path / "out.pt2")
    assert result.returncode == 2 and "no example inputs" in result.stderr
    assert warm_trtcross("build", source, "-o", tmp_path / "out.pt2", "--golden", 0).returncode == 0


def test_an_artifact_is_no_model(tiny: Path, tmp_path: Path, warm_trtcross: Trtcross) -> None:
    result = warm_trtcross("build", tiny, "-o", tmp_path / "out.pt2")
    assert result.returncode == 2 and "an artifact already" in result.stderr


def test_a_plain_program_is_no_artifact(tmp_path: Path, warm_trtcross: Trtcross) -> None:
    source = tmp_path / "plain.pt2"
    torch.export.save(torch.export.export(torch.nn.Linear(4, 2), (torch.randn(1, 4),)), source)
    result = warm_trtcross("inspect", source)
    assert result.returncode == 4 and "plain .pt2" in result.stderr


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting a small disk needs root")
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, warm_trtcross: Trtcross) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", disk], check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        (disk / "out.pt2").write_bytes(b"old")
        result = warm_trtcross("build", "tests.models:tiny", "-o", disk / "out.pt2")
        assert result.returncode == 7 and "space" in result.stderr
        assert [path.name for path in disk.iterdir()] == ["out.pt2"]
        assert (disk / "out.pt2").read_bytes() == b"old"
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting a small disk needs root")
def test_a_spool_that_fills_is_named(tmp_path: Path, warm_trtcross: Trtcross, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", disk], check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        monkeypatch.setenv("TMPDIR", str(disk))
        result = warm_trtcross("build", "tests.models:tiny", "-o", tmp_path / "out.pt2", "--no-cache")
        assert result.returncode == 7 and "is full" in result.stderr and "$TMPDIR" in result.stderr
        assert not list(disk.glob("trtcross-*")) and [path.name for path in tmp_path.iterdir()] == ["disk"]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_convert_keeps_the_engines_to_the_byte(tiny: Path, tmp_path: Path, warm_trtcross: Trtcross) -> None:
    out = tmp_path / "linux.pt2"
    assert warm_trtcross("convert", tiny, "--target", "linux-x86_64", "-o", out).returncode == 0
    with open_artifact(tiny) as before, open_artifact(out) as after:
        assert [e.sha256 for e in before.engines] == [e.sha256 for e in after.engines]
        assert after.engines[0].info.target_platform == "linux_x86_64"
        assert after.manifest.target.platform.value == "linux-x86_64"
    assert warm_trtcross("verify", out, "--level", "structure").returncode == 0


def test_load_says_that_the_platform_differs_and_offers_convert(tiny: Path, warm_trtcross: Trtcross) -> None:
    result = warm_trtcross("verify", tiny, "--level", "load")
    assert result.returncode == 3 and "trtcross convert" in result.stderr


def test_a_killed_build_leaves_no_process_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "toolchain", "build", "tests.integration.matrix_models:patient"]
    build = subprocess.Popen(
        [*command, "-o", str(tmp_path / "out.pt2"), "-q"], cwd=ROOT, env={**os.environ, "PATIENT": str(tmp_path)}
    )
    try:
        (child,) = wait_for(lambda: started(tmp_path))
    finally:
        build.kill()
        build.wait()
    assert child != build.pid
    wait_for(lambda: not running(child), 20)
