"""The files of an engine folder: their names, how they are read, and golden I/O split into a file for each tensor."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolchain.errors import MalformedArtifactError
from toolchain.formats.parts import engine_file_names
from toolchain.formats.source import Source
from toolchain.io.strict_json import load_json
from toolchain.limits import GOLDEN_HEADER

GOLDEN_HEADER_FILE = "golden/header.bin"


def engine_files(source: Source) -> list[str]:
    """Returns the names of the engines' files, in the manifest's order."""
    return engine_file_names("model", len(source.manifest.engines))


def state_file(index: int) -> str:
    """Returns the name of a buffer's file, by the buffer's index."""
    return f"state/{index}.bin"


def golden_file(key: str) -> str:
    """Returns the name of a golden tensor's file, by the tensor's name in the golden I/O."""
    return f"golden/{key}.bin"


def split_golden(data: bytes, source: Source) -> tuple[bytes, Iterator[tuple[str, bytes]]]:
    """Splits golden I/O into its header, with the length before it, and its tensors in the file's order.

    Args:
        data: the golden entry, whose header was checked.
        source: the artifact's manifest and graph.
    """
    (length,) = struct.unpack_from("<Q", data)
    header, body = data[: 8 + length], memoryview(data)[8 + length :]
    tensors = ((key, bytes(body[slice(*facts["data_offsets"])])) for key, facts in header_tensors(header, source))
    return header, tensors


def header_tensors(header: bytes, source: Source) -> list[tuple[str, dict[str, Any]]]:
    """Returns what golden I/O's header states of each tensor, in the file's order.

    Args:
        header: the header, with the length before it.
        source: the artifact's manifest and graph.

    Raises:
        MalformedArtifactError: the header cannot be read, or has other tensors than the manifest describes.
    """
    manifest = source.manifest
    document = load_json(header[8:], where=f"{source.where}, golden I/O", limit=GOLDEN_HEADER)
    names = document.keys() - {"__metadata__"} if isinstance(document, dict) else set()
    leaves = [
        f"{kind}.{index}"
        for kind, specs in (("input", manifest.inputs), ("output", manifest.outputs))
        for index, spec in enumerate(specs)
        if spec.dtype
    ]
    samples = manifest.golden.samples if manifest.golden else 0
    # The number is compared first: a hostile manifest may state more samples than can be listed in a reasonable time.
    if (
        not names
        or len(names) != samples * len(leaves)
        or names != {f"{n}.{k}" for n in range(samples) for k in leaves}
    ):
        raise source.damaged("the golden I/O is not of the tensors that the manifest describes")
    try:
        return sorted(((key, document[key]) for key in names), key=lambda item: item[1]["data_offsets"])
    except (KeyError, TypeError) as error:
        raise source.damaged("the golden I/O's header cannot be read") from error


def read_file(path: Path, limit: int | None) -> bytes:
    """Reads a file of an engine folder, up to a limit on its size.

    Args:
        path: the file.
        limit: the largest size that is read, in bytes; None for any size.

    Raises:
        MalformedArtifactError: the file is missing, cannot be read, or is longer than the limit.
    """
    try:
        with path.open("rb") as file:
            data = file.read(-1 if limit is None else limit + 1)
    except OSError as error:
        raise unreadable(path, error) from error
    if limit is not None and len(data) > limit:
        raise MalformedArtifactError(f"it is longer than {limit} bytes", where=str(path))
    return data


def unreadable(path: Path, error: OSError) -> MalformedArtifactError:
    """Returns the error for a file that is missing or cannot be read."""
    return MalformedArtifactError(
        f"a file of the engine folder cannot be read: {error.strerror or error}",
        where=str(path),
        remedy="give a folder that `trtcross convert --format engine` wrote, with all its files",
    )
