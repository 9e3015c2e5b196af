"""Foreign artifacts, without a manifest: every ABI version, what is refused, and what a reason to trust allows."""

from __future__ import annotations

import base64
import json
import os
import pickle  # writing only
from dataclasses import replace
from pathlib import Path
from typing import Any

import click.testing
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.foreign import RELEASES, UPSTREAM_METADATA, Foreign
from tests.unit.handmade import Handmade, engine_info, plan
from toolchain import open_artifact
from toolchain.checker.safety import require_safe_to_load
from toolchain.checker.structure import check_integrity, check_structure
from toolchain.cli.main import cli
from toolchain.convert import convert_artifact
from toolchain.engine.info import FIELD_COUNT, AliasedIO
from toolchain.engine.metadata_allowlist import unknown_in_pickle
from toolchain.engine.metadata_reader import PickleError, read_metadata, settings_of, shapes_alone
from toolchain.errors import (
    BuildFailedError,
    IncompatibleError,
    MalformedArtifactError,
    TrtcrossError,
    UntrustedError,
    UsageError,
)
from toolchain.foreign.engine_search import find_engines
from toolchain.graph.skeleton import engine_token, interleave
from toolchain.targets import Platform
from windows_side.preflight import requirements as preflight


class _Payload:
    def __reduce__(self) -> Any:
        return os.system, ("echo hurt",)


EVIL = base64.b64encode(pickle.dumps(_Payload())).decode()


@pytest.mark.parametrize("abi", RELEASES)
def test_engine_info_of_every_abi_version_is_read_and_written(tmp_path: Path, abi: int) -> None:
    Foreign(engines=[plan(b"one"), plan(b"two")], abi=abi).write(tmp_path / "a.pt2")
    with open_artifact(tmp_path / "a.pt2") as artifact:
        assert artifact.manifest.target.abi_version == abi
        assert artifact.manifest.producer.torch_tensorrt.version == ".".join(RELEASES[abi].split(".")[:2])
        assert [engine.read() for engine in artifact.engines] == [plan(b"one"), plan(b"two")]
        assert (check_integrity(artifact)["engines"], check_structure(artifact)["placeholder_nodes"]) == (2, 2)
        convert_artifact(artifact, tmp_path / "b.pt2")
    with open_artifact(tmp_path / "b.pt2") as converted:
        check_integrity(converted)
        check_structure(converted)
        assert not converted.foreign
        assert [len(node.fields) for node in converted.placeholders] == [FIELD_COUNT[abi]] * 2
        assert [engine.read() for engine in converted.engines] == [plan(b"one"), plan(b"two")]
        assert b"/home/builder" not in converted.skeleton


def test_the_release_whose_operator_is_one_field_short(tmp_path: Path) -> None:
    Foreign(abi=8, fields_left_out=1).write(tmp_path / "a.pt2")
    with open_artifact(tmp_path / "a.pt2") as artifact:
        assert len(artifact.placeholders[0].fields) == FIELD_COUNT[8]
        assert artifact.engines[0].info.dynamic_resources is False


@pytest.mark.parametrize(("abi", "left_out"), [(10, 1), (9, 1), (8, 2), (7, 1), (6, 1)])
def test_field_lists_of_the_wrong_length_are_refused(tmp_path: Path, abi: int, left_out: int) -> None:
    Foreign(abi=abi, fields_left_out=left_out).write(tmp_path / "a.pt2")
    with pytest.raises(MalformedArtifactError, match="fields, not"):
        open_artifact(tmp_path / "a.pt2")


def test_a_plan_that_another_release_runs_gets_that_release_s_engine_info(tmp_path: Path) -> None:
    """Torch-TensorRT-RTX 2.12 may be installed with TensorRT-RTX 1.6, whose plans release 2.14 runs."""
    Foreign(abi=9, torch="2.12.0+cu130").write(tmp_path / "a.pt2")
    with open_artifact(tmp_path / "a.pt2") as artifact:
        convert_artifact(artifact, tmp_path / "b.pt2", release="2.14")
    with open_artifact(tmp_path / "b.pt2") as converted:
        check_structure(converted)
        assert converted.engines[0].info == replace(
            engine_info(), metadata=converted.engines[0].info.metadata, abi_version=10
        )
        manifest = converted.manifest
        assert (manifest.target.abi_version, manifest.producer.torch) == (10, "2.14.0+cu130")
        assert "torch-tensorrt-rtx==2.14 " in manifest.install[2]


@pytest.mark.parametrize("release", ["2.6", "2.11", "2.12", "2.13"])
def test_engine_info_of_a_release_that_does_not_run_the_plan_is_refused_by_name(tmp_path: Path, release: str) -> None:
    Handmade().write(tmp_path / "a.pt2")
    with (
        open_artifact(tmp_path / "a.pt2") as artifact,
        pytest.raises(IncompatibleError, match=rf"1\.6\.1\.120, and Torch-TensorRT {release} runs"),
    ):
        convert_artifact(artifact, tmp_path / "b.pt2", release=release)
    assert not (tmp_path / "b.pt2").exists()


def test_no_such_release(tmp_path: Path) -> None:
    with open_artifact(Handmade().write(tmp_path / "a.pt2")) as artifact, pytest.raises(UsageError, match=r"2\.99"):
        convert_artifact(artifact, tmp_path / "b.pt2", release="2.99")


@pytest.mark.parametrize(
    ("abi", "change"),
    [
        (9, {"aliased_io": (AliasedIO("output0", "x", "1"),)}),
        (8, {"requires_native_multidevice": True}),
        (7, {"dynamic_resources": True}),
        (6, {"requires_output_allocator": True}),
    ],
)
def test_what_an_abi_version_cannot_say_is_not_lost(abi: int, change: dict[str, Any]) -> None:
    assert engine_info().of_abi(abi, where="test").abi_version == abi
    with pytest.raises(IncompatibleError, match=f"version {abi} cannot express"):
        replace(engine_info(), **change).of_abi(abi, where="test")


def test_names_that_no_reader_takes_are_refused_before_writing() -> None:
    for name in ("a\nb", "a\x1b[31m", "\u202eabc"):
        with pytest.raises(BuildFailedError, match="control characters"):
            replace(engine_info(), name=name).check_names()
        with pytest.raises(BuildFailedError, match="control characters"):
            replace(engine_info(), output_names=(name,)).check_names()


def test_names_and_symbols_as_a_build_gives_them(tmp_path: Path) -> None:
    leaf: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
    pair = {"type": "builtins.tuple", "context": "null", "children_spec": [leaf, leaf]}
    keyed = {"type": "builtins.dict", "context": '["k"]', "children_spec": [leaf]}
    args = {"type": "builtins.tuple", "context": "null", "children_spec": [leaf, pair]}
    kwargs = {"type": "builtins.dict", "context": '["state", "n"]', "children_spec": [keyed, leaf]}
    made = Foreign(in_spec=json.dumps([1, {"type": "builtins.tuple", "context": "null",
                                           "children_spec": [args, kwargs]}]))  # fmt: skip
    graph = made.text()
    module = graph["graph_module"]
    size = {"as_expr": {"expr_str": "2*Symbol('s33', positive=True, integer=True)", "hint": {"as_int": 2}}}
    symbol = {"as_expr": {"expr_str": "Symbol('s33', positive=True, integer=True)", "hint": {"as_int": 1}}}
    for name in ("a", "b", "c"):
        module["graph"]["tensor_values"][name] = {**module["graph"]["tensor_values"]["x"], "sizes": [size, symbol]}
    graph["range_constraints"] = {"s33": {"min_val": 1, "max_val": 8}}
    module["signature"]["input_specs"] = [
        {"buffer": {"arg": {"name": "b_scale"}, "buffer_name": "scale", "persistent": True}},
        *({"user_input": {"arg": {"as_tensor": {"name": name}}}} for name in ("x", "a", "b", "c")),
        {"constant_input": {"name": "n", "value": {"as_int": 3}}},
    ]
    made.write(tmp_path / "a.pt2", json.dumps(graph).encode())
    with open_artifact(tmp_path / "a.pt2") as artifact:
        inputs = artifact.manifest.inputs
    assert [value.name for value in inputs] == ["x", "arg1.0", "arg1.1", "state.k", "n"]
    assert (inputs[4].dtype, inputs[4].value) == (None, 3)
    shape: list[Any] = inputs[1].shape or []
    assert [(size.symbol, size.min, size.max) for size in shape] == [("2*s33", 0, None), ("s33", 1, 8)]


def trusted(path: Path, reason: str | None) -> None:
    with open_artifact(path) as artifact:
        require_safe_to_load(artifact, reason)


UNSAFE = {
    "sample inputs": Foreign(entries={"data/sample_inputs/model.pt": pickle.dumps(_Payload())}),
    "metadata": Foreign(info=replace(engine_info(), metadata=EVIL)),
    "weights": Foreign(
        entries={
            "data/weights/weight_0": pickle.dumps(_Payload()),
            "data/weights/model_weights_config.json": json.dumps(
                {"config": {"w": {"path_name": "weight_0", "use_pickle": True}}}
            ).encode(),
        }
    ),
    "compiled code": Foreign(entries={"data/aotinductor/model.so": b"ELF"}),
}


@pytest.mark.parametrize("name", UNSAFE)
def test_what_torch_would_run_is_refused_unless_there_is_a_reason(tmp_path: Path, name: str) -> None:
    path = UNSAFE[name].write(tmp_path / "a.pt2")
    with pytest.raises(UntrustedError, match="--trust"):
        trusted(path, None)
    with pytest.raises(UsageError, match="no reason"):
        trusted(path, " ")
    trusted(path, "built here")


def test_a_reason_does_not_help_an_artifact_that_says_it_is_ours(tmp_path: Path) -> None:
    made = Handmade(entries={"data/sample_inputs/model.pt": pickle.dumps(_Payload())})
    with pytest.raises(UntrustedError):
        trusted(made.write(tmp_path / "a.pt2"), "because")


@pytest.mark.parametrize("name", [name for name in UNSAFE if name != "sample inputs"])
def test_convert_records_the_reason_and_load_needs_one_again(tmp_path: Path, name: str) -> None:
    path, out = UNSAFE[name].write(tmp_path / "a.pt2"), tmp_path / "b.pt2"
    arguments = ["convert", str(path), "-o", str(out), "--json"]
    assert click.testing.CliRunner().invoke(cli, arguments).exit_code == 5
    assert not out.exists()
    done = click.testing.CliRunner().invoke(cli, [*arguments, "--trust", "built here"])
    assert (done.exit_code, json.loads(done.stdout)["trust"]) == (0, "built here")
    with open_artifact(out) as converted:
        assert converted.manifest.settings["trust"] == "built here"
    with pytest.raises(UntrustedError):
        trusted(out, None)
    trusted(out, "built here")


def test_convert_leaves_sample_inputs_behind_unread(tmp_path: Path) -> None:
    path = UNSAFE["sample inputs"].write(tmp_path / "a.pt2")
    with open_artifact(path) as artifact:
        convert_artifact(artifact, tmp_path / "b.pt2", Platform.LINUX_X86_64)
    trusted(tmp_path / "b.pt2", None)


def _graph(change: Any) -> bytes:
    graph = Foreign(engines=[plan(b"1"), plan(b"2")]).text()
    change(graph["graph_module"]["graph"]["nodes"], graph)
    return json.dumps(graph).encode()


def _set(node: dict[str, Any], field: int, value: str) -> None:
    node["inputs"][1 + field]["arg"]["as_string"] = value


ENGINE = base64.b64encode(plan(b"3")).decode()
MALFORMED = {
    "an engine that is none": lambda nodes, _: _set(nodes[0], 3, base64.b64encode(b"x" * 99).decode()),
    "an engine outside of a node": lambda nodes, graph: graph.update(extra=ENGINE),
    "a token in the text": lambda nodes, _: _set(nodes[0], 3, engine_token(1)),
    "a token somewhere else": lambda nodes, graph: graph.update(extra=engine_token(0)),
    "an engine in another field": lambda nodes, _: (_set(nodes[0], 1, ENGINE), _set(nodes[0], 3, "")),
    "base64 with a line break": lambda nodes, _: _set(nodes[0], 3, ENGINE[:20] + "\n" + ENGINE[20:]),
    "base64 of the wrong length": lambda nodes, _: _set(nodes[0], 3, ENGINE + "A"),
    "no nodes": lambda nodes, _: nodes.clear(),
    "no signature": lambda nodes, graph: graph["graph_module"].pop("signature"),
    "no such tensor": lambda nodes, graph: graph["graph_module"]["graph"]["tensor_values"].pop("x"),
    "a specification that is none": lambda nodes, graph: graph["graph_module"]["module_call_graph"].__setitem__(
        0, {"signature": {"in_spec": "[1, {}, 3]", "out_spec": "[1, {}, 3]"}}
    ),
    "too many outputs": lambda nodes, graph: graph["graph_module"]["signature"]["output_specs"].append(
        graph["graph_module"]["signature"]["output_specs"][0]
    ),
    "names that turn the line": lambda nodes, _: nodes[0].update(name="\u202eabc"),
    "a version that is none": lambda nodes, graph: graph.update(torch_version="1; rm"),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed(tmp_path: Path, name: str) -> None:
    Foreign().write(tmp_path / "a.pt2", _graph(MALFORMED[name]))
    with pytest.raises(MalformedArtifactError):
        open_artifact(tmp_path / "a.pt2")


def places(value: Any) -> list[tuple[Any, Any]]:
    """Returns every container in a document, with each of its keys."""
    keys: Any = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


OTHERS: list[Any] = [
    None,
    1,
    -1,
    2**40,
    1.5,
    True,
    "",
    "x",
    "\ud800",
    [],
    [1],
    {},
    {"a": 1},
    {"as_int": 2},
    {"as_expr": {}},
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(st.data())
def test_any_graph_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    graph = json.loads(json.dumps(Foreign(engines=[plan(b"1"), plan(b"2")]).text()))
    owner, key = data.draw(st.sampled_from(places(graph)))
    if data.draw(st.booleans()):
        owner[key] = data.draw(st.sampled_from(OTHERS))
    else:
        del owner[key]
    Foreign().write(tmp_path / "a.pt2", json.dumps(graph).encode())
    try:
        with open_artifact(tmp_path / "a.pt2") as artifact:
            check_structure(artifact)
            convert_artifact(artifact, tmp_path / "b.pt2")
    except TrtcrossError:
        return
    with open_artifact(tmp_path / "b.pt2") as converted:
        check_integrity(converted)
        require_safe_to_load(converted)


def test_an_unchanged_graph_is_taken(tmp_path: Path) -> None:
    Foreign().write(tmp_path / "a.pt2", _graph(lambda nodes, graph: None))
    open_artifact(tmp_path / "a.pt2").close()


def test_every_byte_is_checked_by_the_archive_s_crc(tmp_path: Path) -> None:
    path = Foreign(entries={"data/weights/weight_0": b"weight" * 9}).write(tmp_path / "a.pt2")
    data = path.read_bytes()
    for place in (data.index(b"weightweight"), data.index(b"torch_version") + 2, data.index(b"dnRydA") + 120):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(MalformedArtifactError):
            open_artifact(path)


def test_a_platform_that_we_do_not_know(tmp_path: Path) -> None:
    Foreign(info=replace(engine_info(), target_platform="linux_aarch64")).write(tmp_path / "a.pt2")
    with pytest.raises(IncompatibleError, match="linux_aarch64"):
        open_artifact(tmp_path / "a.pt2")


def test_a_plain_program_is_named_in_the_error(tmp_path: Path) -> None:
    Foreign(engines=[]).write(tmp_path / "a.pt2")
    with pytest.raises(MalformedArtifactError, match=r"plain \.pt2 program"):
        open_artifact(tmp_path / "a.pt2")


def test_a_foreign_artifact_cannot_be_signed(tmp_path: Path) -> None:
    path = Foreign().write(tmp_path / "a.pt2")
    result = click.testing.CliRunner().invoke(cli, ["sign", str(path), "--key", "none", "--json"])
    assert result.exit_code in (5, 8)  # 8 where model-signing is not installed


# --- the search ------------------------------------------------------------------------------------------------

FILLER = st.sampled_from([b'{"a": "x",', b',"\\"dnRydAAA b":', b'"dnR",', b"", b'["\\\\\\"ZnRyd"]', b'"\\\\",'])
ENGINES = st.lists(st.tuples(st.sampled_from([b"vtrt", b"ftrt"]), st.binary(max_size=40)).map(b"".join), max_size=4)


@given(ENGINES, st.lists(FILLER, min_size=5, max_size=5), st.integers(1, 60))
def test_engines_are_found_whatever_the_chunks_are(engines: list[bytes], filler: list[bytes], size: int) -> None:
    encoded = [base64.b64encode(engine) for engine in engines]
    pieces = [b"{" + filler[0], *(b',"",' + part for part in filler[1 : len(engines) + 1])]
    pieces = [piece + b'"' * (i < len(engines)) for i, piece in enumerate(pieces)]
    pieces = [b'"' * (i > 0) + piece for i, piece in enumerate(pieces)]
    text = b"".join(interleave(pieces, ([one] for one in encoded)))
    found = find_engines((text[at : at + size] for at in range(0, len(text), size)), limit=10**6, where="test")
    assert [text[start : start + length] for start, length in found.spans] == encoded
    tokens = ([engine_token(index).encode()] for index in range(len(engines)))
    assert found.skeleton == b"".join(interleave(pieces, tokens))


def test_the_search_holds_a_chunk_and_the_skeleton() -> None:
    def chunks() -> Any:
        yield b'{"engine": "dnRydA'
        for _ in range(2000):
            yield b"A" * 2**20
        yield b'"}'

    found = find_engines(chunks(), limit=1000, where="test")
    assert (found.skeleton, found.spans[0][1]) == (b'{"engine": "trtcross-engine-0"}', 2000 * 2**20 + 6)


def test_a_graph_longer_than_the_limit() -> None:
    with pytest.raises(MalformedArtifactError, match="longer than"):
        find_engines((b"[" * 2**20 for _ in range(5)), limit=2**20, where="test")
    with pytest.raises(MalformedArtifactError, match="ends within"):
        find_engines([b'["dnRydAAA'], limit=2**20, where="test")


# --- the metadata ----------------------------------------------------------------------------------------------


def encoded(value: object) -> str:
    return base64.b64encode(pickle.dumps(value, protocol=4)).decode()


@given(
    st.dictionaries(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.text() | st.floats(allow_nan=False),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
            max_leaves=20,
        ),
        max_size=8,
    )
)
def test_plain_values_are_read_as_they_were_written(value: dict[str, Any]) -> None:
    assert read_metadata(encoded(value)) == value


@pytest.mark.parametrize(
    "value",
    [
        {"settings": _Payload()},
        {"settings": print},
        {b"bytes": 1},
        [1, 2],
        {"settings": Path("/tmp")},
    ],
    ids=["an object", "a function", "a key of bytes", "a list", "a path"],
)
def test_a_pickle_that_holds_more_is_refused(value: object) -> None:
    with pytest.raises(PickleError):
        read_metadata(encoded(value))


def test_a_pickle_that_grows_when_it_is_read_is_refused() -> None:
    value: list[Any] = []
    for _ in range(40):
        value = [value, value]
    with pytest.raises(PickleError, match="more values"):
        read_metadata(encoded({"inout_symexprs": value}))
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(PickleError, match="more values"):
        read_metadata(encoded({"inout_symexprs": endless}))


def test_upstream_s_own_metadata(tmp_path: Path) -> None:
    metadata = read_metadata(UPSTREAM_METADATA)
    settings = settings_of(metadata) or {}
    assert (settings["workspace_size"], settings["device"]["gpu_id"]) == (0, 0)
    assert "timing_cache_path" not in settings
    shapes = shapes_alone(metadata)
    assert unknown_in_pickle(shapes) is None
    assert read_metadata(shapes)["inout_symexprs"] == metadata["inout_symexprs"] is not None


@given(st.data())
def test_damaged_metadata_is_read_or_refused(data: st.DataObject) -> None:
    """Damage that leaves names and calls intact is included."""
    raw = bytearray(base64.b64decode(UPSTREAM_METADATA))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        metadata = read_metadata(base64.b64encode(raw).decode())
        json.dumps(settings_of(metadata), allow_nan=False)
        assert unknown_in_pickle(shapes_alone(metadata)) is None
    except PickleError:
        return


@pytest.mark.parametrize("call", [b"K\x01\x81", b"K\x01R", b")K\x01\x92"])
def test_a_call_with_what_are_no_arguments_is_refused(call: bytes) -> None:
    made = b"\x80\x04}\x8c\x08settings\x8c\x16torch_tensorrt._Device\x8c\x06Device\x93" + call + b"s."
    with pytest.raises(PickleError, match="without a name or arguments"):
        read_metadata(base64.b64encode(made).decode())


@given(st.binary(max_size=80))
def test_any_bytes_are_metadata_or_refused(data: bytes) -> None:
    try:
        settings_of(read_metadata(base64.b64encode(b"\x80\x04" + data).decode()))
    except PickleError:
        return


def test_shapes_are_all_that_is_written_again() -> None:
    shapes = {"inputs": [{"shape_exprs": [1, 3], "name": "x"}], "outputs": []}
    text = shapes_alone(read_metadata(encoded({"settings": {"path": "/home"}, "inout_symexprs": shapes})))
    assert pickle.loads(base64.b64decode(text)) == {"inout_symexprs": shapes, "output_tensors_are_unowned": None}


def test_the_verbs_take_a_reason_and_repeat_it(tmp_path: Path) -> None:
    path = str(UNSAFE["weights"].write(tmp_path / "a.pt2"))
    refused = invoke("verify", path, "--level", "structure")
    assert (refused["exit"], refused["error"]["kind"]) == (5, "UntrustedError")
    taken = invoke("verify", path, "--level", "structure", "--trust", "built here")
    assert (taken["exit"], taken["trust"]) == (0, "built here")
    for reason, state in ((None, "not met"), ("built here", "met")):
        checked = invoke("check", path, *(["--trust", reason] if reason else []))
        [found] = [item for item in checked["requirements"] if item["name"] == "trust"]
        assert (found["state"], checked["trust"]) == (state, reason)


def invoke(*arguments: str) -> dict[str, Any]:
    result = click.testing.CliRunner().invoke(cli, [*arguments, "--json"])
    return {"exit": result.exit_code, **json.loads(result.stdout)}


def test_of_tensorrts_own_plans_two_numbers_of_the_release_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = bytearray(plan(b"engine"))
    engine[:4] = b"ftrt"
    path = Foreign(engines=[bytes(engine)], abi=7, torch="2.10.0").write(tmp_path / "a.pt2")
    for installed, state in (("10.14.1.48", "met"), ("10.15.1.1", "not met"), ("10.140.1", "not met")):
        monkeypatch.setattr(preflight, "version_of", lambda name, found=installed: found)
        document = invoke("check", str(path))
        [runtime] = [item for item in document["requirements"] if item["name"] == "runtime"]
        assert (runtime["needed"], runtime["state"]) == ("tensorrt 10.14", state)
