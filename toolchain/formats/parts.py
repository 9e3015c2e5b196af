"""The parts that all converted files have: engines in files of their own, and the artifact's signature beside them."""

from __future__ import annotations

from pathlib import Path

from toolchain.artifact import Engine
from toolchain.io.atomic import replacing, write_bytes
from toolchain.signing.bundle import signature_path

ONNX_SUFFIX = ".onnx"


def is_converted(path: Path) -> bool:
    """Whether a path may be that of an ONNX file or an engine folder."""
    return path.is_dir() or path.suffix.lower() == ONNX_SUFFIX


def engine_file_names(stem: str, count: int) -> list[str]:
    """Returns the names of engines' files: ``model.engine``; for several, ``model.0.engine`` and so on."""
    return [f"{stem}.engine"] if count == 1 else [f"{stem}.{index}.engine" for index in range(count)]


def write_engine(engine: Engine, path: Path) -> None:
    """Writes an engine's bytes completely or not at all; they are checked on the way.

    Raises:
        MalformedArtifactError: the digest does not match.
        OSError: the file cannot be written.
    """
    with replacing(path) as part, part.open("wb") as file:
        for chunk in engine.chunks():
            file.write(chunk)


def copy_signature(artifact: Path, out: Path) -> bool:
    """Copies the artifact's signature beside a converted file, which carries the same manifest to the byte.

    If the artifact has none, the signature of an earlier file of that name is removed.

    Returns:
        Whether the artifact has a signature.
    """
    source, destination = signature_path(artifact), signature_path(out)
    if not source.is_file():
        destination.unlink(missing_ok=True)
        return False
    write_bytes(destination, source.read_bytes())
    return True
