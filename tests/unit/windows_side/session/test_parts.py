"""The parts of a session alone: capsules, weights, programs, structures and memory; and CUDA without a GPU."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("cuda.bindings")

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ROOT
from toolchain import open_artifact
from toolchain.errors import IncompatibleError, MalformedArtifactError, MissingComponentError
from toolchain.host.gpu_probe import probe_gpus
from toolchain.manifest.models import ClassSpec
from windows_side.engines.cuda import Gpu
from windows_side.session import dlpack, dtypes
from windows_side.session.memory import _rounded
from windows_side.session.program import read_program
from windows_side.session.structure import Structure, StructureError, read_structure
from windows_side.session.weights import read_weights

SCHEMA1 = ROOT / "tests" / "compatibility" / "schema1"


@pytest.mark.skipif(bool(probe_gpus().gpus), reason="there is a GPU here")
def test_cuda_without_a_gpu_says_what_to_do() -> None:
    with pytest.raises(IncompatibleError, match="there is no GPU to run on") as caught:
        Gpu(0)
    assert caught.value.remedy and "driver" in caught.value.remedy


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "uint8", "bool", "complex64"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 3)])
def test_a_capsule_of_numpys_is_read(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.zeros(shape, dtype)
    found = dlpack.describe(array.__dlpack__())
    assert (found.shape, found.dtype, found.contiguous, found.kind) == (shape, dtype, True, dlpack.CPU)
    assert found.pointer == array.ctypes.data or not array.size


def test_a_capsule_of_torchs_bfloat16_is_read_and_its_strides() -> None:
    torch = pytest.importorskip("torch")
    whole = torch.zeros(4, 6, dtype=torch.bfloat16)
    for tensor, contiguous in ((whole, True), (whole[1:], True), (whole[:, 1:], False), (whole.t(), False)):
        found = dlpack.describe(tensor.__dlpack__())
        assert (found.pointer, found.dtype, found.contiguous) == (tensor.data_ptr(), "bfloat16", contiguous)


def test_a_dtype_that_numpy_lacks_names_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(dtypes.importlib, "import_module", missing)
    dtypes.numpy_dtype.cache_clear()
    with pytest.raises(MissingComponentError, match="ml_dtypes"):
        dtypes.numpy_dtype("bfloat16")


def test_weights_are_read_in_c_order_and_a_missing_one_is_named() -> None:
    with open_artifact(SCHEMA1 / "kv_cache.pt2") as artifact:
        found = read_weights(artifact, {"keys", "values"})
        assert {name: (w.shape, w.dtype, len(w.data)) for name, w in found.items()} == {
            "keys": ((1, 2, 8, 4), "float32", 256),
            "values": ((1, 2, 8, 4), "float32", 256),
        }
        with pytest.raises(MalformedArtifactError, match="'nothing' is missing"):
            read_weights(artifact, {"nothing"})


def _used_before(module: dict[str, Any]) -> None:
    module["graph"]["nodes"][0]["inputs"][0]["arg"]["as_tensors"] = [{"name": "getitem"}]


def _twice(module: dict[str, Any]) -> None:
    module["graph"]["nodes"][0]["outputs"] = [{"as_tensors": [{"name": "x"}]}]


def _strange_output(module: dict[str, Any]) -> None:
    module["signature"]["output_specs"][0] = {"token": {"arg": {"name": "x"}}}


def _strange_input(module: dict[str, Any]) -> None:
    module["signature"]["input_specs"][0] = {"custom_obj": {"arg": {"name": "x"}}}


def _no_outputs(module: dict[str, Any]) -> None:
    module["signature"]["output_specs"] = []


@pytest.mark.parametrize("spoil", [_used_before, _twice, _strange_output, _strange_input, _no_outputs])
def test_a_graph_that_contradicts_itself_is_malformed(
    spoil: Callable[[dict[str, Any]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_artifact(SCHEMA1 / "static.pt2") as artifact:
        document = artifact.graph()
        spoil(document["graph_module"])
        monkeypatch.setattr(type(artifact), "graph", lambda self: document)
        with pytest.raises(MalformedArtifactError):
            read_program(artifact)


LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}


def node(kind: str, *children: Any, context: str = "null") -> dict[str, Any]:
    return {"type": kind, "context": context, "children_spec": list(children)}


def structure(tree: Any, *classes: ClassSpec) -> Structure:
    return read_structure(json.dumps([1, tree]), classes, where="test")


def test_structures_take_apart_and_put_together() -> None:
    spec = structure(
        node(
            "builtins.tuple", LEAF, node("builtins.list", LEAF, node("builtins.tuple")),
            node("collections.OrderedDict", LEAF, context='["b"]'),
            node("builtins.dict", LEAF, LEAF, context='["k", 3]'),
        )
    )  # fmt: skip
    value = (1, [2, ()], OrderedDict(b=3), {"k": 4, 3: 5})
    assert list(spec.leaves(value)) == [1, 2, 3, 4, 5]
    built = spec.build(iter([1, 2, 3, 4, 5]))
    assert built == value and type(built[2]) is OrderedDict
    for wrong in ((1, [2], OrderedDict(b=3), {"k": 4, 3: 5}), (1, (2, ()), {"b": 3}, {"k": 4, 3: 5}), [1], 1):
        with pytest.raises(StructureError):
            list(spec.leaves(wrong))


def test_classes_are_records_and_tuples_with_fields() -> None:
    spec = structure(
        node("builtins.tuple", node("builtins.dict", LEAF, context='["logits"]'), node("builtins.tuple", LEAF, LEAF)),
        ClassSpec(spec="out_spec", path=[0], name="some.Output", fields=["loss", "logits"]),
        ClassSpec(spec="out_spec", path=[1], name="some.Best", fields=["values", "indices"]),
    )
    record, best = spec.build(iter("abc"))
    assert record.logits == record["logits"] == record[0] == "a" and record.loss is None
    assert best.values == "b" and best == ("b", "c") and type(best).__name__ == "Best"
    assert list(spec.leaves((record, best))) == list(spec.leaves(({"logits": "a"}, ("b", "c")))) == ["a", "b", "c"]
    with pytest.raises(StructureError):
        list(spec.leaves(({"logits": "a", "loss": 1}, best)))


@pytest.mark.parametrize(
    ("tree", "error"),
    [
        (node("some.Class", LEAF), IncompatibleError),
        (node("builtins.dict", LEAF, context='["a", "b"]'), MalformedArtifactError),
        (node("builtins.dict", LEAF, context="nonsense"), MalformedArtifactError),
        ({"type": "builtins.tuple"}, MalformedArtifactError),
        ([], MalformedArtifactError),
    ],
)
def test_a_structure_that_is_none_is_refused(tree: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        structure(tree)


@given(st.integers(0, 2**40))
def test_blocks_are_a_little_larger_than_asked_for(size: int) -> None:
    assert size <= _rounded(size) <= max(512, size * 9 // 8 + 1)
    assert _rounded(_rounded(size)) == _rounded(size)
