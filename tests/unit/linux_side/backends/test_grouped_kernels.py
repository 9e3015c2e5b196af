"""Grouped convolutions of as many channels get kernels of one size, and compute what they did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from linux_side.backends.grouped_kernels import unify_grouped_kernels

_C = 8


def conv(kernel: Any, **how: Any) -> nn.Conv2d:
    return nn.Conv2d(how.pop("channels", _C), how.pop("out", _C), kernel, groups=how.pop("groups", _C), **how)


def traced(layers: Sequence[nn.Module], x: Any, mode: str = "symbolic") -> Any:
    torch.manual_seed(0)
    module = nn.Sequential(*layers).eval().requires_grad_(False)
    made = make_fx(module, tracing_mode=mode, _allow_non_fake_inputs=True)(x)
    for node in made.graph.find_nodes(op="get_attr"):
        node.meta["val"] = getattr(made, node.target)
    return made


def kernels(graph_module: Any) -> list[tuple[int, ...]]:
    nodes = graph_module.graph.find_nodes(op="call_function", target=torch.ops.aten.convolution.default)
    return [tuple(node.args[1].meta["val"].shape[2:]) for node in nodes]


class Shifted(nn.Conv2d):
    """A convolution whose bias is computed."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert self.bias is not None
        return nn.functional.conv2d(x, self.weight, self.bias * 2, self.stride, 1, groups=self.groups)


UNIFIED = {
    "a computed bias": ([Shifted(_C, _C, 3, groups=_C), conv(5, padding=2)], [(5, 5), (5, 5)]),
    "3 and 5": ([conv(3, padding=1), conv(5, padding=2)], [(5, 5), (5, 5)]),
    "3, 5 and 7, without padding": ([conv(3), conv(5), conv(7)], [(7, 7)] * 3),
    "rows and squares": ([conv((1, 5)), conv(3), conv((5, 1))], [(5, 5)] * 3),
    "dilated and dense": ([conv(3, dilation=2, padding=2), conv(5)], [(5, 5), (5, 5)]),
    "dilated, and larger": ([conv(3, dilation=3), conv(5)], [(7, 7), (7, 7)]),
    "both with stride 2": ([conv(3, stride=2, padding=1), conv(5, stride=2, padding=2)], [(5, 5), (5, 5)]),
    "two channels a group": ([conv(3, groups=4), conv(5, groups=4)], [(5, 5), (5, 5)]),
}


@pytest.mark.parametrize("name", UNIFIED)
def test_kernels_of_other_sizes_are_enlarged(name: str) -> None:
    layers, wanted = UNIFIED[name]
    x = torch.randn(2, _C, 23, 21)
    made = traced(layers, x)
    unify_grouped_kernels(made)
    made.graph.lint()
    made.recompile()
    assert kernels(made) == wanted
    for given in (x, torch.randn(5, _C, 23, 21)):
        torch.testing.assert_close(made(given), nn.Sequential(*layers)(given))


LEFT = {
    "as many weights": ([conv((1, 5)), conv((5, 1))], [(1, 5), (5, 1)]),
    "one dilated": ([conv(3), conv(3, dilation=2)], [(3, 3), (3, 3)]),
    "other strides": ([conv(3), conv(5, stride=2)], [(3, 3), (5, 5)]),
    "other channels": ([conv(3), conv(5, out=16), conv(3, channels=16, out=16, groups=16)], [(3, 3), (5, 5), (3, 3)]),
    "odd and even": ([conv(4), conv(5)], [(4, 4), (5, 5)]),
    "no groups": ([conv(3, groups=1), conv(5, groups=1)], [(3, 3), (5, 5)]),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_not_mistaken_stays(name: str) -> None:
    layers, wanted = LEFT[name]
    made = traced(layers, torch.randn(2, _C, 23, 21))
    unify_grouped_kernels(made)
    assert kernels(made) == wanted


def test_fixed_sizes_stay() -> None:
    layers, _ = UNIFIED["3 and 5"]
    made = traced(layers, torch.randn(2, _C, 9, 9), mode="fake")
    unify_grouped_kernels(made)
    assert kernels(made) == [(3, 3), (5, 5)]
