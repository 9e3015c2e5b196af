"""The targets of fuzzing: each reads bytes as a part of a hostile file, and checks a property of what is accepted.

A target returns if the bytes are refused with an error of ours or have the property. Any other exception is a finding.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from toolchain.container.reader import Container
from toolchain.engine.info import ENGINE_FIELD, FIELDS, EngineInfo
from toolchain.engine.plan_header import parse_plan_header
from toolchain.errors import MalformedArtifactError
from toolchain.guards.bounds import Range
from toolchain.guards.describe import summary
from toolchain.guards.evaluate import Guards
from toolchain.guards.grammar import GuardError, Size
from toolchain.manifest.reading import parse_manifest

_SEPARATOR = "\0"
_SCRATCH = Path(tempfile.gettempdir()) / f"trtcross-fuzz-{os.getpid()}.pt2"


def container(data: bytes) -> None:
    """Reads a whole file. Accepted entries cover the file without gaps, and Python's own reader finds the same ones."""
    _SCRATCH.write_bytes(data)
    opened = None
    try:
        with suppress(MalformedArtifactError):
            opened = Container(_SCRATCH)
            _check_entries(opened, data)
    finally:
        if opened:
            opened.close()
        _SCRATCH.unlink()


def _check_entries(opened: Container, data: bytes) -> None:
    position = 0
    for name, entry in opened.entries.items():
        assert entry.offset >= position, f"{name} overlaps the entry before it"
        position = entry.offset + entry.size
        assert opened.read(name) == data[entry.offset : position]
    with zipfile.ZipFile(_SCRATCH) as file:
        seen = {info.filename: info.file_size for info in file.infolist()}
    assert seen == {f"{opened.root}/{name}": entry.size for name, entry in opened.entries.items()}


def manifest(data: bytes) -> None:
    """Reads a manifest's text. An accepted manifest is the same when it is written and read again."""
    with suppress(MalformedArtifactError):
        parsed = parse_manifest(data, where="manifest")
        assert parse_manifest(parsed.to_json().encode(), where="again") == parsed


def engine_info(data: bytes) -> None:
    """Reads a list of fields, separated by NUL. Accepted engine info is the same when it is written and read again."""
    fields = data.decode("utf-8", "surrogateescape").split(_SEPARATOR)
    with suppress(MalformedArtifactError):
        info = EngineInfo.parse(fields, where="engine")
        written = info.fields(fields[ENGINE_FIELD])
        assert len(written) == len(fields) <= len(FIELDS)
        assert EngineInfo.parse(written, where="again") == info


def plan_header(data: bytes) -> None:
    """Reads an engine's first bytes. An accepted header has only capabilities that are in its mask."""
    with suppress(MalformedArtifactError):
        header = parse_plan_header(data)
        assert header.backend.magic.encode() == data[:4]
        assert bool(header.capabilities) <= bool(header.capability_mask)


_RANGES: dict[Size, Range] = {Size("x", dim): (dim, dim + 4) for dim in range(3)} | {Size("images.0", 1): (1, None)}


def guards(data: bytes) -> None:
    """Reads guards, one per line. Accepted guards are the same when written and read again, and decide on any sizes."""
    with suppress(GuardError):
        parsed = Guards.parse(data.decode("utf-8", "replace").splitlines()[:50], _RANGES)
        again = Guards.parse(map(str, parsed.rules), _RANGES)
        assert again.rules == parsed.rules
        for more in range(5):
            sizes = {size: low + more for size, (low, _) in _RANGES.items()}
            assert parsed.holds(sizes) is again.holds(sizes)
        summary(parsed.rules, _RANGES)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (container, manifest, engine_info, plan_header, guards)
}
