"""Every graph that people have: right to the bit against its partitioned graph, and right against the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

from tests.integration.graphs import GRAPHS, Graph
from tests.integration.harness import Built, assert_same_wiring, build_here

pytestmark = pytest.mark.rtx


def build_graph(graph: Graph, folder: Path) -> Built:
    return build_here(graph.model(), graph.args, graph.kwargs, folder=folder, **graph.options)


def assert_right(built: Built, graph: Graph) -> None:
    """Every call gives the model's own structure and values."""
    model = graph.model()
    for args, kwargs in graph.all_calls():
        copies = pytree.tree_map_only(torch.Tensor, torch.clone, (args, kwargs))  # a model may write into its inputs
        with torch.no_grad():
            want = model(*copies[0], **copies[1])
        got = assert_same_wiring(built, *args, **kwargs)
        assert pytree.tree_structure(got) == pytree.tree_structure(want)
        for a, b in zip(pytree.tree_leaves(got), pytree.tree_leaves(want), strict=True):
            assert_close(a, b, graph.tolerance)


def assert_close(got: Any, want: Any, tolerance: float) -> None:
    if not isinstance(want, torch.Tensor):
        assert got == want and type(got) is type(want)
        return
    assert got.dtype == want.dtype and got.shape == want.shape
    if want.is_floating_point() or want.is_complex():
        assert (got - want).norm() <= tolerance * want.norm()
    else:
        assert torch.equal(got, want)


@pytest.mark.parametrize("name", GRAPHS)
def test_graph(tmp_path: Path, name: str) -> None:
    assert_right(build_graph(GRAPHS[name], tmp_path), GRAPHS[name])
