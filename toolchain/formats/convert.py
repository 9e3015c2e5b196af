"""Converts an artifact to a different format, and verifies a converted file or folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from toolchain.artifact import Artifact
from toolchain.errors import MissingComponentError, UsageError
from toolchain.formats.engine_folder import MANIFEST_FILE, SIDECAR, verify_engine_folder, write_engine_folder
from toolchain.formats.parts import ONNX_SUFFIX
from toolchain.formats.source import Source
from toolchain.host.installed import install_line
from toolchain.io.places import require_own_place

Format = Literal["pt2", "onnx", "engine"]
FORMATS: tuple[str, ...] = get_args(Format)


@dataclass(frozen=True)
class Converted:
    """An ONNX file or engine folder that was converted from an artifact, with all files that belong to it.

    Attributes:
        path: the file or the folder.
        format: ``onnx`` or ``engine``.
        source: the artifact's manifest and graph.
        files: all files that belong to it.
        signed: the file beside which the artifact's signature is, if it has one.
    """

    path: Path
    format: str
    source: Source
    files: tuple[Path, ...]
    signed: Path


def convert_to(format_name: str, artifact: Artifact, out: Path, *, engines: str = "auto") -> Converted:
    """Writes an artifact in a different format; its engines stay the same to the byte.

    Args:
        format_name: ``onnx``, or ``engine`` for a folder of plain engines.
        artifact: the artifact to convert.
        out: the path of the file or folder.
        engines: where an ONNX file has its engines: ``embedded``, ``beside``, or ``auto``.

    Raises:
        IncompatibleError: the model cannot be expressed in that format.
        MalformedArtifactError: a digest does not match.
        MissingComponentError: onnx is not installed.
        UsageError: the output is the artifact itself, cannot be written, or has a suffix other than its format's.
    """
    require_own_place(out, artifact.path, where="-o")
    if format_name == "engine":
        if engines != "auto":
            raise UsageError(
                "--engines applies only to ONNX files", where=f"--engines {engines}", remedy="leave it out"
            )
        folder = write_engine_folder(artifact, out)
        return _folder(out, folder.source)
    if out.suffix.lower() != ONNX_SUFFIX:
        raise UsageError("an ONNX file has the suffix .onnx", where=f"-o {out}", remedy=f"write {out.stem}.onnx")
    try:
        from toolchain.formats.onnx_file import write_onnx
    except ImportError as error:
        raise _missing(error) from error
    written = write_onnx(artifact, out, engines)  # type: ignore[arg-type]
    return _onnx(out, written.source, written.beside)


def verify_converted(path: Path) -> Converted:
    """Proves that an ONNX file or an engine folder is, to the byte, what its artifact was converted to.

    Raises:
        MalformedArtifactError: a byte differs.
        MissingComponentError: onnx is not installed.
        UsageError: the path cannot be read, or is a folder of other things.
    """
    if path.is_dir():
        if not (path / SIDECAR).exists() and not (path / MANIFEST_FILE).exists():
            raise UsageError(
                "it is not a folder of engines",
                where=str(path),
                remedy="name an artifact in it, or a folder that `trtcross convert --format engine` wrote",
            )
        return _folder(path, verify_engine_folder(path).source)
    try:
        from toolchain.formats.onnx_file import verify_onnx
    except ImportError as error:
        raise _missing(error) from error
    verified = verify_onnx(path)
    return _onnx(path, verified.source, verified.beside)


def _onnx(path: Path, source: Source, beside: Sequence[Path]) -> Converted:
    return Converted(path, "onnx", source, (path, *beside), path)


def _folder(path: Path, source: Source) -> Converted:
    files = tuple(sorted(file for file in path.rglob("*") if file.is_file()))
    return Converted(path, "engine", source, files, path / MANIFEST_FILE)


def _missing(error: ImportError) -> MissingComponentError:
    return MissingComponentError(
        f"ONNX files need the module {error.name or 'onnx'}, which is not installed here", remedy=install_line("onnx")
    )
