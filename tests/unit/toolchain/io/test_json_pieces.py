"""Reading JSON piece by piece gives the same as reading it whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.errors import MalformedArtifactError
from toolchain.io.json_pieces import PieceLimits, json_pieces
from toolchain.io.strict_json import DEPTH_LIMIT, load_json
from toolchain.limits import JsonLimit, Limit

MANY = Limit("the text", "many", 10**6)
LIMITS = PieceLimits(MANY, Limit("a piece", "characters", 200), MANY, MANY)
WHOLE = JsonLimit("the text", 10**6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def pieces(data: bytes, depth: int = 3, chunk: int = 7, limits: PieceLimits = LIMITS, **options: Any) -> list[Any]:
    chunks = (data[start : start + chunk] for start in range(0, len(data), chunk))
    return list(json_pieces(chunks, depth=depth, limits=limits, where="test", **options))


def put_together(found: list[Any]) -> Any:
    whole: dict[str, Any] = {}
    for piece in found:
        owner: Any = whole
        for step in ("", *piece.path)[:-1]:
            owner = owner[step]
        if isinstance(owner, list):
            owner.append(piece.value)
        else:
            owner[("", *piece.path)[-1]] = piece.value
    return whole[""]


@given(JSON, st.integers(0, 4), st.integers(1, 60), st.booleans(), st.sampled_from([None, 1]))
def test_the_pieces_are_the_whole(value: Any, depth: int, chunk: int, escaped: bool, indent: int | None) -> None:
    data = json.dumps(value, ensure_ascii=escaped, indent=indent).encode("utf-8", "surrogatepass")
    try:
        whole = load_json(data, where="test", limit=WHOLE)
        found = pieces(data, depth, chunk, LIMITS._replace(length=MANY))
    except MalformedArtifactError:
        assert b"\xed" in data  # halves of characters
        return
    text = data.decode()
    assert all(json.loads(text[p.start : p.end]) == p.value for p in found if p.value not in ({}, []))
    assert put_together(found) == whole == value


@given(st.text('[]{}",:1 ax\\', max_size=30))
def test_what_is_refused_whole_is_refused_in_pieces(text: str) -> None:
    def outcome(read: Any) -> Any:
        try:
            return read()
        except MalformedArtifactError:
            return None

    whole = outcome(lambda: load_json(text.encode(), where="test", limit=WHOLE))
    assert outcome(lambda: put_together(pieces(text.encode()))) == whole


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b'{"a": 1, "a": 2}', "'a' is there twice"),
        (b'{"a": {"b": {"c": {"d": 1, "d": 1}}}}', "'d' is there twice"),
        (b"[[[[1e400]]]]", "too big"),
        (b"[" * (DEPTH_LIMIT + 1) + b"]" * (DEPTH_LIMIT + 1), "too deeply"),
        (b"[" * 5000, "missing|too deeply|over 200 characters|Expecting value"),
        (b'["\xff"]', "UTF-8"),
        (b"[1] 2", "behind its end"),
        (b"[1,]", "a value is missing|Expecting value|Illegal"),
    ],
)
def test_what_is_no_json_that_we_accept(data: bytes, problem: str, depth: int) -> None:
    with pytest.raises(MalformedArtifactError, match=problem):
        pieces(data, depth, limits=LIMITS._replace(length=MANY))


@pytest.mark.parametrize("chunk", [1, 10, 10**6])
def test_a_piece_that_is_too_long_is_refused_wherever_the_chunks_end(chunk: int) -> None:
    text = json.dumps(["x" * 198, "y"])
    assert len(pieces(text.encode(), chunk=chunk)) == 3
    with pytest.raises(MalformedArtifactError, match="a piece has"):
        pieces(text.replace("xx", "xxx").encode(), chunk=chunk)


def test_what_repeats_is_parsed_once_and_comes_each_time() -> None:
    made: list[dict[str, Any]] = []
    data = json.dumps(
        {"t": {f"n{i}": {"target": 1, "x": [{"y": "as long as those of tensors"}]} for i in range(100)}}
    ).encode()
    limits = LIMITS._replace(objects=Limit("the text", "objects", 2))
    found = pieces(data, depth=2, limits=limits, keys=frozenset({"target"}), on_object=made.append)
    assert put_together(found) == json.loads(data)
    assert len(made) == 1
