"""Decomposing each distinct call once gives the same program as torch's decomposition of the whole program."""

from __future__ import annotations

import io
import operator
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

from linux_side.lowering import distinct_calls  # noqa: E402
from linux_side.lowering.call_signature import PlainWayError  # noqa: E402
from linux_side.lowering.distinct_calls import run_decompositions  # noqa: E402

_OF_THE_CALL = ("stack_trace", "nn_module_stack", "original_aten")


class Layers(nn.Module):
    """A model with the same layer several times: attention, norms, views, parts."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(8))
        self.inner = nn.ModuleList(nn.Linear(8, 24) for _ in range(8))

    def forward(self, x: Any) -> Any:
        for norm, inner in zip(self.norms, self.inner, strict=True):
            query, key, value = inner(norm(x)).chunk(3, dim=-1)
            x = x + F.dropout(F.scaled_dot_product_attention(query, key, value), 0.5, training=False)
        return x.transpose(0, 1), F.silu(x).flatten(1)


class Written(nn.Module):
    """A residual block that writes in place, as torchvision's does."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(3))

    def forward(self, x: Any) -> Any:
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            y = F.relu(norm(convolution(x)), inplace=True)
            y += x
            x = F.hardswish(y, inplace=True)
        return (y,)


class Numbers(nn.Module):
    """A model whose calls differ only in a number, or in whether two arguments are the same tensor."""

    def forward(self, x: Any, y: Any) -> Any:
        whole = y * 2, y * 2.0, y * True, y - y, y - (y + 1)
        return *whole, x.clamp(min=0.0), x.clamp(min=-0.0), x.var(0), x.var(0, correction=0), torch.split(x, 2)[1]


class Identity(nn.Module):
    def forward(self, x: Any) -> Any:
        return (x,)


class Strided(nn.Module):
    """A model in which a decomposition's result has other strides than the operator's."""

    def forward(self, x: Any) -> Any:
        y = F.interpolate(x.to(memory_format=torch.channels_last), scale_factor=2.0, mode="bilinear")
        return F.pixel_shuffle(y, 2) + 1, y.contiguous().view(-1)


class Mask(nn.Module):
    """A model that writes a mask part by part, as Swin does, and reads a view that it made before."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.register_buffer("scale", torch.ones(4))

    def forward(self, x: Any) -> Any:
        mask = torch.zeros_like(x)
        turned, count = mask.permute(1, 0), 0.0
        for rows in (slice(0, 2), slice(2, 3)):
            for columns in (slice(0, -1), slice(-1, None)):
                mask[rows, columns] = count
                count += 1
            x = self.inner(x) * self.scale
        mask += 1
        return mask.view(-1, 1) * x.sum(), turned + 1


class Masks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.masks = nn.ModuleList(Mask() for _ in range(2))

    def forward(self, x: Any) -> Any:
        return [part for mask in self.masks for part in mask(x)]


class Given(nn.Module):
    """A model that returns a tensor which it wrote in part."""

    def forward(self, x: Any) -> Any:
        mask = torch.zeros_like(x)
        mask[1:] = 1
        return (mask,)


class Between(nn.Module):
    """A model that writes a part of one tensor into a part of another."""

    def forward(self, x: Any) -> Any:
        one, other = torch.zeros_like(x), torch.ones_like(x)
        one[1:] = x[1:]
        other[:1] = one[:1]
        return (one * other,)


class Viewed(nn.Module):
    """A model that writes to a tensor after a view of it was made."""

    def forward(self, x: Any) -> Any:
        y = x * 2
        rows = y.view(-1)
        F.relu(y, inplace=True)
        return (rows + 1,)


class PartOfWritten(nn.Module):
    """A model that writes to a part of a tensor, and then reads the tensor."""

    def forward(self, x: Any) -> Any:
        y = x * 2
        y.select(0, 0).add_(1)
        return (y + 1,)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Any) -> Any:
        self.count.add_(1)
        return F.gelu(x) * self.count


def _exported(module: nn.Module, *args: Any, **options: Any) -> Any:
    with torch.no_grad():
        return torch.export.export(module.eval(), args, **options)


def _table() -> dict[Any, Callable[..., Any]]:
    return dict(torch.export.default_decompositions())


def _said(value: Any) -> Any:
    if isinstance(value, torch.fx.Node):
        return f"%{value.name}"
    if isinstance(value, torch.Tensor):
        return [value.dtype, *map(str, value.shape), *map(str, value.stride()), value.requires_grad]
    if isinstance(value, (list, tuple)):
        return [_said(item) for item in value]
    return repr(value)


def _nodes(program: Any) -> list[Any]:
    """Returns everything about each node that a build uses."""
    return [
        [
            (node.op, node.name, str(node.target)),
            _said(node.args),
            _said(list(node.kwargs.items())),
            _said(node.meta.get("val")),
            [str(node.meta.get(key)) for key in _OF_THE_CALL if node.op == "call_function"],
            [source.name for source in node.meta.get("from_node", ()) if node.op == "call_function"],
        ]
        for node in program.graph.nodes
    ]


def _calls(program: Any) -> int:
    return sum(node.op == "call_function" and node.target is not operator.getitem for node in program.graph.nodes)


FAST: Sequence[tuple[nn.Module, tuple[Any, ...]]] = (
    (Layers(), (torch.randn(2, 4, 8),)),
    (Written(), (torch.randn(1, 4, 6, 6),)),
    (Numbers(), (torch.randn(4, 3), torch.arange(4))),
    (Identity(), (torch.randn(2),)),
    (Strided(), (torch.randn(1, 4, 4, 4),)),
    (Masks(), (torch.randn(3, 4),)),
)


@pytest.mark.parametrize(("module", "args"), FAST, ids=[type(module).__name__ for module, _ in FAST])
def test_each_node_is_torchs_own(module: nn.Module, args: tuple[Any, ...]) -> None:
    program = _exported(module, *args)
    found = distinct_calls._Decomposer(program, _table()).run()
    expected = program.run_decompositions(_table())
    assert _nodes(found) == _nodes(expected)
    assert str(found.graph_signature) == str(expected.graph_signature)
    for one, other in zip(found.module()(*args), expected.module()(*args), strict=True):
        assert torch.equal(one, other)


def _saved(program: Any) -> Any:
    """Saves and loads the program, after which no two values of its nodes share memory."""
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file)


@pytest.mark.parametrize(
    "module",
    [Viewed(), PartOfWritten(), Counting(), Written(), Given(), Between()],
    ids=lambda module: type(module).__name__,
)
@pytest.mark.parametrize("given", [lambda program: program, _saved], ids=["exported", "saved"])
def test_no_write_is_lost(module: nn.Module, given: Callable[[Any], Any]) -> None:
    x = torch.randn(2, 4, 6, 6)
    program = given(_exported(module, x))
    found, expected = run_decompositions(program, _table()), program.run_decompositions(_table())
    assert [str(spec.kind) for spec in found.graph_signature.output_specs] == [
        str(spec.kind) for spec in expected.graph_signature.output_specs
    ]
    one_run, other_run = (deepcopy(program.module())(x) for program in (found, expected))
    for one, other in zip(one_run, other_run, strict=True):
        assert torch.equal(one, other)


def test_an_operator_that_writes_and_gives_nothing_goes_torchs_way() -> None:
    def double_into(x: Any, out: Any) -> None:
        out.copy_(x * 2)

    schema = "(Tensor x, Tensor(a!) out) -> ()"
    torch.library.custom_op("trtcross_test::double_into", double_into, mutates_args=("out",), schema=schema)

    class Doubling(nn.Module):
        def forward(self, x: Any) -> Any:
            out = torch.zeros_like(x)
            torch.ops.trtcross_test.double_into(x, out)
            return (out + 1,)

    x = torch.randn(3)
    found = run_decompositions(_exported(Doubling(), x), _table())
    torch.testing.assert_close(found.module()(x)[0], 2 * x + 1)


def test_a_layer_that_repeats_is_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    program, given = _exported(Layers(), torch.randn(2, 4, 8)), list[int]()
    decompose = torch.export.ExportedProgram.run_decompositions

    def counted(self: Any, *args: Any) -> Any:
        given.append(_calls(self))
        return decompose(self, *args)

    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", counted)
    run_decompositions(program, _table())
    assert sum(given) < _calls(program) / 2


@pytest.mark.parametrize(
    ("module", "options"),
    [
        (Given(), {}),
        (Between(), {}),
        (Counting(), {}),
        (Layers(), {"dynamic_shapes": ({0: torch.export.Dim("batch", min=2)},)}),
    ],
    ids=["written in part and given", "written from one into another", "state", "sizes that vary"],
)
def test_what_calls_do_not_tell_by_themselves_goes_torchs_way(module: nn.Module, options: dict[str, Any]) -> None:
    program = _exported(module, torch.randn(2, 4, 8), **options)
    with pytest.raises(PlainWayError):
        distinct_calls._Decomposer(program, _table()).run()
    found, expected = run_decompositions(program, _table()), program.run_decompositions(_table())
    # torch itself gives nodes other names the second time that it reads a dynamic size.
    assert [str(node.target) for node in found.graph.nodes if node.op == "call_function"] == [
        str(node.target) for node in expected.graph.nodes if node.op == "call_function"
    ]
