"""Which calls draw random numbers, and which calls are the training form of an operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch")
modes = pytest.importorskip("linux_side.fx.modes")

functional = torch.nn.functional

# What the model computes; the operator; whether it draws, and whether it is in its training form.
CALLS: dict[str, tuple[Callable[..., torch.Tensor], str, bool, bool]] = {
    "randn": (torch.randn_like, "randn_like", True, False),
    "bernoulli of nothing": (lambda x: torch.bernoulli(x, 0.0), "bernoulli", True, False),
    "sum": (torch.sum, "sum", False, False),
    "dropout": (lambda x: functional.dropout(x, 0.5, True), "dropout", True, True),
    "dropout in eval": (lambda x: functional.dropout(x, 0.5, False), "dropout", False, False),
    "dropout of nothing": (lambda x: functional.dropout(x, 0.0, True), "dropout", False, False),
    "native dropout in eval": (lambda x: torch.native_dropout(x, 0.5, False)[0], "native_dropout", False, False),
    "native dropout, not told": (lambda x: torch.native_dropout(x, 0.5, None)[0], "native_dropout", True, True),
    "rrelu": (lambda x: functional.rrelu(x, training=True), "rrelu", True, True),
    "rrelu in eval": (functional.rrelu, "rrelu", False, False),
    "attention": (lambda x: functional.scaled_dot_product_attention(x, x, x), "attention", False, False),
    "attention with dropout": (
        lambda x: functional.scaled_dot_product_attention(x, x, x, dropout_p=0.1), "attention", True, True,
    ),
    "batch norm": (torch.nn.BatchNorm1d(8), "batch_norm", False, True),
    "batch norm in eval": (torch.nn.BatchNorm1d(8).eval(), "batch_norm", False, False),
    "batch norm of the batch": (
        lambda x: functional.batch_norm(x, None, None, training=True), "batch_norm", False, False,
    ),
}  # fmt: skip


class Calls(torch.nn.Module):
    def __init__(self, call: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.call = call

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.call(x)


@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_what_a_call_switches_on(name: str, decomposed: bool) -> None:
    call, operator, draws, trains = CALLS[name]
    program = torch.export.export(Calls(call), (torch.ones(4, 8),))
    program = program.run_decompositions({}) if decomposed else program  # the functional form of what changes state
    calls = [node for node in program.graph.nodes if operator in str(node.target)]
    if calls or not decomposed:
        assert [(modes.draws(node), modes.trains(node)) for node in calls] == [(draws, trains)]


def operators() -> Iterator[torch._ops.OpOverload]:
    for schema in torch._C._jit_get_all_schemas():
        namespace, _, name = schema.name.partition("::")
        if namespace in ("aten", "prims") and "backward" not in name and "quantized" not in name:
            packet = getattr(getattr(torch.ops, namespace), name, None)
            if packet is not None and (schema.overload_name or "default") in packet.overloads():
                yield getattr(packet, schema.overload_name or "default")


def test_pytorchs_tag_is_on_every_operator_that_takes_a_generator_or_drops() -> None:
    """The tag is not on initializers, nor on an LSTM's single layer, which drops nothing."""
    untagged = {
        op._opname
        for op in operators()
        if {"generator", "train", "training", "dropout_p"} & {argument.name for argument in op._schema.arguments}
        and torch.Tag.nondeterministic_seeded not in op.tags
    }
    assert {name for name in untagged if "batch_norm" not in name} <= {
        "_no_grad_normal_", "_no_grad_uniform_", "mkldnn_rnn_layer",
    }  # fmt: skip


def test_every_batch_norm_that_can_train_is_known_by_its_name() -> None:
    taken = {op._opname for op in operators() if "running_mean" in {a.name for a in op._schema.arguments}}
    assert {name for name in taken if "batch_norm" not in name} <= {"instance_norm", "cudnn_batch_norm"}
