"""Guards in real builds: the artifact refuses the sizes that torch's own program refuses, and states why.

Each artifact is also called with sizes that it accepts, and compared with the original model.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F  # noqa: N812 - its usual name

from linux_side.backends import tensorrt_rtx
from linux_side.frontend.source import load_source
from linux_side.options import BuildOptions, DynamicDimension
from tests.integration.harness import Built, assert_same_wiring, build_here, build_source, imported_builder
from tests.integration.harness import assert_right as assert_network_right
from toolchain.artifact import open_artifact
from toolchain.convert import convert_artifact
from toolchain.errors import BuildFailedError, UsageError
from toolchain.manifest.describe import size_lines
from toolchain.targets import Platform

pytestmark = pytest.mark.rtx

Forward = Callable[..., Any]


class Small(nn.Module):
    """A linear layer, and a case's function of the layer and the inputs."""

    def __init__(self, case: Forward) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 4)
        self.case = case

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        return self.case(self.linear, x, y)


def rows(*counts: int) -> tuple[Tensor, ...]:
    """Returns for each count a tensor of two samples, ``count`` rows and four columns."""
    return tuple(torch.randn(2, count, 4) for count in counts)


def built_of(case: Forward, example: Sequence[Tensor], folder: Path, *dynamic: str) -> Built:
    return build_here(Small(case).eval(), tuple(example), folder=folder, dynamic=dynamic)


def by_eight(linear: nn.Linear, x: Tensor, _: Any) -> Tensor:
    return linear(x) * 3 if x.shape[1] % 8 else linear(x) * 2


def doubled(_: nn.Linear, x: Tensor, y: Tensor) -> Tensor:
    return torch.cat([x, x], 1) + y


def assert_right(built: Built, case: Forward, *inputs: Tensor) -> None:
    with torch.no_grad():
        want = Small(case).eval()(*inputs)
    torch.testing.assert_close(assert_same_wiring(built, *inputs), want)


Rows = tuple[int, ...]
# A forward, its example and dynamic dimensions; its guards; rows that are accepted; rows that are refused, and why.
CASES: dict[str, tuple[Forward, tuple[Tensor, ...], list[str], list[str], list[Rows], dict[Rows, str]]] = {
    "multiple": (
        by_eight, rows(16), ["x.1=8:16:24"], ["x.1 % 8 == 0"], [(8,), (24,)],
        {(20,): "x: dimension 1 is 20; it must be a multiple of 8"},
    ),
    "no multiple": (
        by_eight, rows(15), ["x.1=2:15:39"], ["x.1 % 8 != 0"], [(2,), (39,)],
        {(32,): "x: dimension 1 is 32; it must not be a multiple of 8"},
    ),
    "odd": (
        lambda linear, x, _: linear(x) * (2 if x.shape[1] % 2 == 0 else 3), rows(15), ["x.1=3:15:23"],
        ["x.1 % 2 == 1"], [(3,), (21,)], {(4,): "x: dimension 1 is 4; it must be a multiple of 2 plus 1"},
    ),
    "double": (
        doubled, rows(16, 32), ["x.1=2:16:24", "y.1=4:32:48"], ["y.1 == 2 * x.1"], [(2, 4), (24, 48)],
        {(3, 7): "y: dimension 1 is 7 and x: dimension 1 is 3; y.1 must be 2 * x.1"},
    ),
    "three more": (
        lambda _, x, y: x[:, 3:] + y, rows(16, 13), ["x.1=5:16:24", "y.1=2:13:21"], ["x.1 == y.1 + 3"],
        [(5, 2), (24, 21)], {(7, 5): "x: dimension 1 is 7 and y: dimension 1 is 5; x.1 must be y.1 + 3"},
    ),
    "unequal": (
        lambda linear, x, y: (linear(x), y * 2) if x.shape[1] != y.shape[1] else (linear(x) + y, y), rows(16, 13),
        ["x.1=5:16:24", "y.1=2:13:21"], ["x.1 != y.1"], [(7, 6), (24, 21)],
        {(7, 7): "x: dimension 1 is 7 and y: dimension 1 is 7; x.1 must not be y.1"},
    ),
    "product": (
        lambda linear, x, y: (linear(x), y + 1) if x.shape[1] * y.shape[1] % 3 else (x, y), rows(16, 13),
        ["x.1=8:16:23", "y.1=13:13:20"], ["x.1 * y.1 % 3 != 0"], [(8, 14), (23, 20)],
        {(8, 15): "x: dimension 1 is 8 and y: dimension 1 is 15; the model needs x.1 * y.1 % 3 != 0"},
    ),
    "product within its range": (
        lambda linear, x, y: (linear(x), y + 1) if x.shape[1] * y.shape[1] > 100 else (x, y), rows(16, 13),
        ["x.1=8:16:24", "y.1=13:13:20"], [], [(8, 13), (24, 20)], {},
    ),
    "either": (
        lambda linear, x, y: (linear(x), y + 1) if (x.shape[1] > 7) | (y.shape[1] == 3) else (x, y), rows(16, 3),
        ["x.1=8:16:24", "y.1=3:3:9"], [], [(8, 4), (24, 9)], {},
    ),
    "ratio": (
        lambda linear, x, y: (linear(x), y + 1) if x.shape[1] / y.shape[1] > 1.5 else (x, y), rows(16, 8),
        ["x.1=8:16:32", "y.1=2:8:20"], ["2 * x.1 > 3 * y.1"], [(8, 5), (32, 20)],
        {(9, 6): "x: dimension 1 is 9 and y: dimension 1 is 6; the model needs 2 * x.1 > 3 * y.1"},
    ),
    "halves": (
        lambda _, x, __: torch.cat(x.chunk(2, 1), 0) * 2, rows(16), ["x.1=4:16:24"], ["x.1 % 2 == 0"], [(4,), (22,)],
        {(7,): "x: dimension 1 is 7; it must be a multiple of 2"},
    ),
    "view": (
        lambda _, x, __: x.view(2, -1, 4, 4) * 2, rows(16), ["x.1=8:16:24"], ["x.1 % 4 == 0"], [(8,), (20,)],
        {(10,): "x: dimension 1 is 10; it must be a multiple of 4"},
    ),
    "two profiles": (
        by_eight, rows(16), ["x.1=8:8:16,24:32:40"], ["x.1 % 8 == 0"], [(8,), (40,)],
        {(20,): "x: dimension 1 is 20; it must be a multiple of 8"},
    ),
    "equal": (
        lambda linear, x, y: linear(x) + y, rows(16, 16), ["x.1=5:16:24", "y.1=5:16:24"], [], [(5, 5), (24, 24)],
        {(5, 6): "sizes that must be equal are not"},
    ),
    "implied by the range": (
        lambda linear, x, _: linear(x) * 3 if x.shape[1] > 8 else linear(x), rows(16), ["x.1=9:16:24"], [],
        [(9,), (24,)], {(8,): "has size 8 in dimension 1, outside 9 to 24"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_guard_is_kept_and_checked_at_every_call(tmp_path: Path, name: str) -> None:
    case, example, dynamic, guards, right, refused = CASES[name]
    built = built_of(case, example, tmp_path, *dynamic)
    manifest = built.artifact.manifest
    assert (manifest.guards, manifest.schema_version) == (guards, 2 if guards else 1)
    for counts in right:
        assert_right(built, case, *rows(*counts))
    for counts, why in refused.items():
        with pytest.raises(UsageError) as raised:
            built.run(*rows(*counts))
        assert why in str(raised.value)


@pytest.mark.parametrize(
    ("case", "example", "dynamic"),
    [
        (by_eight, rows(16), ["x.1=8:16:32"]),
        (CASES["ratio"][0], rows(16, 8), ["x.1=8:16:32", "y.1=2:8:20"]),
        (CASES["unequal"][0], rows(16, 13), ["x.1=5:16:24", "y.1=2:13:21"]),
        (doubled, rows(16, 32), ["x.1=2:16:24", "y.1=4:32:48"]),
    ],
)
def test_torchs_own_program_takes_the_same_sizes(
    tmp_path: Path, case: Forward, example: tuple[Tensor, ...], dynamic: list[str]
) -> None:
    built = built_of(case, example, tmp_path, *dynamic)
    own = built.program.module()
    for counts in itertools.product(range(2, 34, 3), repeat=len(example)):
        inputs = rows(*counts)
        assert _takes(own, inputs) == _takes(built.run, inputs), counts


def _takes(call: Callable[..., Any], inputs: Sequence[Tensor]) -> bool:
    try:
        with torch.no_grad():
            call(*inputs)
    except (UsageError, AssertionError):
        return False
    return True


@pytest.mark.parametrize(
    ("case", "example", "dynamic", "words"),
    [
        (by_eight, rows(16), ["x.1=2:16:24"], ["MIN", "dimension 1 is 2; it must be a multiple of 8", "x.1 = 8"]),
        (by_eight, rows(16), ["x.1=8:20:24"], ["OPT", "is 20; it must", "x.1 = 16 or x.1 = 24", "test_guards.py:"]),
        (by_eight, rows(16), ["x.1=8:16:30"], ["MAX", "is 30; it must", "x.1 = 24 or x.1 = 32"]),
        (by_eight, rows(16), ["x.1=8:8:16,25:32:40"], ["MIN of profile 2", "x.1 = 24 or x.1 = 32"]),
        (doubled, rows(16, 32), ["x.1=2:16:24", "y.1=4:31:48"], ["y.1 is always 2 * x.1", "OPT of y.1 is 32"]),
        (doubled, rows(16, 32), ["x.1=2:16:24", "y.1=4:32:46"], ["y.1 is always 2 * x.1", "MAX of y.1 is 48"]),
        (
            CASES["ratio"][0], rows(16, 8), ["x.1=8:16:32", "y.1=2:8:30"],
            ["MAX", "the model needs 2 * x.1 > 3 * y.1", "y.1 = 21"],
        ),
        (
            lambda linear, x, _: linear(x) * 3 if x.shape[1] > 8 else linear(x), rows(16), ["x.1=2:16:24"],
            ["takes sizes from 9 to 24, not 2 to 24"],
        ),
    ],
)  # fmt: skip
def test_profiles_that_the_model_does_not_take_are_refused_with_the_nearest_sizes(
    tmp_path: Path, case: Forward, example: tuple[Tensor, ...], dynamic: list[str], words: list[str]
) -> None:
    with pytest.raises(UsageError) as raised:
        built_of(case, example, tmp_path, *dynamic)
    assert all(word in str(raised.value) for word in words), str(raised.value)


def test_a_guard_that_the_grammar_cannot_express_is_refused_with_the_line_of_the_model(tmp_path: Path) -> None:
    def seven_tenths(linear: nn.Linear, x: Tensor, _: Any) -> Tensor:
        return linear(x) * 3 if int(x.shape[1] * 0.7) > 3 else linear(x)

    with pytest.raises(BuildFailedError, match=r"(?s)math.trunc.*cannot check.*where: .*test_guards.py:\d+"):
        built_of(seven_tenths, rows(16), tmp_path, "x.1=8:16:24")


def test_a_range_that_lowering_narrows_is_refused(tmp_path: Path) -> None:
    """A decomposition that counts rows fixes their number at the example's."""

    def fixed(linear: nn.Linear, x: Tensor, _: Any) -> Tensor:
        return linear(x).cumprod(1)

    import torch_tensorrt.dynamo.lowering._decompositions as decompositions

    kept = dict(decompositions.TORCH_TRT_DECOMPOSITIONS)

    def counts_rows(x: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
        return torch.stack([x[:, : row + 1].prod(1) for row in range(x.shape[1])], 1)

    decompositions.TORCH_TRT_DECOMPOSITIONS[torch.ops.aten.cumprod.default] = counts_rows
    try:
        with pytest.raises(BuildFailedError) as raised:
            built_of(fixed, rows(6), tmp_path, "x.1=2:6:16")
    finally:
        decompositions.TORCH_TRT_DECOMPOSITIONS.clear()
        decompositions.TORCH_TRT_DECOMPOSITIONS.update(kept)
    text = str(raised.value)
    assert "lowering narrowed" in text and "x: dimension 1 is 2; it must be 6" in text
    assert "aten.cumprod.default" in text and "test_guards.py" in text


@pytest.mark.parametrize("dynamic", ["x.0=1:1:4", "x.0=0:1:4", "x.0=1:2:4"])
def test_batches_of_0_and_1_are_no_guard(tmp_path: Path, dynamic: str) -> None:
    example = torch.randn(1, 16, 4)
    built = built_of(by_eight, (example,), tmp_path, dynamic, "x.1=8:16:24")
    assert built.artifact.manifest.guards == ["x.1 % 8 == 0"]
    for batch in {1, 4, int(dynamic[4])}:
        assert_right(built, by_eight, torch.randn(batch, 24, 4))


def _expanded(x: Tensor) -> Tensor:
    return x[:1].expand(x.shape[0], 8, 4)


LAYOUTS: dict[str, Callable[[nn.Linear, Tensor], Tensor]] = {
    "a copy": lambda _, x: _expanded(x).contiguous(),
    "a copy of a copy": lambda _, x: _expanded(x).contiguous().contiguous(),
    "of a weight": lambda linear, x: linear.bias.expand(x.shape[0], 8, 4).contiguous(),
    "of other order": lambda _, x: _expanded(x).transpose(0, 1).contiguous().transpose(0, 1),
    "channels last": lambda _, x: x[:, None].contiguous(memory_format=torch.channels_last)[:, 0],
    "permuted": lambda _, x: x.permute(0, 2, 1).contiguous().view(x.shape[0], 8, 4),
    "flattened": lambda _, x: _expanded(x).flatten(1).unflatten(1, (8, 4)),
    "reshaped": lambda _, x: _expanded(x).reshape(x.shape[0], 32).view(x.shape[0], 8, 4),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_that_an_operator_asks_for_are_no_guard(tmp_path: Path, layout: str) -> None:
    """``contiguous`` reads the layout before it is traced; with a batch of 1 it copies nothing, with equal numbers."""

    def case(linear: nn.Linear, x: Tensor, _: object) -> Tensor:
        return linear(x) + LAYOUTS[layout](linear, x)

    built = built_of(case, (torch.randn(3, 8, 4),), tmp_path, "x.0=1:3:5")
    assert built.artifact.manifest.guards == []
    for batch in (1, 3, 5):
        assert_right(built, case, torch.randn(batch, 8, 4))


class RepeatedRows(nn.Module):
    """A model with two weights of the same shape, each of which is a repeated row.

    torch reuses the first expansion for the second one, so it reads the layout only while the graph is lowered.
    """

    def __init__(self, call: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.call, self.first, self.second = call, nn.Parameter(torch.randn(1, 4)), nn.Parameter(torch.randn(1, 4))

    def forward(self, x: Tensor) -> Any:
        rows = [row.expand(x.shape[0], 4) for row in (self.first, self.second)]
        return self.call(x + rows[0], rows[1])


@pytest.mark.parametrize(
    "call",
    [
        lambda x, row: (x, row.contiguous()),
        lambda x, row: x.relu() * row.contiguous().contiguous(),
        lambda x, row: (x, row.contiguous().view(-1)),
    ],
    ids=["returned", "multiplied", "viewed"],
)
def test_layouts_that_are_asked_for_while_lowering_are_no_guard(tmp_path: Path, call: Forward) -> None:
    torch.manual_seed(0)
    model = RepeatedRows(call).eval()
    built = build_here(model, (torch.randn(3, 4),), folder=tmp_path, dynamic=("x.0=1:3:5",))
    assert built.artifact.manifest.guards == []
    others = [(torch.randn(rows, 4),) for rows in (1, 5)]
    assert_network_right(built, model, (torch.randn(3, 4),), other_args=others)


def _sequence_first(linear: nn.Linear, x: Tensor) -> Tensor:
    """Computes the attention of ``nn.MultiheadAttention``, with the sequence before the batch."""
    heads = linear(x).view(x.shape[0], -1, 2).transpose(0, 1).view(x.shape[1], 2, x.shape[0], 2)
    attended = F.scaled_dot_product_attention(heads, heads, heads)
    return attended.permute(2, 0, 1, 3).reshape(-1, 4)


def _rows_and_columns(linear: nn.Linear, x: Tensor) -> Tensor:
    """Computes along rows and then along columns; each dimension is the batch of the other."""
    batch, channels, height, width = x.shape
    columns = linear(x.permute(0, 3, 2, 1).reshape(batch * width, height, channels))
    rows = columns.reshape(batch, width, height, channels).permute(0, 2, 1, 3)
    return linear(rows.reshape(batch * height, width, channels)).reshape(batch, height, width, channels)


def _last_chunk(linear: nn.Linear, x: Tensor) -> Tensor:
    return linear(x).chunk(3, 1)[2].relu()


@pytest.mark.parametrize(
    ("call", "dynamic", "shapes"),
    [
        (_sequence_first, ("x.0=1:6:9", "x.1=1:2:4"), [(6, 2, 4), (1, 1, 4), (1, 4, 4), (9, 1, 4)]),
        (
            _rows_and_columns,
            ("x.0=1:1:2", "x.2=1:6:9", "x.3=1:2:4"),
            [(1, 4, 6, 2), (1, 4, 1, 1), (2, 4, 1, 4), (1, 4, 9, 1)],
        ),
        (_last_chunk, ("x.1=5:9:18",), [(2, 9, 4), (2, 5, 4), (2, 18, 4)]),
    ],
    ids=["attention", "two sizes", "a chunk of one row"],
)
def test_small_sizes_that_the_lowered_graph_takes_are_no_guard(
    tmp_path: Path, call: Forward, dynamic: tuple[str, ...], shapes: list[tuple[int, ...]]
) -> None:
    """The graph is tried with each small size, and with both where a guard has two sizes."""
    model = Small(lambda linear, x, _: call(linear, x)).eval()
    example, *others = [(torch.randn(shape),) for shape in shapes]
    built = build_here(model, example, folder=tmp_path, dynamic=dynamic)
    assert built.artifact.manifest.guards == []
    assert_network_right(built, model, example, other_args=others)


class Prepared(nn.Module):
    """A model with masks as in SwinIR: one is prepared for pictures of 4 by 4, and others are computed."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.register_buffer("mask", torch.full((16,), value))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        mask = self.mask if (height, width) == (4, 4) else torch.zeros(height * width)
        return self.conv(x).flatten(2) + mask


# The example has the model's own height, its own size, or neither.
@pytest.mark.parametrize("height", [4, 6])
@pytest.mark.parametrize("width", [4, 8])
def test_sizes_that_a_model_has_prepared_something_for_are_taken_where_that_gives_the_same(
    tmp_path: Path, height: int, width: int
) -> None:
    model, example = Prepared(0).eval(), torch.randn(1, 1, height, width)
    built = build_here(model, (example,), folder=tmp_path, dynamic=("x.2=3:6:9", "x.3=3:6:9"))
    assert built.artifact.manifest.guards == []
    others = [(torch.randn(1, 1, *sizes),) for sizes in ((4, 4), (4, 5), (7, 4))]
    assert_network_right(built, model, (example,), other_args=others)


class PreparedForBoth(Prepared):
    """A model like :class:`Prepared` that compares each size alone."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        known = int(height == 4) + int(width == 4)
        return self.conv(x).flatten(2) + (self.mask if known == 2 else torch.zeros(height * width))


def test_sizes_that_are_the_same_one_by_one_and_not_together_are_guards(tmp_path: Path) -> None:
    options = {"folder": tmp_path, "dynamic": ("x.2=3:6:9", "x.3=3:6:9")}
    built = build_here(PreparedForBoth(1).eval(), (torch.randn(1, 1, 6, 8),), **options)
    assert built.artifact.manifest.guards == ["x.2 != 4", "x.3 != 4"]


@pytest.mark.parametrize(("height", "width"), [(6, 8), (4, 8)])
def test_sizes_that_a_model_treats_differently_are_a_guard(tmp_path: Path, height: int, width: int) -> None:
    """At 4 by 8 the model does the same as elsewhere; only at 4 by 4, which is not the example, the mask differs."""
    example = torch.randn(1, 1, height, width)
    options = {"folder": tmp_path, "dynamic": ("x.2=3:6:9", "x.3=3:6:9")}
    if height == 4:
        with pytest.raises(BuildFailedError, match=r"torch\.export fixes the example's sizes"):
            build_here(Prepared(1).eval(), (example,), **options)
    else:
        assert build_here(Prepared(1).eval(), (example,), **options).artifact.manifest.guards == ["x.2 != 4"]


def test_what_a_rewrite_asks_after_partitioning_narrows_no_range_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rewrite that reads a size replaces one of ours, none of which does."""

    def asking(partition: torch.fx.GraphModule) -> None:
        for node in partition.graph.find_nodes(op="placeholder"):
            bool(node.meta["val"].shape[0] >= 2)

    monkeypatch.setattr(tensorrt_rtx, "avoid_defects", asking)
    with pytest.raises(BuildFailedError, match=r"lowering narrowed .* it must be at least 2"):
        built_of(lambda linear, x, _: linear(x), (torch.randn(3, 8, 4),), tmp_path, "x.0=1:3:5")


def test_a_branch_on_a_layout_is_a_guard(tmp_path: Path) -> None:

    def case(linear: nn.Linear, x: Tensor, _: object) -> Tensor:
        return linear(x) * (2 if x[:1].expand(x.shape[0], 8, 4).is_contiguous() else 1)

    with pytest.raises(UsageError, match=r"x: dimension 0 is 1; it must not be 1"):
        built_of(case, (torch.randn(3, 8, 4),), tmp_path, "x.0=1:3:5")


def of_file(
    case: Forward, example: tuple[Tensor, ...], shapes: dict[str, Any], folder: Path, *dynamic: str, **how: Any
) -> Built:
    """Builds from a program that was saved to a file, with its own dynamic dimensions."""
    with torch.no_grad():
        program = torch.export.export(Small(case).eval(), example, dynamic_shapes=shapes, **how)
    torch.export.save(program, folder / "program.pt2")
    options = BuildOptions(dynamic=[DynamicDimension.parse(text) for text in dynamic])
    builder = imported_builder()
    return build_source(load_source(str(folder / "program.pt2"), options), options, builder, folder)


@pytest.mark.parametrize(
    "how", [{}, {"strict": True}, {"prefer_deferred_runtime_asserts_over_guards": True}], ids=["", "strict", "asserts"]
)
def test_a_saved_program_keeps_its_guards(tmp_path: Path, how: dict[str, Any]) -> None:
    shapes = {"x": {1: Dim.DYNAMIC(min=8, max=24)}}
    built = of_file(by_eight, rows(16), shapes, tmp_path, **how)
    assert built.artifact.manifest.guards == ["x.1 % 8 == 0"]
    assert_right(built, by_eight, *rows(24))
    with pytest.raises(UsageError, match="must be a multiple of 8"):
        built.run(*rows(20))


def test_a_saved_programs_own_range_must_satisfy_its_guards(tmp_path: Path) -> None:
    shapes = {"x": {1: Dim.DYNAMIC(min=2, max=24)}}
    with pytest.raises(UsageError, match=r"(?s)MIN is .* must be a multiple of 8.*nearest that it takes: x.1 = 8"):
        of_file(by_eight, rows(16), shapes, tmp_path)
    built = of_file(by_eight, rows(16), shapes, tmp_path, "x.1=8:16:24")
    assert built.artifact.manifest.guards == ["x.1 % 8 == 0"]


def scaled(linear: nn.Linear, x: Tensor, y: Tensor | None) -> Tensor:
    return linear(x).sum(1) if y is None else linear(x).sum(1) + y.sum(1)


def test_a_size_that_is_a_multiple_of_a_dimension_of_its_own(tmp_path: Path) -> None:
    shapes = {"x": {1: 32 * Dim("h", min=1, max=8)}}
    built = of_file(scaled, rows(64), shapes, tmp_path)
    assert size_lines(built.artifact.manifest) == ["x.1: 32 to 256, a multiple of 32"]
    for count in (32, 256):
        assert_right(built, scaled, *rows(count))
    with pytest.raises(UsageError, match="x: dimension 1 is 100; it must be a multiple of 32"):
        built.run(*rows(100))
    with pytest.raises(UsageError, match=r"(?s)OPT is.*100 is not.*x.1 = 96 or x.1 = 128"):
        of_file(scaled, rows(64), shapes, tmp_path, "x.1=64:100:128")
    narrower = of_file(scaled, rows(64), shapes, tmp_path, "x.1=64:96:128")
    assert size_lines(narrower.artifact.manifest) == ["x.1: 64 to 128, a multiple of 32"]
    assert_right(narrower, scaled, *rows(96))


def test_sizes_that_are_made_of_others(tmp_path: Path) -> None:
    h = Dim("h", min=2, max=100)
    built = of_file(scaled, rows(16, 35), {"x": {1: 2 * h}, "y": {1: 4 * h + 3}}, tmp_path, "x.1=8:16:32")
    assert built.artifact.manifest.guards == ["x.1 % 2 == 0", "y.1 == 4 * (x.1 // 2) + 3"]
    assert_right(built, scaled, *rows(20, 43))
    with pytest.raises(UsageError, match="x: dimension 1 is 21; it must be a multiple of 2"):
        built.run(*rows(21, 43))
    with pytest.raises(UsageError, match=r"y.1 must be 4 \* \(x.1 // 2\) \+ 3"):
        built.run(*rows(20, 44))
    with pytest.raises(UsageError, match=r"(?s)always .*y.1 must be 35|MIN of y.1 is 19"):
        of_file(scaled, rows(16, 35), {"x": {1: 2 * h}, "y": {1: 4 * h + 3}}, tmp_path, "x.1=8:16:32", "y.1=23:35:67")


def test_an_example_outside_the_range_is_refused(tmp_path: Path) -> None:
    """torch reads no program whose example is outside its range."""
    with pytest.raises(UsageError, match="the example's size 64 is outside 8 to 32"):
        of_file(scaled, rows(64), {"x": {1: Dim("h", min=2, max=100)}}, tmp_path, "x.1=8:16:32")


def test_nested_inputs_and_keywords(tmp_path: Path) -> None:
    class Nested(nn.Module):
        def forward(self, pair: tuple[Tensor, Tensor], *rest: Tensor, options: dict[str, Tensor]) -> Tensor:
            total = pair[0].sum() + rest[0].sum() + options["a b"].sum()
            for tensor in (pair[0], rest[0], options["a b"]):
                total = total * (3 if tensor.shape[1] % 8 else 2)
            return total + pair[1].sum()

    a, b, c, d = rows(8, 3, 16, 24)
    args, kwargs = ((a, b), c), {"options": {"a b": d}}
    wide = Dim.DYNAMIC(min=8, max=40)
    shapes = {"pair": ({1: wide}, None), "rest": ({1: wide},), "options": {"a b": {1: wide}}}
    with torch.no_grad():
        program = torch.export.export(Nested(), args, kwargs, dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "program.pt2")
    options = BuildOptions()
    builder = imported_builder()
    built = build_source(load_source(str(tmp_path / "program.pt2"), options), options, builder, tmp_path)
    assert built.artifact.manifest.guards == ["pair.0.1 % 8 == 0", "rest_0.1 % 8 == 0", '"options.a b".1 % 8 == 0']
    built.run(*args, **kwargs)
    with pytest.raises(UsageError, match=r"options.a b: dimension 1 is 20; it must be a multiple of 8"):
        built.run(*args, options={"a b": rows(20)[0]})


def test_converting_keeps_the_guards(tmp_path: Path) -> None:
    built = built_of(by_eight, rows(16), tmp_path, "x.1=8:16:24")
    convert_artifact(built.artifact, tmp_path / "linux.pt2", Platform.LINUX_X86_64)
    with open_artifact(tmp_path / "linux.pt2") as converted:
        assert converted.manifest.guards == ["x.1 % 8 == 0"]
        assert converted.graph()["guards_code"] == []
