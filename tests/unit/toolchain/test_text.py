"""Strict JSON, streamed base64, and the graph's text."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.handmade import METADATA, engine_info, placeholder_node
from toolchain.checker.expressions import is_plain_expression
from toolchain.checker.graph import is_plain_treespec
from toolchain.engine.metadata_allowlist import unknown_in_pickle
from toolchain.errors import BuildFailedError, MalformedArtifactError
from toolchain.graph.document import dump_graph, parse_graph, placeholder_nodes, set_devices, strip_traces
from toolchain.graph.skeleton import engine_token, gaps, interleave, lay_out
from toolchain.io.base64_stream import RAW_CHUNK, TEXT_CHUNK, ParallelHash, decode_stream, encode_stream, encoded_length
from toolchain.io.strict_json import DEPTH_LIMIT, load_json
from toolchain.limits import JsonLimit

LIMIT = JsonLimit("the text", 10_000)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def load(data: bytes, limit: JsonLimit = LIMIT) -> object:
    return load_json(data, where="test", limit=limit)


@given(JSON)
def test_json_is_read_as_it_was_written(value: object) -> None:
    assert load(json.dumps(value).encode(), replace(LIMIT, size=10**6)) == value


@given(st.binary())
def test_any_bytes_are_json_or_refused(data: bytes) -> None:
    try:
        load(data)
    except MalformedArtifactError as error:
        assert error.where == "test"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "'c' is there twice"),
        (b"[NaN]", "NaN"),
        (b"[-Infinity]", "Infinity"),
        (b"[1e400]", "too big"),
        (b"9" * 21, "too big"),
        (b"9" * 9000, "too big"),
        (b"[" * 5000 + b"]" * 5000, "too deeply"),
        (b"[" * (DEPTH_LIMIT + 1) + b"]" * (DEPTH_LIMIT + 1), "too deeply"),
        (b'"\xff"', "UTF-8"),
        (b"", "Expecting value"),
        (b"{} {}", "Extra data"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b" " * (LIMIT.size + 1), "bytes, and at most"),
    ],
)
def test_json_that_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(MalformedArtifactError, match=problem):
        load(data)


def test_json_may_be_as_deep_and_as_full_as_the_limits() -> None:
    load(b"[" * DEPTH_LIMIT + b"]" * DEPTH_LIMIT)
    load(b"[1,2,3]", replace(LIMIT, values=3))
    with pytest.raises(MalformedArtifactError, match="has 3 values, and at most 2 are read"):
        load(b"[1,2,3]", replace(LIMIT, values=2))


def decode(text: bytes, chunk: int = TEXT_CHUNK) -> bytes:
    chunks = (text[start : start + chunk] for start in range(0, len(text), chunk))
    return b"".join(decode_stream(chunks, ParallelHash(), where="test"))


@given(st.binary(), st.integers(1, 20))
def test_base64_both_ways(data: bytes, quantum: int) -> None:
    digest = ParallelHash()
    pieces = [data[start : start + 3 * quantum] for start in range(0, len(data), 3 * quantum)]
    text = b"".join(encode_stream(pieces, digest))
    assert (text, digest.hexdigest()) == (base64.b64encode(data), hashlib.sha256(data).hexdigest())
    assert len(text) == encoded_length(len(data))
    assert decode(text, 4 * quantum) == data


def test_base64_over_several_chunks() -> None:
    data = bytes(range(256)) * (RAW_CHUNK // 128)
    assert decode(base64.b64encode(data)) == data


@given(st.text("AQgwZ+/=-_\n ", max_size=24), st.integers(1, 6))
def test_base64_is_read_only_in_its_canonical_form(text: str, quantum: int) -> None:
    """Each engine has one text: only the text that encoding gives is decoded."""
    try:
        raw = decode(text.encode(), 4 * quantum)
    except MalformedArtifactError:
        try:
            assert base64.b64encode(base64.b64decode(text, validate=True)) != text.encode()
        except binascii.Error:
            return
    else:
        assert base64.b64encode(raw) == text.encode()


@pytest.mark.parametrize(
    "text", [b"QQ", b"QQ=", b"QQ===", b"QR==", b"QUF=", b"QQ==QQ==", b"QUFB\n", b"-_-_", b"====", b"\xff" * 4]
)
@pytest.mark.parametrize("chunk", [4, TEXT_CHUNK])
def test_base64_that_is_refused(text: bytes, chunk: int) -> None:
    with pytest.raises(MalformedArtifactError):
        decode(text, chunk)


@given(st.lists(st.binary(max_size=50), max_size=5), st.text(st.characters(exclude_characters='"')))
def test_engines_are_where_the_layout_says(engines: list[bytes], words: str) -> None:
    skeleton = (words + "".join(f'["{engine_token(i)}"]' for i in range(len(engines)))).encode("utf-8", "replace")
    layout = lay_out(skeleton, [len(engine) for engine in engines])
    encoded = [base64.b64encode(engine) for engine in engines]
    text = b"".join(interleave(layout.pieces, ([one] for one in encoded)))
    assert len(text) == layout.size
    spans = [(offset, len(one)) for offset, one in zip(layout.offsets, encoded, strict=True)]
    assert [text[offset : offset + length] for offset, length in spans] == encoded
    assert b"".join(text[o : o + n] for o, n in gaps(spans, len(text), where="test")) == b"".join(layout.pieces)


@pytest.mark.parametrize("skeleton", [b"[]", b'["trtcross-engine-0", "trtcross-engine-0"]'])
def test_a_token_must_stand_there_once(skeleton: bytes) -> None:
    with pytest.raises(BuildFailedError, match="exactly once"):
        lay_out(skeleton, [1])


@pytest.mark.parametrize("spans", [[(5, 10)], [(0, 4), (2, 4)], [(4, 2), (0, 2)], [(10**30, 1)]])
def test_spans_that_are_refused(spans: list[tuple[int, int]]) -> None:
    with pytest.raises(MalformedArtifactError):
        gaps(spans, 10, where="test")


def graph(*nodes: dict[str, object]) -> dict[str, object]:
    return {"graph_module": {"graph": {"nodes": list(nodes)}}}


def test_placeholder_nodes_are_found_by_their_operator() -> None:
    other = {"target": "torch.ops.aten.add.Tensor", "name": "no_op_placeholder_for_execute_engine", "inputs": []}
    fields = list(engine_info().fields(engine_token(0)))
    document = parse_graph(dump_graph(graph(other, placeholder_node(0, fields))), where="test")
    [found] = placeholder_nodes(document, where="test")
    assert (found.name, found.token, found.info("test")) == ("placeholder_0", engine_token(0), engine_info())


@pytest.mark.parametrize("data", [b"[]", b"1", b'{"graph_module": 1}', b'{"graph_module": {"graph": {"nodes": [1]}}}'])
def test_what_is_no_graph(data: bytes) -> None:
    with pytest.raises(MalformedArtifactError, match="not an exported program's graph"):
        parse_graph(data, where="test")


def test_a_graph_changes_its_device_and_forgets_its_builder() -> None:
    document = graph({"target": "t", "metadata": {"stack_trace": "/home/me"}, "device": {"type": "cpu", "index": None}})
    strip_traces(document)
    set_devices(document, "cuda", 1)
    assert document == graph({"target": "t", "metadata": {}, "device": {"type": "cuda", "index": 1}})


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Symbol('s77', positive=True, integer=True)", True),
        ("2*s0 + u1//3 - 1", True),
        ("Pow(Symbol('s0', integer=True), Integer(2))", True),
        ("Max(1, FloorDiv(s0, 2))", True),
        ("__import__('os')", False),
        ("s0.__class__", False),
        ("eval(s0)", False),
        ("Symbol('os')", False),
        ("9**9**9", False),
        ("Pow(Pow(9, 999), 999)", False),
        ("[s0 for s0 in s0]", False),
        ("s0 +", False),
        ("", False),
    ],
)
def test_plain_expressions(text: str, plain: bool) -> None:
    assert is_plain_expression(text) is plain


@given(st.text("s0_'(),*+-/ 9Max.", max_size=40))
def test_any_expression_is_judged(text: str) -> None:
    assert is_plain_expression(text) in (True, False)


def test_the_builders_metadata_is_known() -> None:
    assert unknown_in_pickle(METADATA) is None


@given(st.binary(max_size=60))
def test_any_pickle_is_judged(data: bytes) -> None:
    unknown_in_pickle(base64.b64encode(b"\x80\x04" + data).decode())


def _spec(kind: str, context: object) -> str:
    return json.dumps([1, {"type": kind, "context": context, "children_spec": []}])


@pytest.mark.parametrize(
    ("spec", "plain"),
    [
        (_spec("collections.namedtuple", "models.Pair"), True),
        (_spec("collections.namedtuple", "builtins.dict"), False),
        (_spec("collections.namedtuple", "a b"), False),
        (_spec("collections.namedtuple", '{"__enum__": true, "fqn": "os:X", "name": "Y"}'), False),
        (_spec("builtins.dict", "models.Pair"), False),
        (_spec("builtins.dict", '["a"]'), True),
    ],
)
def test_treespecs_that_import_nothing(spec: str, plain: bool) -> None:
    """The class of a named tuple is found by name among those that the reader has registered."""
    assert is_plain_treespec(spec) is plain
