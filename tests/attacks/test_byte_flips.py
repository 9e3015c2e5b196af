"""Every byte of a small artifact is flipped in turn, and each flip is noticed; none is harmless.

Headers are compared byte for byte with those that our writer makes, the manifest has a CRC in two headers, every other
entry has a digest in the manifest, and nothing is between them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.handmade import Handmade, plan
from toolchain.artifact import open_artifact
from toolchain.checker.structure import check_integrity, check_structure
from toolchain.errors import MalformedArtifactError, UntrustedError

PARTS = 4  # the processes of a parallel run share the work


def is_noticed(path: Path) -> bool:
    try:
        with open_artifact(path) as artifact:
            check_integrity(artifact)
            check_structure(artifact)
    except (MalformedArtifactError, UntrustedError):
        return True
    return False


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    engines = [plan(bytes(range(256)) * 4), plan(b"second")]
    return Handmade(engines=engines).write(tmp_path_factory.mktemp("flips") / "small.pt2")


def test_unflipped(artifact: Path) -> None:
    assert not is_noticed(artifact)


@pytest.mark.parametrize("part", range(PARTS))
def test_each_flip_is_noticed(artifact: Path, part: int) -> None:
    data = bytearray(artifact.read_bytes())
    harmless = []
    with artifact.open("r+b", buffering=0) as file:
        for position in range(part, len(data), PARTS):
            flipped = data[position] ^ (1 << position // PARTS % 8)  # another bit each time
            file.seek(position)
            file.write(bytes([flipped]))
            if not is_noticed(artifact):
                harmless.append(position)
            file.seek(position)
            file.write(data[position : position + 1])
    assert harmless == []
    assert artifact.read_bytes() == data


def test_each_truncation_is_noticed(artifact: Path, tmp_path: Path) -> None:
    data, short = artifact.read_bytes(), tmp_path / "short.pt2"
    for length in range(0, len(data), 7):
        short.write_bytes(data[:length])
        assert is_noticed(short)
