"""An artifact as a folder of plain engines: its contents, and that every byte is checked."""

from __future__ import annotations

import json
import shutil
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from tests.conftest import ROOT
from toolchain import open_artifact
from toolchain.container.entry_names import GOLDEN_ENTRY
from toolchain.errors import IncompatibleError, MalformedArtifactError, UsageError
from toolchain.formats.convert import verify_converted
from toolchain.formats.engine_folder import verify_engine_folder, write_engine_folder
from toolchain.formats.folder_models import FolderManifest, folder_schema_text
from toolchain.formats.plugins import plugins, set_up_lines
from toolchain.io.hashing import file_digest

SCHEMA1 = ROOT / "tests" / "compatibility" / "schema1"


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model with state, in buffers that its engine writes in place."""
    out = tmp_path_factory.mktemp("folder") / "engines"
    with open_artifact(SCHEMA1 / "kv_cache.pt2") as artifact:
        write_engine_folder(artifact, out)
    return out


def test_the_folder_says_how_its_engines_are_called(written: Path) -> None:
    facts = FolderManifest.model_validate(json.loads((written / "engines.json").read_text()))
    with open_artifact(SCHEMA1 / "kv_cache.pt2") as artifact:
        [engine], manifest = artifact.engines, artifact.manifest
        assert (written / facts.engines[0].file).read_bytes() == engine.read()
        assert facts.artifact_manifest_sha256 == artifact.manifest_sha256
        golden = artifact.read_entry(GOLDEN_ENTRY)
    assert facts.engines[0].aliased_io == manifest.engines[0].aliased_io
    assert [state.name for state in facts.state] == ["keys", "values"]
    [step] = facts.steps
    values = {b.name: value for b, value in zip(facts.engines[0].inputs, step.inputs, strict=True)}
    assert values["query"] == next(spec.value for spec in facts.inputs if spec.name == "query")
    [sample] = facts.golden
    for tensor in (*sample.inputs, *sample.outputs):
        assert (written / tensor.file).read_bytes() in golden
        assert (written / tensor.file).stat().st_size == tensor.size
    assert facts.tolerance["float32"] == manifest.golden.tolerance["float32"]


def test_the_schema_that_is_shipped_is_the_models(written: Path) -> None:
    text = files("toolchain").joinpath("schema/engines-1.json").read_text("utf-8")
    assert text == folder_schema_text()
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(json.loads((written / "engines.json").read_bytes()), json.loads(text))


def test_every_file_of_a_folder_is_checked(written: Path, tmp_path: Path) -> None:
    assert len(verify_converted(written).files) == 14
    for number, file in enumerate(sorted(f.relative_to(written) for f in written.rglob("*") if f.is_file())):
        folder = tmp_path / str(number)
        shutil.copytree(written, folder)
        data = bytearray((folder / file).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / file).write_bytes(data)
        with pytest.raises(MalformedArtifactError):
            verify_engine_folder(folder)
        (folder / file).unlink()
        with pytest.raises((MalformedArtifactError, UsageError)):
            verify_converted(folder)


def test_a_foreign_file_in_the_folder_is_reported(written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "engines"
    shutil.copytree(written, folder)
    (folder / "golden" / "extra.bin").write_bytes(b"")
    with pytest.raises(MalformedArtifactError, match=r"'golden/extra\.bin', which is not one of its files"):
        verify_engine_folder(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege")
def test_a_link_to_a_folder_of_other_files_is_reported(written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "engines"
    shutil.copytree(written, folder)
    (folder / "more").symlink_to(written, target_is_directory=True)
    with pytest.raises(MalformedArtifactError, match=r"'more', which is not one of its files"):
        verify_engine_folder(folder)


def test_a_swapped_engine_is_reported_by_name(written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "engines"
    shutil.copytree(written, folder)
    with open_artifact(SCHEMA1 / "half.pt2") as other:
        (folder / "model.engine").write_bytes(other.engines[0].read())
    with pytest.raises(MalformedArtifactError, match=r"not the engine .* that the manifest lists") as caught:
        verify_engine_folder(folder)
    assert caught.value.where == str(folder / "model.engine")


def test_golden_files_that_were_changed_together_with_their_digests_are_reported(written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "engines"
    shutil.copytree(written, folder)
    [golden, *_] = sorted((folder / "golden").glob("0.input.*"))
    before, text = file_digest(golden), (folder / "engines.json").read_text("utf-8")
    golden.write_bytes(b"\1" + golden.read_bytes()[1:])
    (folder / "engines.json").write_bytes(text.replace(before, file_digest(golden)).encode())
    with pytest.raises(MalformedArtifactError, match="the golden files differ"):
        verify_engine_folder(folder)


@pytest.mark.timeout(60)
def test_more_samples_than_there_are_files_of_are_refused_at_once(written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "engines"
    shutil.copytree(written, folder)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["golden"]["samples"] = 10**15
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(MalformedArtifactError, match="not of the tensors that the manifest describes"):
        verify_engine_folder(folder)


def test_a_folder_with_something_in_it_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with open_artifact(SCHEMA1 / "static.pt2") as artifact, pytest.raises(UsageError, match="something already"):
        write_engine_folder(artifact, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_parts_that_need_pytorch_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with open_artifact(SCHEMA1 / "mixed.pt2") as artifact, pytest.raises(IncompatibleError, match="cumsum"):
        write_engine_folder(artifact, tmp_path / "engines")
    assert list(tmp_path.iterdir()) == []


def test_another_folder_is_no_folder_of_engines(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a folder of engines"):
        verify_converted(tmp_path)


def test_set_up_lines_name_the_plugin_that_holds_the_engines_release() -> None:
    with open_artifact(SCHEMA1 / "static.pt2") as artifact:
        manifest = artifact.manifest
    assert plugins().release_for(manifest.target.runtime) == "0.4.0"
    create, install = set_up_lines(manifest)
    assert create.endswith("-m venv .venv")
    assert install.endswith('-m pip install "onnxruntime>=1.24" onnxruntime-ep-nv-tensorrt-rtx-cu13==0.4.0')
    older = manifest.model_copy(update={"target": manifest.target.model_copy(update={"runtime": "1.3.0.35"})})
    assert "contains TensorRT-RTX 1.3.0.35" in set_up_lines(older)[0]
