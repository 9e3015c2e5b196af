"""Golden samples: whose outputs they hold, at which sizes, from which state, and the warnings about them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch")
golden = pytest.importorskip("linux_side.frontend.golden")

from torch.export import Dim  # noqa: E402 - after torch was looked for

from linux_side.frontend.golden_entry import tolerance_of  # noqa: E402
from linux_side.frontend.source import export_source, load_source  # noqa: E402
from linux_side.options import BuildOptions, DynamicDimension  # noqa: E402
from tests.integration.cases import (  # noqa: E402
    Case,
    Case2,
    halves,
)
from tests.integration.cases import golden as cases  # noqa: E402
from toolchain.errors import BuildFailedError  # noqa: E402


def record(example: Any, samples: int = 1, *dynamic: str, **options: Any) -> Any:
    model, args = example
    parsed = [DynamicDimension.parse(text) for text in dynamic]
    return export_source("test", model, args, {}, BuildOptions(golden=samples, dynamic=parsed, **options)).golden


def shapes(recording: Any) -> list[list[tuple[int, ...]]]:
    return [[tuple(leaf.shape) for leaf in sample.inputs if leaf is not None] for sample in recording.samples]


def test_the_exported_program_is_right_and_eagers_padding_is_reported() -> None:
    model, args = cases.padded_encoder()
    recording = record((model, args))
    (warning,) = recording.warnings
    assert warning.startswith("the golden output 0 is what the exported program computes, and the model itself gives")
    (output,) = recording.samples[0].outputs
    with torch.no_grad():
        eager, program = model(*args), torch.export.export(model, args).module()(*args)
    assert not eager[:, 3:].any() and torch.equal(output, program) and output[:, 3:].any()


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_golden_outputs_are_of_fp32_whatever_the_precision(precision: str) -> None:
    layer = torch.nn.Linear(8, 3).eval()
    with torch.no_grad():
        want = layer(cases.X)
    recording = record((layer, (cases.X,)), precision=precision)
    assert torch.equal(recording.samples[0].outputs[0], want)


@pytest.mark.parametrize("name", ["live_noise", "counting"])
def test_a_model_that_differs_from_itself_has_no_golden_output(name: str) -> None:
    recording = record(getattr(cases, name)(), 3)
    assert not recording.samples
    (warning,) = recording.warnings
    assert warning.startswith("there is no golden I/O: the model gives other outputs each time")
    assert ("aten.randn_like.default" in warning) == (name == "live_noise")


def test_a_program_that_draws_has_none_even_if_the_model_seeds_itself() -> None:
    def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        return x + torch.rand_like(x)

    assert not record((Case(forward).eval(), (cases.X,))).samples


class _Writing(torch.nn.Module):
    """Writes into a parameter in forward."""

    def __init__(self, write: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.write, self.scale = write, torch.nn.Parameter(torch.ones(4), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.write(self.scale, x)


def _counts(scale: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return x * scale.copy_(scale + 1)


def _keeps_the_input(scale: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return x * scale.copy_(x)


def _keeps_the_input_for_the_next_call(scale: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    y = x * scale
    scale.copy_(x)
    return y


def _sets(scale: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return x * scale.copy_(torch.full((4,), 3.0))


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("write", [_counts, _keeps_the_input, _keeps_the_input_for_the_next_call])
def test_a_parameter_that_each_call_changes_is_refused(tmp_path: Path, write: Any, saved: bool) -> None:
    """Golden I/O would leave it changed in the artifact."""
    model, args = _Writing(write).eval(), (torch.tensor([1.0, 2.0, 3.0, 4.0]),)
    with pytest.raises(BuildFailedError, match="changes its parameter scale at each call"):
        if saved:
            torch.export.save(torch.export.export(model, args), tmp_path / "m.pt2")
            load_source(str(tmp_path / "m.pt2"), BuildOptions(golden=1))
        else:
            record((model, args))
    model = _Writing(write).eval()
    record((model, args), 0)
    assert torch.equal(model.scale, torch.ones(4))


def test_a_parameter_to_which_each_call_gives_the_same_value_is_allowed() -> None:
    recording = record((_Writing(_sets).eval(), (torch.ones(4),)), 2)
    assert len(recording.samples) == 2 and not recording.warnings


def test_values_that_prove_nothing_are_reported() -> None:
    assert record(cases.not_finite()).warnings == [
        "the golden output 0 is NaN in 16 of its 32 values",
        "the golden output 1 is infinite in 16 of its 32 values",
    ]
    equal = record(cases.all_equal()).warnings_at(tolerance_of("fp32"))
    assert equal[0].startswith("the golden output 0 is 3 everywhere") and equal[1].startswith(
        "the golden output 1 is z"
    )
    assert "does not depend" in equal[2] and len(equal) == 4
    blind = record(cases.blind()).warnings_at(tolerance_of("fp32"))
    assert [text.split(" on ")[0] for text in blind] == [
        "the golden output 0 does not depend",
        "the golden output 1 hardly depends",
    ]


def test_a_program_that_refuses_other_inputs_is_doubted_with_its_error() -> None:
    def forward(_: Any, x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.embedding_bag(rows[0], x, rows[1], mode="sum")

    starts = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 2]])
    (warning,) = record((Case2(forward).eval(), (cases.X, starts))).warnings
    assert warning.startswith("whether the golden outputs depend on the inputs is not known") and "Error: " in warning


def test_a_good_model_is_not_doubted() -> None:
    assert not record((torch.nn.Linear(8, 3).eval(), (cases.X,)), 3).warnings
    assert not record((torch.nn.Linear(8, 3).eval(), (torch.ones(4, 8),))).warnings


def test_more_samples_have_the_least_sizes_the_greatest_and_some_between() -> None:
    recording = record(cases.embedding(), 4, "x.0=1:2:6", "x.1=1:8:30")
    (first,), (least,), (greatest,), (between,) = shapes(recording)
    assert first == (2, 8) and least == (1, 4) and greatest == (6, 28)  # the guard: a multiple of 4
    assert 1 < between[0] < 6 and 4 < between[1] < 28 and between[1] % 4 == 0
    model, (tokens,) = cases.embedding()
    for sample in recording.samples:
        (inputs,), (output,) = sample.inputs, sample.outputs
        assert set(inputs.flatten().tolist()) <= set(range(7))
        assert torch.equal(inputs, tokens[torch.arange(inputs.shape[0]) % 2][:, torch.arange(inputs.shape[1]) % 8])
        with torch.no_grad():
            assert torch.allclose(output, model(inputs))


def test_sizes_keep_to_the_profiles() -> None:
    pair = (torch.nn.Linear(8, 3).eval(), (torch.zeros(4, 8).uniform_(),))
    sizes = [size for ((size, _),) in shapes(record(pair, 9, "input.0=1:1:1,4:8:16"))]
    assert sizes[:3] == [4, 1, 16] and len(sizes) == 9
    assert len(set(sizes)) == 9 and all(size == 1 or 4 <= size <= 16 for size in sizes)


def test_where_there_are_few_sizes_the_others_are_variations() -> None:
    pair = (torch.nn.Linear(8, 3).eval(), (cases.X,))
    recording = record(pair, 5, "input.0=3:4:5")
    assert [size for ((size, _),) in shapes(recording)] == [4, 3, 5, 4, 4]
    assert len({str(sample.inputs[0]) for sample in recording.samples}) == 5
    assert shapes(record(pair, 3)) == [[(4, 8)]] * 3


def test_a_saved_programs_sizes_that_depend_on_one_another_are_found_together(tmp_path: Path) -> None:
    model = Case2(lambda s, x, y: torch.cat([x, x]) + y).eval()
    sizes = {"x": {0: Dim.DYNAMIC(min=2, max=10)}, "y": {0: Dim.DYNAMIC(min=4, max=20)}}
    program = torch.export.export(model, (torch.randn(3, 2), torch.randn(6, 2)), dynamic_shapes=sizes)
    torch.export.save(program, tmp_path / "program.pt2")
    recording = load_source(str(tmp_path / "program.pt2"), BuildOptions(golden=3)).golden
    assert shapes(recording) == [[(3, 2), (6, 2)], [(2, 2), (4, 2)], [(10, 2), (20, 2)]]
    assert not recording.warnings


def test_a_saved_program_that_differs_from_itself_has_no_golden_output(tmp_path: Path) -> None:
    model, args = cases.live_noise()
    torch.export.save(torch.export.export(model, args), tmp_path / "program.pt2")
    recording = load_source(str(tmp_path / "program.pt2"), BuildOptions(golden=2)).golden
    assert not recording.samples and "aten.randn_like.default" in recording.warnings[0]


def test_a_sample_that_the_program_refuses_is_left_out_and_reported() -> None:
    recording = record(cases.rows_by_index(), 3, "x.0=2:4:9")
    assert shapes(recording) == [[(4, 8), (3,)], [(9, 8), (3,)]]
    assert recording.warnings == [
        "a golden sample of sizes [2, 8], [3] is left out: the exported program raised IndexError: "
        "index 3 is out of bounds for dimension 0 with size 2"
    ]


def test_a_sample_that_would_take_too_long_is_left_out_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = (torch.nn.Linear(8, 3).eval(), (cases.X,))
    monkeypatch.setattr(golden._Recorder, "_timed", slow(golden._Recorder._timed, 20.0))
    recording = record(pair, 3, "input.0=2:4:16")
    assert shapes(recording) == [[(4, 8)], [(2, 8)]]
    assert recording.warnings == ["a golden sample of sizes [16, 8] is left out: it would take over 60 s"]


def test_an_example_that_takes_long_is_run_no_more_than_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    model = Case(lambda s, x: calls.append(1) or x * 2).eval()
    monkeypatch.setattr(golden._Recorder, "_timed", slow(golden._Recorder._timed, 61.0))
    recording = record((model, (cases.X,)), 2)
    assert shapes(recording) == [[(4, 8)]] and len(calls) == 2  # once by itself, once to export it
    assert "was run once alone" in recording.warnings[1] and "over 60 s" in recording.warnings[0]


def slow(timed: Any, seconds: float) -> Any:
    return lambda self, leaves: (timed(self, leaves)[0], seconds)


def test_a_sample_that_would_take_too_much_memory_is_left_out_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's peak holds its input, both products and the sums of rows: 16 KiB at 16 rows, 16 MiB at 512."""
    monkeypatch.setattr(golden, "free_memory", lambda: 2 * 2**20)
    model = Case(lambda s, x: (x @ x.T).relu().sum(1)).eval()
    recording = record((model, (torch.randn(16, 8),)), 3, "x.0=2:16:512")
    assert shapes(recording) == [[(16, 8)], [(2, 8)]]
    assert recording.warnings == [
        "a golden sample of sizes [512, 8] is left out: it would take over half of the free memory"
    ]


def test_state_goes_on_from_sample_to_sample_and_is_put_back() -> None:
    model, args = cases.cache()
    recording = record((model, args), 3)
    totals = torch.zeros(4, 8)
    for sample in recording.samples:
        totals = totals + sample.inputs[0]
        assert torch.equal(sample.outputs[0], totals)
    assert not model.total.any()


def test_a_sample_that_fails_leaves_the_state_as_it_was() -> None:
    def forward(s: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        s.total.add_(1)
        return x[y] + s.total

    model = Case2(forward, total=torch.zeros(1)).eval()
    recording = record((model, cases.rows_by_index()[1]), 3, "x.0=2:4:9")
    first, second = recording.samples
    assert torch.equal(second.outputs[0], first.outputs[0] + 1)


def test_a_model_that_fails_at_a_size_which_the_program_takes_is_reported() -> None:
    def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
        if not torch.compiler.is_exporting() and x.shape[0] > 4:
            raise ValueError("too many rows")
        return x * 2

    recording = record((Case(forward).eval(), (cases.X,)), 3, "x.0=2:4:16")
    assert len(recording.samples) == 3
    (warning,) = recording.warnings
    assert warning.startswith("on golden sample 2,") and warning.endswith("itself raised ValueError: too many rows")


def test_a_model_that_fails_by_itself_is_distinguished_from_one_that_torch_cannot_export() -> None:
    def fails(_: Any, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("no weights")

    def branches(_: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum() > 0 else x

    with pytest.raises(BuildFailedError, match="the model raised ValueError on its own example: no weights"):
        record((Case(fails).eval(), (cases.X,)))
    with pytest.raises(BuildFailedError, match="what the model does depends on the data in a tensor"):
        record((Case(branches).eval(), (cases.X,)))


@pytest.mark.parametrize("name", ["decoder", "convolutions"])
def test_of_a_model_in_halves_golden_is_what_it_gives_in_fp32(name: str) -> None:
    model, args = getattr(halves, name)()
    recording = record((model, args), 2)
    with torch.no_grad():
        own = model(*args)
        model.float()
        for sample in recording.samples:
            (output,) = sample.outputs
            inputs = [leaf.float() if leaf.is_floating_point() else leaf for leaf in sample.inputs]
            assert output.dtype is own.dtype and torch.equal(output, model(*inputs).to(own.dtype))
    assert recording.precision == "fp32" and not recording.warnings and len(recording.samples) == 2
    assert not torch.equal(own, recording.samples[0].outputs[0])


def test_where_fp32_needs_too_much_memory_golden_is_rounded_as_the_model_is_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Twice a weight of 64 times 128 numbers in fp32 is 64 KiB; the values of the run in bf16 are fewer."""
    monkeypatch.setattr(golden, "free_memory", lambda: 100 * 2**10)
    model, args = halves.decoder()
    with torch.no_grad():
        want = model(*args)
    recording = record((model, args))
    assert torch.equal(recording.samples[0].outputs[0], want) and recording.precision == "bf16"
    assert recording.warnings == [
        "golden I/O is computed in bf16, as the model is, and rounded itself; in fp32: it would take over half of the "
        "free memory"
    ]


def test_where_rounding_is_a_part_of_the_model_golden_is_rounded_too() -> None:
    model, args = halves.rounded_positions()
    with torch.no_grad():
        want = model(*args)
    recording = record((model, args))
    assert torch.equal(recording.samples[0].outputs[0], want) and recording.precision == "bf16"
    (warning,) = recording.warnings
    assert "in bf16, as the model is" in warning and "it gives something else, by a relative" in warning


def test_a_state_in_halves_is_as_it_was_once_golden_is_recorded() -> None:
    model, (x,) = cases.cache()
    recording = record((model.half(), (x.half(),)), 3)
    totals = torch.zeros(4, 8)
    for sample in recording.samples:
        totals = (totals + sample.inputs[0].float()).half().float()
        assert torch.equal(sample.outputs[0].float(), totals)
    assert recording.precision == "fp32" and not model.total.any()


def test_a_saved_program_that_is_too_large_to_run_has_no_golden_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, args = halves.decoder()
    torch.export.save(torch.export.export(model, args), tmp_path / "program.pt2")
    monkeypatch.setattr(golden, "free_memory", lambda: 100)
    recording = load_source(str(tmp_path / "program.pt2"), BuildOptions()).golden
    assert not recording.samples and recording.precision is None
    (warning,) = recording.warnings
    assert warning.startswith("there is no golden I/O: a run on the CPU is estimated to need") and "100 B" in warning
