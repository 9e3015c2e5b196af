"""Files of other kinds are recognized by their first bytes, as ARTIFACT and as MODEL, without importing torch."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from linux_side.driver.building import build
from toolchain.artifact import open_artifact
from toolchain.container.file_kind import file_kind
from toolchain.errors import MalformedArtifactError, UsageError


def archive(*names: str, compression: int = zipfile.ZIP_STORED) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", compression) as file:
            for name in names:
                file.writestr(name, b"x" * 100)

    return write


def content(data: bytes) -> Callable[[Path], None]:
    return lambda path: bytes_of(path, data)


def bytes_of(path: Path, data: bytes) -> None:
    path.write_bytes(data)


KINDS: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "weights.pth": (archive("w/data.pkl", "w/data/0", "w/version"), "a file of weights (torch.save)", "a factory"),
    "traced.pt": (
        archive("t/data.pkl", "t/code/t.py", compression=zipfile.ZIP_DEFLATED),
        "a TorchScript module",
        "was scripted",
    ),
    "old.pth": (content(pickle.dumps({"a": 1}, 2)), "a pickle", "a factory"),
    "some.pkl": (content(pickle.dumps({"a": 1}, 4)), "a pickle", "a factory"),
    "w.safetensors": (content(struct.pack("<Q", 40) + b'{"a": {}}' + b" " * 40), "only weights", "--task"),
    "model.onnx": (content(b"\x08\x0a\x12\x07pytorch\x1a\x05" + b"2.14.1"), "an ONNX model", "exported from"),
    "model.engine": (content(b"vtrt" + bytes(60)), "a TensorRT engine", "PyTorch model"),
    "model.gguf": (content(b"GGUF" + bytes(60)), "a GGUF file", "PyTorch model"),
    "model.h5": (content(b"\x89HDF\r\n\x1a\n" + bytes(60)), "an HDF5 file", "PyTorch model"),
    "zero.pt2": (content(b""), "an empty file", "write it again"),
    "pointer.pt2": (content(b"version https://git-lfs.github.com/spec/v1\n"), "Git LFS", "git lfs pull"),
    "notes.txt": (content(b"some words, and more of them\n"), "a text file", "./file.py:factory"),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_file_of_another_kind_is_named(name: str, tmp_path: Path) -> None:
    write, what, remedy = KINDS[name]
    write(tmp_path / name)
    with pytest.raises(MalformedArtifactError) as artifact:
        open_artifact(tmp_path / name)
    with pytest.raises(UsageError) as model:
        build(tmp_path / name, tmp_path / "out.pt2")
    for error, given in ((artifact.value, "an artifact"), (model.value, "a program that torch.export.save wrote")):
        assert what in error.problem and f"not {given}" in error.problem and remedy in str(error.remedy)
        assert error.where == str(tmp_path / name)


def test_programs_and_what_is_unknown_are_nothing_else(tmp_path: Path) -> None:
    archive("p/models/model.json", "p/data/weights/0")(tmp_path / "program.pt2")
    archive("serialized_exported_program.json")(tmp_path / "old.pt2")
    content(bytes(range(200, 250)))(tmp_path / "unknown")
    content(b"PK\3\4" + bytes(100))(tmp_path / "cut.pt2")
    assert not any(map(file_kind, tmp_path.iterdir())) and file_kind(tmp_path / "none") is None


def test_folders_and_python_files_get_the_command_that_takes_them(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("")
    with pytest.raises(UsageError, match="this is a folder") as folder:
        open_artifact(tmp_path)
    with pytest.raises(UsageError, match="Python file") as script:
        build(tmp_path / "net.py", tmp_path / "out.pt2")
    assert f"trtcross select {tmp_path}" in str(folder.value.remedy)
    assert f"{tmp_path / 'net.py'}:FACTORY" in str(script.value.remedy)
