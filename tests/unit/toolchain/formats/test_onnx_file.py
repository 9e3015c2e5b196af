"""An artifact's ONNX file: its contents, its checks, and what is refused. Artifacts are real; engines are not run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")

import numpy as np
import onnx

from tests.conftest import ROOT
from toolchain import open_artifact
from toolchain.engine.plan_header import HEADER_SIZE
from toolchain.errors import IncompatibleError, MalformedArtifactError, TrtcrossError, UsageError
from toolchain.formats import onnx_file
from toolchain.formats.convert import convert_to, verify_converted
from toolchain.formats.onnx_file import verify_onnx, write_onnx
from toolchain.formats.onnx_model import EP_NAMES, onnx_model
from toolchain.formats.onnx_names import onnx_names
from toolchain.formats.source import Source
from toolchain.graph.program import ArithmeticStep, CastStep, EngineStep, Output, Program, SizeStep, ViewStep
from toolchain.graph.views import NEW_SHAPES
from toolchain.io.hashing import file_digest
from toolchain.manifest.models import DynamicSize

SCHEMA1 = ROOT / "tests" / "compatibility" / "schema1"


def _written(name: str, out: Path, **options: Any) -> Path:
    with open_artifact(SCHEMA1 / f"{name}.pt2") as artifact:
        write_onnx(artifact, out, **options)
    return out


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _written("static", tmp_path_factory.mktemp("onnx") / "model.onnx")


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    return _written("static", tmp_path / "model.onnx", engines="beside")


def _properties(model: Any) -> dict[str, str]:
    return {item.key: item.value for item in model.metadata_props}


def test_a_model_has_the_artifacts_engine_values_and_manifest(embedded: Path) -> None:
    model = onnx.load(embedded)
    onnx.checker.check_model(model)
    [node] = model.graph.node
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    with open_artifact(SCHEMA1 / "static.pt2") as artifact:
        plan, digest = artifact.engines[0].read(), artifact.manifest_sha256
    assert (node.op_type, node.domain, attributes["embed_mode"]) == ("EPContext", "com.microsoft", 1)
    assert attributes["ep_cache_context"] == plan
    # The plugin binds by name: these are the engine's own.
    assert (list(node.input), list(node.output)) == (["x"], ["output0"])
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["x", "output0"]
    properties = _properties(model)
    assert properties["trtcross.manifest_sha256"] == digest
    assert hashlib.sha256(properties["trtcross.manifest"].encode()).hexdigest() == digest
    assert json.loads(properties["trtcross.names"])["outputs"] == {"output": "output0"}
    for name in EP_NAMES:  # what the plugin itself writes and reads
        assert bytes.fromhex(properties[f"ep_compatibility_info.{name}"]) == plan[:HEADER_SIZE]
    assert "source" not in attributes


def test_dtypes_go_along(tmp_path: Path) -> None:
    model = onnx.load(_written("half", tmp_path / "model.onnx"))
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16


def test_engines_beside_are_named_by_the_model_and_are_the_same_bytes(beside: Path) -> None:
    [attribute] = [a for a in onnx.load(beside).graph.node[0].attribute if a.name == "ep_cache_context"]
    assert attribute.s == b"model.engine"
    with open_artifact(SCHEMA1 / "static.pt2") as artifact:
        assert beside.with_name("model.engine").read_bytes() == artifact.engines[0].read()
    assert verify_onnx(beside).beside == (beside.with_name("model.engine"),)


def test_engines_that_are_too_big_go_beside_and_are_refused_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "EMBEDDED_LIMIT", 5000)
    assert not verify_onnx(_written("static", tmp_path / "auto.onnx")).embedded
    with pytest.raises(IncompatibleError, match=r"9340 bytes, and an ONNX file holds 5000") as caught:
        _written("static", tmp_path / "embedded.onnx", engines="embedded")
    assert "--engines beside" in str(caught.value)
    assert not (tmp_path / "embedded.onnx").exists()


def test_every_byte_of_a_file_is_checked(embedded: Path, tmp_path: Path) -> None:
    data, changed = embedded.read_bytes(), tmp_path / "model.onnx"
    for place in range(0, len(data), len(data) // 97):
        changed.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises((MalformedArtifactError, IncompatibleError)):
            verify_onnx(changed)
    # The last change repeats a field, so that every reader still sees the same model.
    for other in (data[:-1], data + b"\0", data + data[-20:], b"", data + data[:2]):
        changed.write_bytes(other)
        with pytest.raises(MalformedArtifactError):
            verify_onnx(changed)


def test_a_rewritten_graph_is_reported(embedded: Path, tmp_path: Path) -> None:
    model = onnx.load(embedded)
    model.graph.node[0].input[0] = model.graph.input[0].name = "y"
    changed = tmp_path / "model.onnx"
    changed.write_bytes(model.SerializeToString(deterministic=True))
    with pytest.raises(MalformedArtifactError, match="not what follows from the manifest and the graph"):
        verify_onnx(changed)


def test_a_swapped_engine_file_is_reported_by_name(beside: Path) -> None:
    engine = beside.with_name("model.engine")
    with open_artifact(SCHEMA1 / "half.pt2") as other:
        engine.write_bytes(other.engines[0].read())
    with pytest.raises(MalformedArtifactError, match=r"not the engine .* that model.onnx was written with") as caught:
        verify_onnx(beside)
    assert caught.value.where == str(engine)
    engine.unlink()
    with pytest.raises(MalformedArtifactError, match="cannot be read") as caught:
        verify_onnx(beside)
    assert "put model.engine beside model.onnx" in str(caught.value)


@pytest.mark.parametrize("name", ["../model.engine", "/etc/passwd", "..", "C:model.engine", "a\\b.engine", ""])
def test_an_engine_file_elsewhere_is_not_read(beside: Path, name: str) -> None:
    model = onnx.load(beside)
    [attribute] = [a for a in model.graph.node[0].attribute if a.name == "ep_cache_context"]
    attribute.s = name.encode()
    beside.write_bytes(model.SerializeToString(deterministic=True))
    with pytest.raises(MalformedArtifactError, match="not a plain file name"):
        verify_onnx(beside)


def test_an_onnx_model_of_somebody_else_is_reported_as_such(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    values = [onnx.helper.make_tensor_value_info(name, 1, [2]) for name in "xy"]
    path = tmp_path / "model.onnx"
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", values[:1], values[1:]))
    path.write_bytes(model.SerializeToString(deterministic=True))
    with pytest.raises(MalformedArtifactError, match="trtcross did not write"):
        verify_onnx(path)
    path.write_bytes(b"no model at all")
    with pytest.raises(MalformedArtifactError, match="not an ONNX model"):
        verify_onnx(path)


@pytest.mark.parametrize(
    ("artifact", "message"),
    [
        ("mixed", r"parts that run in PyTorch.*aten\.cumsum\.default, aten\.mul\.Tensor"),
        ("foreign", "was saved by Torch-TensorRT itself"),
        ("kv_cache", r"writes outputs over its inputs \(output1 over state_keys"),
        ("dynamic", "has 2 optimization profiles"),
    ],
)
def test_what_onnx_or_the_plugin_cannot_have_is_refused(artifact: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(IncompatibleError, match=message):
        _written(artifact, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def _source(**changes: Any) -> Source:
    """Returns the source of an artifact with one engine, whose program or manifest is changed."""
    with open_artifact(SCHEMA1 / "static.pt2") as artifact:
        source = Source.of(artifact)
    for name, value in changes.items():
        source.__dict__[name] = value
    return source


def _program(steps: tuple[Any, ...], outputs: tuple[Output, ...]) -> Program:
    """Returns a program with one input, the tensor ``x``."""
    return Program(
        state={}, inputs=("x",), casts=(), used=frozenset(), steps=steps, outputs=outputs, state_updates=(),
        input_updates=(),
    )  # fmt: skip


def test_two_engines_whose_bindings_have_one_name_are_refused() -> None:
    source = _source()
    [entry] = source.manifest.engines
    source.__dict__["manifest"] = source.manifest.model_copy(update={"engines": [entry, entry]})
    first, second = EngineStep(0, ("x",), ("h",)), EngineStep(1, ("x",), ("y",))
    source.__dict__["program"] = _program((first, second), (Output("y"),))
    with pytest.raises(IncompatibleError, match="two values are 'output0' to engines, h and y") as refused:
        onnx_names(source)
    assert refused.value.remedy.startswith("build it again with this release")
    second = EngineStep(1, ("h",), ("y",))  # the first's output0 is the second's x
    source.__dict__["program"] = _program((first, second), (Output("y"),))
    with pytest.raises(IncompatibleError, match="one value is 'output0' to one engine and 'x' to another"):
        onnx_names(source)


@pytest.mark.parametrize(("name", "message"), [("", "it is empty"), ("\udc80", "it is not Unicode text")])
def test_names_that_onnx_cannot_hold_are_refused(name: str, message: str) -> None:
    source = _source()
    [entry] = source.manifest.engines
    binding = entry.inputs[0].model_copy(update={"name": name})
    entry = entry.model_copy(update={"inputs": [binding]})
    source.__dict__["manifest"] = source.manifest.model_copy(update={"engines": [entry]})
    with pytest.raises(IncompatibleError, match=message):
        onnx_names(source)


def test_an_engines_name_is_its_own_and_other_values_give_way() -> None:
    """A size has the name of the second engine's input, and an output has the name of the first engine's output."""
    source = _source()
    [entry] = source.manifest.engines
    renamed = {"inputs": [entry.inputs[0].model_copy(update={"name": "rows"})]}
    renamed["outputs"] = [entry.outputs[0].model_copy(update={"name": "engine1_output0"})]
    engines = [entry, entry.model_copy(update=renamed)]
    outputs = [source.manifest.outputs[0].model_copy(update={"name": name}) for name in ("y", "output0")]
    source.__dict__["manifest"] = source.manifest.model_copy(update={"engines": engines, "outputs": outputs})
    first, second = EngineStep(0, ("x",), ("h",)), EngineStep(1, ("viewed",), ("y",))
    view = ViewStep("viewed", "h", NEW_SHAPES["torch.ops.aten.view.default"], (("rows", -1),))
    source.__dict__["program"] = _program((SizeStep("rows", "x", 0), first, view, second), (Output("y"), Output("x")))
    names = onnx_names(source)
    assert (names.values["viewed"], names.values["rows"]) == ("rows", "rows_")
    assert names.outputs == ("engine1_output0", "output0_")
    assert names.copies == (("x", "output0_"),)


def test_casts_between_engines_become_operators_but_for_what_onnx_has_not() -> None:
    from onnx.reference import ReferenceEvaluator

    source = _source()
    spec = source.manifest.inputs[0].model_copy(update={"shape": [4]})
    outputs = [spec.model_copy(update={"name": "y"})]
    changes = {"engines": [], "inputs": [spec], "outputs": outputs}
    source.__dict__["manifest"] = source.manifest.model_copy(update=changes)
    for dtype in ("uint8", "int16", "float64", "bool"):
        steps = (CastStep("q", "x", dtype), CastStep("y", "q", "float32"))
        source.__dict__["program"] = _program(steps, (Output("y"),))
        x = np.array([0.0, 0.5, 1.75, 200.25], np.float32)
        [found] = ReferenceEvaluator(onnx_model(source, [], {})).run(None, {"x": x})
        assert found.tolist() == x.astype(dtype).astype(np.float32).tolist()
    source.__dict__["program"] = _program((CastStep("y", "x", "complex64"),), (Output("y"),))
    with pytest.raises(IncompatibleError, match="cast to complex64"):
        onnx_model(source, [], {})


def test_an_input_that_is_given_out_again_is_copied() -> None:
    source = _source()
    outputs = [*source.manifest.outputs, source.manifest.outputs[0].model_copy(update={"name": "again"})]
    source.__dict__["manifest"] = source.manifest.model_copy(update={"outputs": outputs})
    source.__dict__["program"] = dataclasses.replace(source.program, outputs=(*source.program.outputs, Output("x")))
    names = onnx_names(source)
    assert names.outputs == ("output0", "again")
    assert names.copies == (("x", "again"),)


def test_whole_numbers_are_computed_as_python_does() -> None:
    from onnx.reference import ReferenceEvaluator

    programs: dict[str, tuple[Callable[..., int], tuple[str | int, ...]]] = {
        "less": (operator.sub, ("rows", 5)),
        "halved": (operator.floordiv, ("less", 2)),  # of a negative number, rounded down
        "rest": (operator.mod, ("less", 3)),
        "negative": (operator.neg, ("halved",)),
        "sum": (operator.add, ("negative", "rest")),
        "product": (operator.mul, ("sum", "rows")),
        "most": (max, ("product", 7)),
        "least": (min, ("most", "rows")),
    }
    steps = [ArithmeticStep(name, function, operands) for name, (function, operands) in programs.items()]
    source = _source()
    spec = source.manifest.inputs[0].model_copy(update={"shape": [DynamicSize(symbol="s", min=0, max=None)]})
    outputs = [spec.model_copy(update={"name": name, "dtype": None, "shape": None}) for name in ("rows", *programs)]
    changes = {"engines": [], "inputs": [spec], "outputs": outputs}
    source.__dict__["manifest"] = source.manifest.model_copy(update=changes)
    given = tuple(Output(name) for name in ("rows", *programs))
    source.__dict__["program"] = _program((SizeStep("rows", "x", -1), *steps), given)
    evaluator = ReferenceEvaluator(onnx_model(source, [], {}))
    for rows in (0, 1, 4, 5, 11):
        want = {"rows": rows}
        for name, (function, operands) in programs.items():
            want[name] = function(*(want[o] if isinstance(o, str) else o for o in operands))
        found = evaluator.run(None, {"x": np.zeros(rows, np.float32)})
        assert [int(value) for value in found] == list(want.values())


def test_views_become_operators_and_one_that_changes_nothing_none() -> None:
    from onnx.reference import ReferenceEvaluator

    views: dict[str, tuple[str, tuple[Any, ...], tuple[int | None, ...]]] = {
        "reshaped": ("view.default", (("rows", 3, -1),), (None, 3, 2)),
        "fixed": ("reshape.default", ((-1, 3),), (None, 3)),
        "wider": ("unsqueeze.default", (-1,), (None, 1, 6, 1)),
        "narrower": ("squeeze.dims", ((0, 1, 2),), (None, 6)),
        "flat": ("flatten.using_ints", (1,), (None, 6)),
        "same": ("alias.default", (), (None, 1, 6)),
    }
    steps = [
        ViewStep(name, "x", NEW_SHAPES[f"torch.ops.aten.{target}"], operands)
        for name, (target, operands, _) in views.items()
    ]
    source = _source()
    shape = [DynamicSize(symbol="s", min=2, max=None), 1, 6]
    spec = source.manifest.inputs[0].model_copy(update={"shape": shape})
    outputs = [spec.model_copy(update={"name": name, "shape": list(views[name][2])}) for name in views]
    for output in outputs:
        output.__dict__["shape"] = [shape[0] if size is None else size for size in output.shape or []]
    changes = {"engines": [], "inputs": [spec], "outputs": outputs}
    source.__dict__["manifest"] = source.manifest.model_copy(update=changes)
    source.__dict__["sizes"] = {"x": [None, 1, 6]}
    source.__dict__["program"] = _program((SizeStep("rows", "x", 0), *steps), tuple(Output(name) for name in views))
    model = onnx_model(source, [], {})
    assert [n.op_type for n in model.graph.node if "same" in n.output] == ["Identity"]  # x, given out again
    for rows in (2, 5):
        x = np.arange(rows * 6, dtype=np.float32).reshape(rows, 1, 6)
        for (_, _, sizes), found in zip(views.values(), ReferenceEvaluator(model).run(None, {"x": x}), strict=True):
            want = x.reshape([-1 if size is None else size for size in sizes])
            assert found.shape == want.shape
            assert np.array_equal(found, want)


def test_an_alias_has_the_name_that_the_engine_has_for_it() -> None:
    source = _source()
    alias = ViewStep("alias", "x", NEW_SHAPES["torch.ops.aten.alias.default"], ())
    engine = EngineStep(0, ("alias",), ("y",))
    source.__dict__["program"] = _program((alias, engine), (Output("y"),))
    names = onnx_names(source)
    assert (names.inputs, names.values["alias"]) == (("x",), "x")


def test_the_signature_goes_along_and_is_of_the_converted_file(tmp_path: Path) -> None:
    pytest.importorskip("model_signing")
    from toolchain.signing.artifact import require_signature_of
    from toolchain.signing.policy import KeySigner, Policy

    policy = Policy((KeySigner(SCHEMA1 / "build.pub"),))
    with open_artifact(SCHEMA1 / "static.pt2") as artifact:
        for converted in (
            convert_to("onnx", artifact, tmp_path / "model.onnx"),
            convert_to("engine", artifact, tmp_path / "engines"),
        ):
            again = verify_converted(converted.path)
            assert "build.pub" in str(require_signature_of(again.source.manifest_sha256, again.signed, policy))
    # A signature of another artifact's file is refused, and a stale one is not left with a new file.
    with open_artifact(SCHEMA1 / "half.pt2") as other, pytest.raises(TrtcrossError, match="of another artifact"):
        require_signature_of(other.manifest_sha256, tmp_path / "model.onnx", policy)
    _written("half", tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx.sig").exists()


def test_conversion_is_the_same_to_the_byte_each_time(embedded: Path, tmp_path: Path) -> None:
    assert file_digest(_written("static", tmp_path / "other.onnx")) == file_digest(embedded)


def test_an_engine_file_takes_no_artifacts_place(tmp_path: Path) -> None:
    named = tmp_path / "model.engine"
    named.write_bytes((SCHEMA1 / "static.pt2").read_bytes())
    with open_artifact(named) as artifact, pytest.raises(UsageError, match="would replace another file"):
        write_onnx(artifact, tmp_path / "model.onnx", "beside")
    assert named.read_bytes() == (SCHEMA1 / "static.pt2").read_bytes()


def test_an_output_of_another_suffix_is_refused(tmp_path: Path) -> None:
    with open_artifact(SCHEMA1 / "static.pt2") as artifact, pytest.raises(UsageError, match=r"has the suffix \.onnx"):
        convert_to("onnx", artifact, tmp_path / "model.pt2")
