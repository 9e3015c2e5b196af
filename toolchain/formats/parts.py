"""What converted files have in common: engines as files of their own, and the artifact's signature beside them."""

from __future__ import annotations

from pathlib import Path

from toolchain.artifact import Engine
from toolchain.io.atomic import replacing, write_bytes
from toolchain.signing.bundle import signature_path

ONNX_SUFFIX = ".onnx"


def is_converted(path: Path) -> bool:
    """Whether a path can be that of an ONNX file or an engine folder."""
    return path.is_dir() or path.suffix.lower() == ONNX_SUFFIX


def engine_file_names(stem: str, count: int) -> list[str]:
    """``model.engine``; of several, ``model.0.engine`` and so on."""
    return [f"{stem}.engine"] if count == 1 else [f"{stem}.{index}.engine" for index in range(count)]


def write_engine(engine: Engine, path: Path) -> None:
    """Writes an engine's bytes, checked on the way, whole or not at all.

    Raises:
        MalformedArtifactError: its digest does not match.
        OSError: it cannot be written.
    """
    with replacing(path) as part, part.open("wb") as file:
        for chunk in engine.chunks():
            file.write(chunk)


def copy_signature(artifact: Path, out: Path) -> bool:
    """Puts the artifact's signature beside a converted file, whose manifest is the same to the byte.

    Where there is none, one that was beside an earlier file of that name is removed.

    Returns:
        Whether there is one.
    """
    source, destination = signature_path(artifact), signature_path(out)
    if not source.is_file():
        destination.unlink(missing_ok=True)
        return False
    write_bytes(destination, source.read_bytes())
    return True
