"""The harness itself finds what differs from the original model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.integration.graphs import STEP, KeyValueCache, random
from tests.integration.harness import Built, assert_right, build_here
from tests.integration.network import UnknownLayerError
from tests.integration.network.layers import READERS
from tests.models import tiny

pytestmark = pytest.mark.rtx


class Like(nn.Module):
    """A model that does what the original does, and something more."""

    def __init__(self, original: nn.Module, more: Callable[[Tensor, Tensor], object]) -> None:
        super().__init__()
        self.original, self.more = original, more

    def forward(self, x: Tensor) -> object:
        return self.more(x, self.original(x))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    model, args = tiny()
    return build_here(model, args, folder=tmp_path_factory.mktemp("tiny"), dynamic=("x.0=1:2:4",))


def test_the_original_is_right_at_every_size(built: Built) -> None:
    assert built.original is not None
    assert_right(built, built.original, (random(2, 8),), other_args=[(random(1, 8),), (random(4, 8),)])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (lambda x, y: y + 1e-3 * (torch.arange(y.numel()) == 5).reshape(y.shape), "off by"),
        (lambda x, y: (y,), "another structure"),
        (lambda x, y: y.double(), "float64"),
        (lambda x, y: y[None], r"torch.Size\(\[1, 2, 4\]\)"),
        (lambda x, y: y.masked_fill(y == 0, torch.nan), "instead of"),
        (lambda x, y: y * x.zero_().exp()[:, :4], "argument after the call"),
    ],
)
def test_what_differs_is_found(built: Built, more: Callable[[Tensor, Tensor], object], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        assert_right(built, Like(tiny()[0], more), (random(2, 8),))


class Forgetful(KeyValueCache):
    """A model that returns what the cache returns, and forgets the values."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, position: Tensor) -> Tensor:
        result = super().forward(query, key, value, position)
        self.values.zero_()
        return result


def test_another_state_is_found(tmp_path: Path) -> None:
    args = (STEP, STEP + 1, STEP * 2, torch.tensor([0]))
    built = build_here(KeyValueCache().eval(), args, folder=tmp_path)
    with pytest.raises(AssertionError, match="state values"):
        assert_right(built, Forgetful().eval(), args)


def test_a_layer_that_the_interpreter_does_not_know_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, args = tiny()
    monkeypatch.delitem(READERS, "ACTIVATION")
    built = build_here(model, args, folder=tmp_path)
    assert built.run(*args).shape == (2, 4)
    with pytest.raises(UnknownLayerError, match="is a ACTIVATION"):
        assert_right(built, model, args)
