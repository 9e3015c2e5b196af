"""What the rules keep in fp32, and that a program in mixed precision agrees with the fp32 program."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch")

from torch import nn

from linux_side.precision.apply import insert_casts
from linux_side.precision.assign import Assignment, assign
from linux_side.precision.patterns import KeepPatterns
from linux_side.precision.rules import default_rules, operator_name
from linux_side.precision.simulate import relative_errors, run_rounded
from tests.unit.linux_side.precision.models import (
    Attention,
    Cache,
    Norms,
    Pixels,
    Rotary,
    SmallVariance,
    Warp,
    exported,
)

HALVES = [torch.float16, torch.bfloat16]
UNIT = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def keep_mask() -> Any:
    keep = torch.ones(2, 6, dtype=torch.int64)
    keep[:, 4:], keep[1] = 0, 0
    return keep


CASES = {
    "attention": lambda: (Attention(), (torch.randn(2, 6, 16), keep_mask())),
    "rotary": lambda: (Rotary(), (torch.randn(4096, 8), torch.arange(4096))),
    "warp": lambda: (Warp(), (torch.rand(1, 3, 16, 24),)),
    "norms": lambda: (Norms(), (torch.randn(4, 16),)),
    "batch norm": lambda: (SmallVariance(), (torch.rand(1, 3, 8, 8),)),
    "log softmax": lambda: (nn.Sequential(nn.Linear(4, 4), nn.LogSoftmax(-1)), (torch.randn(6, 4) * 40,)),
    "recurrent": lambda: (nn.GRU(8, 16, batch_first=True), (torch.randn(2, 5, 8),)),
}


def assigned(program: Any, dtype: Any = torch.float16, keep: Sequence[str] = ()) -> Assignment:
    return assign(program, default_rules(), dtype, KeepPatterns(keep).reason)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_a_program_in_mixed_precision_gives_what_the_model_gives(name: str, dtype: Any) -> None:
    model, args = CASES[name]()
    program = exported(copy.deepcopy(model), *args)
    with torch.no_grad():
        want = [value.clone() for value in torch.utils._pytree.tree_leaves(model.eval()(*args))]
    found = assigned(program, dtype)
    simulated = relative_errors(run_rounded(program, found.half, dtype, args), want)
    got = torch.utils._pytree.tree_leaves(insert_casts(program, found, dtype).module()(*args))
    for value, wanted, error, rounded in zip(got, want, relative_errors(got, want), simulated, strict=True):
        assert value.dtype is wanted.dtype and value.shape == wanted.shape
        assert error is not None and rounded is not None
        assert error < 8 * UNIT[dtype] and rounded < 8 * UNIT[dtype]
        assert error < 4 * rounded + 1e-6, "the simulation must not be rosier than the program"


def test_what_the_caller_gives_and_gets_keeps_its_dtype() -> None:
    program = insert_casts(p := exported(Warp(), torch.rand(1, 3, 16, 24)), assigned(p), torch.float16)
    names = {*program.graph_signature.user_inputs, *program.graph_signature.user_outputs}
    assert {n.meta["val"].dtype for n in program.graph.nodes if n.name in names} == {torch.float32}
    assert {tensor.dtype for tensor in program.state_dict.values()} == {torch.float16}


def operators(program: Any, found: Assignment, *, half: bool) -> set[str]:
    nodes = [node for node in program.graph.nodes if node.op == "call_function" and operator_name(node.target)]
    return {operator_name(node.target).removeprefix("aten.") for node in nodes if (node in found.half) is half}


def test_products_are_in_halves_and_their_weights_too() -> None:
    program = exported(Norms(), torch.randn(4, 16))
    found = assigned(program)
    assert "linear" in operators(program, found, half=True)
    assert {"layer_norm", "pow", "mean", "rsqrt"} <= operators(program, found, half=False)
    mixed = insert_casts(program, found, torch.float16)
    assert mixed.state_dict["inner.0.weight"].dtype is torch.float16
    assert mixed.state_dict["inner.1.weight"].dtype is torch.float32


def test_tables_of_positions_stay_in_fp32() -> None:
    program = exported(Rotary(), torch.randn(8, 8), torch.arange(8))
    stay = operators(program, assigned(program), half=False)
    assert {"cos", "sin", "cat"} <= stay
    assert insert_casts(program, assigned(program), torch.float16).state_dict["inv_freq"].dtype is torch.float32


def test_what_leads_to_a_grid_stays_in_fp32_although_a_product_reads_it_too() -> None:
    program = exported(Warp(), torch.rand(1, 3, 16, 24))
    found = assigned(program)
    reasons = {operator_name(node.target): reason for node, reason in found.reasons.items()}
    assert reasons["aten.mul"] == "a coordinate"
    convolutions = [node for node in program.graph.nodes if operator_name(node.target) == "aten.conv2d"]
    assert len(convolutions) == 2 and set(convolutions) <= found.half


def test_what_becomes_a_whole_number_stays_in_fp32() -> None:
    program = exported(Pixels(), torch.randn(4096, 4), torch.randn(3, 4))
    assert {"sigmoid", "mul", "round"} <= operators(program, assigned(program), half=False)


def test_a_constant_that_fp16_cannot_hold_stays_but_bf16_holds_it() -> None:
    class Clamped(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.masked_fill(x > 0, -1e30).relu() / (x.abs() + 1e-12)

    program = exported(Clamped(), torch.randn(4))
    assert {"masked_fill", "add"} <= operators(program, assigned(program), half=False)
    assert not {"masked_fill", "add"} & operators(program, assigned(program, torch.bfloat16), half=False)


def test_a_weight_that_fp16_cannot_hold_stays() -> None:
    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.full((4, 4), 1e6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(x, self.weight)

    program = exported(Large(), torch.ones(1, 4))
    mixed = insert_casts(program, assigned(program), torch.float16)
    assert torch.equal(mixed.module()(torch.ones(1, 4)), torch.full((1, 4), 4e6))


def test_state_is_in_halves_where_halves_read_it_and_sums_over_calls_are_not() -> None:
    args = torch.randn(2, 8), torch.tensor([1, 3])
    model = Cache()
    program = exported(copy.deepcopy(model), *args)
    mixed = insert_casts(program, assigned(program), torch.float16)
    assert mixed.state_dict["keys"].dtype is torch.float16 and mixed.state_dict["total"].dtype is torch.float32
    module = mixed.module()
    for _ in range(3):
        with torch.no_grad():
            got, want = module(*args), model.eval()(*args)
    for error in relative_errors(got, want):
        assert error is not None and error < 8 * UNIT[torch.float16]


def test_the_models_own_tensors_are_never_replaced() -> None:
    model = Cache()
    before = dict(model.state_dict(keep_vars=True))
    program = exported(model, torch.randn(2, 8), torch.tensor([1, 3]))
    insert_casts(program, assigned(program), torch.float16)
    assert all(model.state_dict(keep_vars=True)[name] is tensor for name, tensor in before.items())
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}


def test_one_tensor_of_two_names_stays_one() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(10, 8), nn.Linear(8, 10, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.embed(ids))

    program = exported(Tied(), torch.tensor([[1, 2]]))
    state = insert_casts(program, assigned(program), torch.float16).state_dict
    assert len({tensor.data_ptr() for tensor in state.values()}) == 1


@pytest.mark.parametrize(
    ("pattern", "kept"),
    [
        ("inner", {"linear", "gelu"}),
        ("inner.0", {"linear"}),
        ("inner.?", {"linear", "gelu"}),
        ("aten.gelu", {"gelu"}),
        ("aten.linear.default", {"linear"}),
        ("inner:aten.lin*", {"linear"}),
    ],
)
def test_patterns_name_modules_operators_or_both(pattern: str, kept: set[str]) -> None:
    program = exported(Norms(), torch.randn(4, 16))
    more = operators(program, assigned(program, keep=[pattern]), half=False) - operators(
        program, assigned(program), half=False
    )
    assert more == kept
