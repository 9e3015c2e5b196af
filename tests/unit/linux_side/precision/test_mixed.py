"""Mixed precision by rules or by measurement: what is measured, and what gives a warning or an error."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch")

from linux_side.precision import search
from linux_side.precision.mixed import Mixed, mix, mix_within
from tests.unit.linux_side.precision.models import Overflows, Parts
from toolchain.errors import BuildFailedError, UsageError

Args = tuple[Any, list[Any]]


def model_and_samples(model: Any) -> Args:
    torch.manual_seed(0)
    model, x = model().eval(), torch.randn(4, 8)
    with torch.no_grad():
        return torch.export.export(model, (x,)), [([x], [model(x)])]


def auto(tolerance: float, *, tf32: bool = False, model: Any = Parts, **options: Any) -> Mixed:
    program, samples = model_and_samples(model)
    return mix_within(program, tolerance, [], samples, tf32=tf32, **options)


def test_what_halves_lose_is_measured_and_reported() -> None:
    program, samples = model_and_samples(Parts)
    record = mix(program, "fp16", 1e-2, [], samples, tf32=True).record
    (error,) = record.errors
    assert error is not None and error > 0.1
    assert record.in_halves > 5 and "output 0" in record.warnings[0] and "auto" in record.warnings[0]


def test_auto_keeps_the_tolerance_and_the_program_says_so_too() -> None:
    mixed = auto(1e-2)
    assert mixed.record.keep_fp32 == ["fragile"] and not mixed.record.warnings
    _, samples = model_and_samples(Parts)
    (((x,), (want,)),) = samples
    got = mixed.program.module()(x)
    assert (got - want).norm() / want.norm() < 1e-2


def test_fp32_is_what_is_left_where_the_search_has_no_more_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MOST_PASSES", 1)
    mixed = auto(1e-2)
    assert mixed.record.keep_fp32 == ["*"] and mixed.record.in_halves == 0
    (warning,) = mixed.record.warnings
    assert "everything in fp32" in warning and "the nearest" in warning


def test_a_tolerance_that_tf32_cannot_meet_is_refused_with_what_was_reached() -> None:
    with pytest.raises(
        BuildFailedError, match=r"cannot be met: in fp32 with TF32 .* the nearest with halves"
    ) as raised:
        auto(1e-5, tf32=True)
    assert "--no-tf32" in str(raised.value)
    assert auto(1e-5).record.keep_fp32


def test_a_tolerance_finer_than_fp32_is_refused() -> None:
    with pytest.raises(UsageError, match="fp32 itself"):
        auto(1e-8)


def test_an_overflow_is_refused_and_auto_goes_around_it() -> None:
    program, samples = model_and_samples(Overflows)
    with pytest.raises(BuildFailedError, match="output 0 is not finite"):
        mix(program, "fp16", 1e-2, [], samples, tf32=False)
    assert auto(1e-2, model=Overflows).record.errors[0] < 1e-2  # type: ignore[operator]


def test_samples_with_nan_and_no_samples_are_refused() -> None:
    program, samples = model_and_samples(Parts)
    samples[0][1][0][1, 2] = float("nan")
    with pytest.raises(UsageError, match="sample 0 holds NaN in its output 0"):
        mix_within(program, 1e-2, [], samples, tf32=False)
    with pytest.raises(UsageError, match="no golden sample"):
        mix_within(program, 1e-2, [], [], tf32=False)


def test_what_the_caller_keeps_is_kept_by_auto_too() -> None:
    program, samples = model_and_samples(Parts)
    record = mix_within(program, 1e-2, ["last"], samples, tf32=False).record
    assert record.keep_fp32[0] == "last" and record.in_fp32["kept by last"]


def test_a_plan_that_names_no_module_is_refused_as_a_plan() -> None:
    program, samples = model_and_samples(Parts)
    with pytest.raises(UsageError, match="names no module") as raised:
        mix(program, "fp16", 1e-2, [], samples, tf32=False, plan=["fragil"])
    assert "--precision-plan" in str(raised.value) and "fragile" in str(raised.value)


def test_state_goes_on_from_sample_to_sample() -> None:
    class Sums(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = torch.nn.Linear(8, 8)
            self.register_buffer("total", torch.zeros(4, 8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.total += x
            return self.last(self.total)

    torch.manual_seed(0)
    model, x = Sums().eval(), torch.randn(4, 8)
    program = torch.export.export(copy.deepcopy(model), (x,))
    with torch.no_grad():
        samples = [([x], [model(x)]) for _ in range(3)]
    (error,) = mix(program, "fp16", 1e-2, [], samples, tf32=False).record.errors
    assert error is not None and error < 2e-3
