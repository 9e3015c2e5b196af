"""Views and casts around an engine in a session, on a GPU that is the host's memory (``host_gpu``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("tensorrt_rtx")

import numpy as np

from tests.conftest import ROOT
from tests.unit.windows_side.session.host_gpu import Host, host, torch_on_host
from toolchain import Artifact
from toolchain.errors import IncompatibleError, UsageError
from toolchain.graph.torch_free import VIEWS, operators_for_torch
from toolchain.graph.views import NEW_SHAPES
from windows_side import Session

__all__ = ["host"]

STATIC = ROOT / "tests" / "compatibility" / "schema1" / "static.pt2"
UINT8, INT32, FLOAT64 = 1, 4, 8


def tensor(name: str) -> dict[str, Any]:
    return {"as_tensor": {"name": name}}


def call(operator: str, source: str, output: str, **more: Any) -> dict[str, Any]:
    arguments = [{"name": "self", "arg": tensor(source)}, *({"name": k, "arg": v} for k, v in more.items())]
    return {"target": f"torch.ops.aten.{operator}", "inputs": arguments, "outputs": [tensor(output)]}


def cast(source: str, output: str, dtype: int) -> dict[str, Any]:
    return call("_to_copy.default", source, output, dtype={"as_scalar_type": dtype})


@pytest.fixture
def edited(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Adds nodes before and after the engine of ``static``, which takes x (2, 8) and returns (2, 4)."""

    def edit(
        before: list[Any], behind: list[Any], engine_input: str, outputs: list[str], given: str, *dtypes: str
    ) -> None:
        graph = Artifact.graph

        def changed(artifact: Artifact) -> dict[str, Any]:
            document = graph(artifact)
            nodes = document["graph_module"]["graph"]["nodes"]
            engine = next(node for node in nodes if "no_op_placeholder" in node["target"])
            engine["inputs"][0]["arg"]["as_tensors"] = [{"name": engine_input}]
            nodes[:] = [*before, *nodes, *behind]
            document["graph_module"]["signature"]["output_specs"] = [
                {"user_output": {"arg": tensor(name)}} for name in outputs
            ]
            return document

        manifest = Artifact.manifest

        def of(artifact: Artifact) -> Any:
            found = manifest.__get__(artifact)
            shape = [2, 2, 4] if before and "view" in before[0]["target"] else [2, 8]
            inputs = [found.inputs[0].model_copy(update={"dtype": given, "shape": shape})]
            out = [
                found.outputs[0].model_copy(update={"dtype": dtype, "name": f"y{i}"}) for i, dtype in enumerate(dtypes)
            ]
            spec = '[1, {"type": "builtins.list", "context": "null", "children_spec": [%s]}]'
            leaf = '{"type": null, "context": null, "children_spec": []}'
            convention = found.call.model_copy(update={"out_spec": spec % ", ".join([leaf] * len(dtypes))})
            return found.model_copy(update={"inputs": inputs, "outputs": out, "call": convention, "golden": None})

        monkeypatch.setattr(Artifact, "graph", changed)
        monkeypatch.setattr(Artifact, "manifest", property(of))

    return edit


def opened(**options: Any) -> Session:
    return Session(STATIC, runtime_cache=False, **options)


@pytest.mark.parametrize("graphs", [False, True])
def test_casts_of_inputs_and_outputs_are_numpys(host: Host, edited: Callable[..., None], graphs: bool) -> None:
    output = engine_output()
    edited(
        [cast("x", "f", 7)], [cast(output, "b", UINT8), cast(output, "d", FLOAT64)], "f", ["b", output, "d"],
        "uint8", "uint8", "float32", "float64",
    )  # fmt: skip
    with opened(cuda_graphs=graphs) as session:
        for value in (1, 3, 15):
            b, f, d = session(np.full((2, 8), value, np.uint8))
            assert (b.dtype, f.dtype, d.dtype) == (np.uint8, np.float32, np.float64)
            assert (b == 16 * value).all() and (f == 16 * value).all() and (d == 16 * value).all()
        with pytest.raises(UsageError, match="has dtype float32, not uint8"):
            session(np.ones((2, 8), np.float32))


def test_casts_of_tensors_are_torchs(host: Host, edited: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    torch_on_host(monkeypatch)
    edited([cast("x", "f", 7)], [cast(engine_output(), "i", INT32)], "f", ["i"], "uint8", "int32")
    with opened() as session:
        for value in (1, 3):
            [i] = session(torch.full((2, 8), value, dtype=torch.uint8))
            assert i.dtype is torch.int32 and (i == 16 * value).all()


def test_views_keep_elements_where_they_are(host: Host, edited: Callable[..., None]) -> None:
    output = engine_output()
    views = [
        call("unsqueeze.default", output, "u", dim={"as_int": 1}),
        call("view.default", "u", "v", size={"as_ints": [4, -1]}),
        call("clone.default", "x", "c", memory_format={"as_memory_format": 1}),
    ]
    before = [call("view.default", "x", "m", size={"as_ints": [2, 8]})]
    edited(before, views, "m", ["u", "v", "c"], "float32", "float32", "float32", "float32")
    host.functions[0] = lambda inputs, outputs: outputs["output0"].__setitem__(..., inputs["x"][:, :4])
    x = np.arange(16, dtype=np.float32).reshape(2, 2, 4)
    with opened() as session:
        u, v, c = session(x)
        assert u.shape == (2, 1, 4) and (u[:, 0] == x.reshape(2, 8)[:, :4]).all()
        assert v.shape == (4, 2) and (v.reshape(2, 4) == u[:, 0]).all()
        assert c is not x and (c == x).all() and c.shape == x.shape


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        ([], [cast("OUT", "i", INT32), call("view.default", "i", "END", size={"as_ints": [8]})]),  # a view of a cast
        ([call("view.default", "x", "v", size={"as_ints": [2, 8]}), cast("v", "f", 7)], []),  # a cast of a view
        ([], [call("mul.Tensor", "OUT", "END")]),
    ],
)
def test_what_is_neither_is_named(
    host: Host, edited: Callable[..., None], before: list[Any], behind: list[Any]
) -> None:
    output = engine_output()
    for node in behind:
        node["inputs"] = [{**a, "arg": tensor(output)} if a["arg"] == tensor("OUT") else a for a in node["inputs"]]
    last = behind[-1]["outputs"][0]["as_tensor"]["name"] if behind else output
    edited(before, behind, "f" if before else "x", [last], "float32", "float32")
    with pytest.raises(IncompatibleError, match=r"aten\.(_to_copy\.default|mul\.Tensor)"):
        opened()


def engine_output() -> str:
    from toolchain import open_artifact

    with open_artifact(STATIC) as artifact:
        document = artifact.graph()
        assert not operators_for_torch(document)
        return str(document["graph_module"]["signature"]["output_specs"][0]["user_output"]["arg"]["as_tensor"]["name"])


@pytest.mark.parametrize(
    ("view", "shape", "operands", "wanted"),
    [
        ("view.default", (2, 6), ([3, -1],), (3, 4)), ("view.default", (2, 6), ([12],), (12,)),
        ("reshape.default", (0, 6), ([2, 0],), (2, 0)), ("view.default", (), ([1, 1],), (1, 1)),
        ("unsqueeze.default", (2, 6), (-1,), (2, 6, 1)), ("unsqueeze.default", (2, 6), (0,), (1, 2, 6)),
        ("squeeze.default", (1, 2, 1), (), (2,)), ("squeeze.dim", (1, 2, 1), (-1,), (1, 2)),
        ("squeeze.dim", (1, 2, 1), (1,), (1, 2, 1)), ("squeeze.dims", (1, 2, 1), ((0, 2),), (2,)),
        ("flatten.using_ints", (2, 3, 4), (1,), (2, 12)), ("flatten.using_ints", (), (), (1,)),
        ("clone.default", (2, 3), (None,), (2, 3)), ("alias.default", (2, 3), (), (2, 3)),
    ],
)  # fmt: skip
def test_views_are_torchs(view: str, shape: Any, operands: Any, wanted: Any) -> None:
    assert NEW_SHAPES[f"torch.ops.aten.{view}"](shape, *operands) == wanted
    torch = pytest.importorskip("torch")
    name, overload = view.split(".")
    given = [value for value in operands if value is not None]
    assert tuple(getattr(getattr(torch.ops.aten, name), overload)(torch.zeros(shape), *given).shape) == wanted


def test_every_view_has_its_sizes_and_one_that_does_not_fit_is_refused() -> None:
    assert NEW_SHAPES.keys() == VIEWS
    with pytest.raises(ValueError, match="has none of"):
        NEW_SHAPES["torch.ops.aten.view.default"]((2, 3), [4, -1])
