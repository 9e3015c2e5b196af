"""Artifacts of many kinds of models equal their partitioned graphs to the bit, and agree with the original models.

They agree with the original model twice: with partitions in PyTorch, and with interpreted TensorRT networks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

from linux_side import upstream
from linux_side.frontend.structure import plain_spec
from tests.integration import harness
from tests.integration.graphs import GRAPHS, Graph, random
from tests.integration.harness import Built, assert_same_wiring, build_here
from tests.integration.sessions import session_of
from tests.unit.windows_side.session.host_gpu import on_host
from toolchain.errors import IncompatibleError, UsageError
from toolchain.graph.torch_free import operators_for_torch
from toolchain.manifest.models import DynamicSize

pytestmark = pytest.mark.rtx


def build_graph(graph: Graph, folder: Path) -> Built:
    return build_here(graph.model(), graph.args, graph.kwargs, folder=folder, **graph.options)


def assert_right(built: Built, graph: Graph) -> None:
    """Checks that every call returns the original model's structure and values."""
    model = graph.model()
    for args, kwargs in graph.all_calls():
        copies = pytree.tree_map_only(torch.Tensor, torch.clone, (args, kwargs))  # a model may write into its inputs
        with torch.no_grad():
            want = model(*copies[0], **copies[1])
        got = assert_same_wiring(built, *args, **kwargs)
        assert plain_spec(pytree.tree_structure(got)) == plain_spec(pytree.tree_structure(want))
        for a, b in zip(pytree.tree_leaves(got), pytree.tree_leaves(want), strict=True):
            assert_close(a, b, graph.tolerance)


def assert_networks_right(built: Built, graph: Graph) -> None:
    """Checks that every call, with interpreted TensorRT networks, does what the original model does."""
    model = graph.model()
    for args, kwargs in graph.all_calls():
        harness.assert_right(built, model, args, kwargs)


def assert_close(got: Any, want: Any, tolerance: float) -> None:
    if not isinstance(want, torch.Tensor):
        assert got == want and type(got) is type(want)
        return
    assert got.dtype == want.dtype and got.shape == want.shape
    if want.is_floating_point() or want.is_complex():
        assert (got - want).norm() <= tolerance * want.norm()
    else:
        assert torch.equal(got, want)


# How a network differs from its model, by the graph's name.
WRONG_NETWORKS: dict[str, str] = {}


def each_graph(wrong: dict[str, str]) -> list[Any]:
    """Returns the graphs' names as parameters; all tests of a graph run in one process, so that it is built once."""
    params = []
    for name in GRAPHS:
        marks = [pytest.mark.xdist_group(f"graph {name}")]
        if name in wrong:
            marks.append(pytest.mark.xfail(strict=True, reason=wrong[name]))
        params.append(pytest.param(name, marks=marks))
    return params


@pytest.fixture(scope="module")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Built]:
    folder = tmp_path_factory.mktemp("graphs")
    return cache(lambda name: build_graph(GRAPHS[name], folder))


@pytest.mark.parametrize("name", each_graph(wrong={}))
def test_graph(built_once: Callable[[str], Built], name: str) -> None:
    assert_right(built_once(name), GRAPHS[name])


@pytest.mark.parametrize("name", each_graph(wrong=WRONG_NETWORKS))
def test_networks_do_what_the_model_does(built_once: Callable[[str], Built], name: str) -> None:
    assert_networks_right(built_once(name), GRAPHS[name])


@pytest.mark.parametrize("name", each_graph(wrong={}))
def test_a_session_does_what_load_does_to_the_bit(
    built_once: Callable[[str], Built], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, graph = built_once(name), GRAPHS[name]
    host = on_host(monkeypatch)
    if blockers := operators_for_torch(built.artifact.graph()):
        with pytest.raises(IncompatibleError, match=next(iter(blockers))):
            session_of(built, host)
        return
    model = built._model(list(built.partitions.values()))  # with a state of its own
    with session_of(built, host) as session:
        for call in graph.all_calls():
            ours, theirs = (pytree.tree_map_only(torch.Tensor, torch.clone, call) for _ in range(2))
            got, want = session(*ours[0], **ours[1]), model(*theirs[0], **theirs[1])
            assert pytree.tree_structure(got) == pytree.tree_structure(want)
            pairs = zip(pytree.tree_leaves((got, ours)), pytree.tree_leaves((want, theirs)), strict=True)
            for a, b in pairs:
                if isinstance(b, torch.Tensor):
                    assert a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())
                else:
                    assert a == b and type(a) is type(b)
    assert not host.memory.blocks


@pytest.mark.parametrize("name", ["profiles", "profiles and sizes"])
def test_profiles_are_in_the_manifest_and_in_the_network(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured = []
    real = upstream.builder_config

    def builder_config(interpreter: Any) -> Any:
        config = real(interpreter)
        configured.append((config.num_optimization_profiles, interpreter.optimization_profiles))
        return config

    monkeypatch.setattr(upstream, "builder_config", builder_config)
    built = build_graph(GRAPHS[name], tmp_path)
    assert len(configured) == len(built.artifact.engines)
    for engine, (count, profiles) in zip(built.artifact.engines, configured, strict=True):
        assert count == len(engine.entry.profiles) == 2
        for entry, profile in zip(engine.entry.profiles, profiles, strict=True):
            for binding, shape in entry.items():
                assert [list(size) for size in profile.get_shape(binding)] == [shape.min, shape.opt, shape.max]
        first, second = engine.entry.profiles
        assert all(shape.min == shape.opt == shape.max for shape in first.values())
        assert all(shape.min < shape.opt < shape.max for shape in second.values())


def test_ranges_survive_and_are_enforced(tmp_path: Path) -> None:
    built = build_graph(GRAPHS["dynamic batch and sequence"], tmp_path)
    ranges = built.loaded().range_constraints
    assert sorted((int(r.lower), int(r.upper)) for r in ranges.values()) == [(1, 4), (1, 10)]
    (tokens,) = built.artifact.manifest.inputs
    assert tokens.shape is not None
    assert [(size.min, size.max) for size in tokens.shape if isinstance(size, DynamicSize)] == [(1, 4), (1, 10)]
    for shape, words in {(5, 6): "size 5 in dimension 0, outside 1 to 4", (2, 11): "outside 1 to 10"}.items():
        with pytest.raises(UsageError, match=words):
            built.run(torch.zeros(shape, dtype=torch.int64))
    with pytest.raises(UsageError, match="3 dimensions, not 2"):
        built.run(torch.zeros(2, 6, 1, dtype=torch.int64))
    with pytest.raises(UsageError, match=r"torch\.float32, not torch\.int64"):
        built.run(torch.zeros(2, 6))


def test_equal_sizes_are_enforced(tmp_path: Path) -> None:
    built = build_graph(GRAPHS["equal batches"], tmp_path)
    with pytest.raises(
        UsageError, match="sizes that must be equal are not: 'left' has size 4 in dimension 0, 'right' has size 5"
    ):
        built.run(random(4, 3), random(5, 3))


def test_fixed_values_are_enforced(tmp_path: Path) -> None:
    built = build_graph(GRAPHS["plain values"], tmp_path)
    x = GRAPHS["plain values"].args[0]
    for wrong in ((x, None, 4, True, 0.5), (x, None, 3, 1, 0.5), (x, None, 3, True, 0.25), (x, x, 3, True, 0.5)):
        with pytest.raises(UsageError):
            built.run(*wrong)


def test_weights_that_stay_in_pytorch_keep_strides_and_requires_grad(tmp_path: Path) -> None:
    graph = GRAPHS["strides and gradients"]
    loaded, model = build_graph(graph, tmp_path).loaded(), graph.model()
    assert set(loaded.state_dict) == {"turned", "frozen", "expanded"}
    for name, value in model.state_dict(keep_vars=True).items():
        kept = loaded.state_dict[name]
        assert torch.equal(kept, value)
        assert kept.stride() == value.stride() and kept.requires_grad == value.requires_grad
        assert isinstance(kept, torch.nn.Parameter) == isinstance(value, torch.nn.Parameter)


def test_buffers_stay_persistent_or_not(tmp_path: Path) -> None:
    loaded = build_graph(GRAPHS["buffers"], tmp_path).loaded()
    assert set(loaded.state_dict) == {"kept"}
    assert {"forgotten", "plain"} <= set(loaded.constants)
    kinds = {spec.target: (spec.kind.name, spec.persistent) for spec in loaded.graph_signature.input_specs}
    assert kinds["kept"] == ("BUFFER", True) and kinds["forgotten"] == ("BUFFER", False)


def test_tied_weights_are_stored_once(tmp_path: Path) -> None:
    built = build_graph(GRAPHS["tied weights in PyTorch"], tmp_path)
    weights = [name for name in built.artifact.manifest.files if "data/weights/weight_" in name]
    assert len(weights) == 1


def test_a_cache_is_written_in_place_only_where_it_is_state(tmp_path: Path) -> None:
    aliased = {}
    for name in ("key-value cache", "old and new cache", "cache given and returned"):
        built = build_graph(GRAPHS[name], tmp_path)
        aliased[name] = [pair.input for engine in built.artifact.engines for pair in engine.entry.aliased_io]
    assert aliased == {
        "key-value cache": ["state_keys", "state_values"],
        "old and new cache": [],
        "cache given and returned": [],
    }


def test_state_is_declared_and_starts_where_the_model_starts(tmp_path: Path) -> None:
    built = build_graph(GRAPHS["key-value cache"], tmp_path)
    signature = built.loaded().graph_signature
    assert list(signature.buffers_to_mutate.values()) == ["keys", "values"]
    assert all(not buffer.any() for buffer in built.buffers())
