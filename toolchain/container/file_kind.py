"""Recognizes files that are neither artifacts nor exported programs, by their first bytes and their entries' names."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from toolchain.container import zip_records
from toolchain.limits import DIRECTORY

_HEAD = 16


@dataclass(frozen=True)
class FileKind:
    """A kind of file that people pass by mistake.

    Attributes:
        what: the kind, as a noun with its article.
        build_from: how to build an artifact from such a file.
        recoverable: whether the same advice holds for a file that was passed as an artifact, since it may be a broken
            one.
    """

    what: str
    build_from: str
    recoverable: bool = False

    @property
    def open_instead(self) -> str:
        """The advice for a file that was passed as an artifact."""
        if self.recoverable:
            return self.build_from
        return f"give a .pt2 file that `trtcross build` wrote; to build one, {self.build_from}"


_MODEL = "load it into its model in a factory (./file.py:factory), and build that"
EMPTY = FileKind("an empty file", "get the file again, or write it again", recoverable=True)
WEIGHTS = FileKind("a file of weights (torch.save)", _MODEL)
PICKLE = FileKind("a pickle", _MODEL)
TORCHSCRIPT = FileKind(
    "a TorchScript module", "build the module that was scripted or traced: torch.export takes no TorchScript"
)
SAFETENSORS = FileKind(
    "a safetensors file, which holds only weights",
    f"give its folder with --task if transformers has the model; else {_MODEL}",
)
ONNX = FileKind("an ONNX model", "build the PyTorch model that it was exported from")
ENGINE = FileKind("a TensorRT engine", "build the PyTorch model: an engine has no manifest")
GGUF = FileKind("a GGUF file", "build the PyTorch model that it was converted from")
HDF5 = FileKind("an HDF5 file (Keras)", "build a PyTorch model")
POINTER = FileKind("a pointer of Git LFS", "run `git lfs pull`: the file itself was not fetched", recoverable=True)
TEXT = FileKind("a text file", "name a factory in it, if it is Python: ./file.py:factory")

_BEGINNINGS = {
    b"version https://": POINTER,
    b"GGUF": GGUF,
    b"\x89HDF\r\n": HDF5,
    b"vtrt": ENGINE,
    b"ftrt": ENGINE,
}
_PICKLE_PROTOCOLS = range(2, 6)
# Tags of a ModelProto's fields that may follow its first field, the version.
_ONNX_FIELDS = b"\x12\x1a\x22\x3a\x42"


def file_kind(path: str | os.PathLike[str]) -> FileKind | None:
    """Recognizes a file; None if it may be a program or an artifact, is unknown, or cannot be read."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(_HEAD)
            return _zip_kind(Path(path)) if head.startswith(b"PK") else _kind(head)
    except (OSError, ValueError, zip_records.ZipError):
        return None


def _kind(head: bytes) -> FileKind | None:
    if not head:
        return EMPTY
    for beginning, kind in _BEGINNINGS.items():
        if head.startswith(beginning):
            return kind
    if head[8:9] == b"{" and len(head) > 9 and 0 < int.from_bytes(head[:8], "little") < 2**32:
        return SAFETENSORS
    if head[0] == 0x80 and head[1:2] and head[1] in _PICKLE_PROTOCOLS:
        return PICKLE
    if head[0] == 0x08 and head[2:3] and head[2] in _ONNX_FIELDS:
        return ONNX
    return TEXT if all(byte in b"\t\n\r" or byte >= 0x20 for byte in head) and head.isascii() else None


def _zip_kind(path: Path) -> FileKind | None:
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(size - zip_records.TAIL_SIZE, 0))
        end = zip_records.read_end(file.read(), size)
        if DIRECTORY.excess(end.size):
            return None
        file.seek(end.offset)
        names = file.read(end.size)  # lengths and checksums stand between them, but a name can be found
    if b"/data.pkl" not in names:
        return None
    return TORCHSCRIPT if b"/code/" in names else WEIGHTS
