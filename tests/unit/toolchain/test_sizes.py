"""Sizes in bytes are read alike wherever one is given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from linux_side.cache.store import LIMIT_VARIABLE, BuildCache
from tests.conftest import Trtcross
from toolchain.errors import UsageError
from toolchain.sizes import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *[("16G", 2**34), ("16 g", 2**34), ("512M", 2**29), ("64k", 2**16), ("1T", 2**40), ("1.5G", 3 * 2**29)],
        *[("16GiB", 2**34), ("512mib", 2**29), ("1.5 GiB", 3 * 2**29)],
        *[("16GB", 16 * 10**9), ("16gb", 16 * 10**9), ("1.5 GB", 15 * 10**8), ("500MB", 5 * 10**8)],
        *[("1000", 1000), (" 1000 ", 1000), ("1000B", 1000), ("0", 0)],
    ],
)
def test_a_bare_letter_and_an_i_are_binary_and_the_rest_decimal(text: str, size: int) -> None:
    assert parse_size(text, where="here") == size


@pytest.mark.parametrize(
    "text",
    ["", "much", "-1", "-1G", "1,5GB", "16 parsecs", "8bit", "1e3", "1..5", "16GB please", "\u0661", "9" * 400, "99E"],
)
def test_what_is_no_size_is_refused_and_not_read_in_part(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        parse_size(text, where="here")


def test_less_than_the_least_is_refused() -> None:
    with pytest.raises(UsageError, match="less than 1"):
        parse_size("0", where="--memory", minimum=1)


def test_the_environment_and_the_command_line_mean_the_same(
    tmp_path: Path, trtcross: Trtcross, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRTCROSS_CACHE", str(tmp_path))
    for text, size in (("1GB", 10**9), ("1G", 2**30)):
        monkeypatch.setenv(LIMIT_VARIABLE, text)
        assert BuildCache().limit == size
    assert trtcross("store", "prune", "--max-size", "1GB", "--json").returncode == 0
    done = trtcross("store", "prune", "--max-size", "1,5GB", "--json")
    assert (done.returncode, json.loads(done.stdout)["error"]["kind"]) == (2, "UsageError")
    assert "16GiB" in done.stderr
