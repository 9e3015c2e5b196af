"""Records golden I/O: inputs, and the outputs that the exported program computes from them on the CPU.

A program in halves runs in fp32, if memory suffices and its result agrees. The original model runs too, to detect what
torch.export changes; for example, a fast path of eager PyTorch may give different numbers.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch.export import ExportedProgram

from linux_side.frontend.dynamic_shapes import user_values
from linux_side.frontend.golden_cost import Cost, cost_of
from linux_side.frontend.golden_doubts import (
    GoldenSample,
    are_different,
    difference,
    doubts_of_dependence,
    doubts_of_eager,
    doubts_of_values,
)
from linux_side.frontend.golden_entry import precision_of, tolerance_at, tolerance_of
from linux_side.frontend.golden_sizes import SampleSizes, Sizes, example_sizes
from linux_side.frontend.hidden_state import state_kept, written_parameters
from linux_side.frontend.original import Original
from linux_side.fx.modes import draws
from linux_side.fx.widened import Widened
from linux_side.guards.profiles import Profiles
from toolchain.errors import BuildFailedError
from toolchain.host.memory import free_memory
from toolchain.manifest.models import Tolerance
from toolchain.text import first_line, size_text

# Further runs that would take longer, in seconds, or a greater share of the free memory are left out.
LONGEST_RUN = 60.0
SHARE_OF_MEMORY = 0.5
_OVER_HALF = "it would take over half of the free memory"


@dataclass(frozen=True)
class Recording:
    """Golden samples and warnings about them.

    Attributes:
        samples: the samples; none if they would prove nothing.
        warnings: the warnings that do not depend on the tolerance.
        at_other_inputs: the outputs for other inputs of the example's sizes; None if they were not computed.
        precision: what the outputs of a program in halves were computed in; None if the program is in fp32.
    """

    samples: list[GoldenSample] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    at_other_inputs: list[torch.Tensor | None] | None = None
    precision: str | None = None

    def warnings_at(self, tolerance: Tolerance) -> list[str]:
        """Returns all warnings for an artifact whose outputs may differ from golden by this tolerance."""
        if self.at_other_inputs is None:
            return self.warnings
        outputs = self.samples[0].outputs
        return self.warnings + doubts_of_dependence(outputs, self.at_other_inputs, tolerance.relative_l2)


def record_golden(original: Original, program: ExportedProgram, samples: int, profiles: Profiles) -> Recording:
    """Runs the exported program on the example and on variations of it, and checks the outputs.

    The first sample is the example itself, whatever it costs. If sizes are dynamic, further samples have the least
    sizes, the greatest, and sizes between. Any remaining samples have the example's sizes: floats are drawn with the
    example's mean and standard deviation, other values are shuffled so that they stay in range. State carries over from
    sample to sample, as in the artifact, and is restored at the end.

    Args:
        original: the model that the program was exported from, or the program's own module.
        program: the exported program.
        samples: how many samples to record.
        profiles: for each optimization profile, each symbol's ``min``, ``opt`` and ``max``.

    Returns:
        The samples, fewer if some fail or cost too much, and none if the model is not reproducible; with warnings.

    Raises:
        BuildFailedError: the exported program fails on the example, or each run changes a parameter.
    """
    return _Recorder(original, program, samples, profiles).record()


def too_large(program: ExportedProgram, leaves: Sequence[Any]) -> str | None:
    """Returns why there is too little memory for a run of a program on its example; None if there is enough.

    Args:
        program: the program.
        leaves: the leaves of the example's call.
    """
    needed, free = cost_of(program, example_sizes(user_values(program), leaves)).memory, free_memory()
    if needed <= free:
        return None
    return f"a run on the CPU is estimated to need {size_text(needed)} of memory, and {size_text(free)} is free"


class _TooMuchError(Exception):
    """A run would take too long or need too much memory."""


class _OtherResultsError(Exception):
    """A program in halves gives different results in fp32, so they depend on the rounding."""


class _Recorder:
    def __init__(self, original: Original, program: ExportedProgram, samples: int, profiles: Profiles) -> None:
        self._original, self._program, self._wanted = original, program, samples
        # An example of one row is traced with two rows, and guards may then refuse it although its numbers are right.
        self._exported = program.module(check_guards=False) if original.eager else original.model
        guards = getattr(program.module(), "_guards_fn", None) if samples > 1 else None
        self._sizes = SampleSizes(program, profiles, original.leaves, guards)
        self._free = free_memory()
        self._seconds = original.seconds
        self._warnings: list[str] = []
        self._own = precision_of(program)
        self._precision = self._own
        self._written = {name: program.state_dict[name].clone() for name in written_parameters(program)}

    def record(self) -> Recording:
        recording = self._recording()
        self._require_parameters_kept(same_outputs=bool(recording.samples))
        return recording

    def _recording(self) -> Recording:
        with state_kept(self._exported):
            samples = [self._first_sample(), *self._further_samples()]
        originals = self._run_original(samples)
        if self._differs_from_itself(samples[0], originals):
            return Recording([], [f"there is no golden I/O: {self._why_different()}"])
        if self._original.eager:
            runs = originals or [self._original.outputs]
            self._warnings += doubts_of_eager(list(zip((s.outputs for s in samples), runs, strict=False)))
        self._warnings += doubts_of_values(samples)
        precision = None if self._own == "fp32" else self._precision
        return Recording(samples, self._warnings, self._at_other_inputs(), precision)

    def _require_parameters_kept(self, *, same_outputs: bool) -> None:
        """Requires that each run leaves the same parameters; unlike buffers, they are too large to be restored.

        The values were read after the original's first run. If a second run gives other outputs, the first one may
        have changed them.
        """
        for name, after_first in self._written.items():
            if not same_outputs or not torch.equal(after_first, self._program.state_dict[name]):
                raise BuildFailedError(
                    f"the model changes its parameter {name} at each call, so that recording golden outputs has "
                    "changed the initial value",
                    where=name,
                    remedy="make it a buffer (register_buffer), or build with --golden 0",
                )

    def _first_sample(self) -> GoldenSample:
        if self._own != "fp32":
            try:
                return self._first_in_fp32()
            except Exception as error:  # noqa: BLE001 - an operator may raise any class for fp32
                self._precision = self._own
                why = str(error) if isinstance(error, (_TooMuchError, _OtherResultsError)) else _said(error)
                self._warnings.append(
                    f"golden I/O is computed in {self._own}, as the model is, and rounded itself; in fp32: {why}"
                )
        return self._first_in_its_own()

    def _first_in_fp32(self) -> GoldenSample:
        """Runs the first sample in fp32, and compares it with the model's own outputs."""
        if cost_of(self._program, self._sizes.example, in_fp32=True).memory > self._free * SHARE_OF_MEMORY:
            raise _TooMuchError(_OVER_HALF)
        self._precision = "fp32"
        with state_kept(self._exported, after_errors_alone=True):
            sample, seconds = self._timed(self._original.leaves)
            for got, own in zip(sample.outputs, self._original.outputs, strict=True):
                if got is None or own is None:
                    continue
                change = difference(got, own)
                if change > tolerance_at(own.dtype, tolerance_of(self._own)).relative_l2:
                    raise _OtherResultsError(f"it gives something else, by a relative {change:.0e}")
        self._seconds = max(self._seconds, seconds)
        return sample

    def _first_in_its_own(self) -> GoldenSample:
        try:
            sample, seconds = self._timed(self._original.leaves)
        except Exception as error:
            raise BuildFailedError(
                f"the exported program raised {type(error).__name__} on the model's own example: "
                f"{str(error).strip()[:200]}",
                where="golden outputs",
                remedy="torch.export changed what the model does; --golden 0 builds without golden I/O",
            ) from error
        self._seconds = max(self._seconds, seconds)
        return sample

    def _further_samples(self) -> Iterator[GoldenSample]:
        """Yields samples at other sizes first, and then at the example's."""
        more = self._wanted - 1
        others = list(itertools.islice(self._sizes.others(), more))
        calls = [(sizes, self._sizes.leaves_at(sizes)) for sizes in others]
        calls += [(self._sizes.example, _varied(self._original.leaves, 1 + n)) for n in range(more - len(others))]
        for sizes, leaves in calls:
            try:
                self._require_modest(sizes)
                with state_kept(self._exported, after_errors_alone=True):
                    sample, _ = self._timed(leaves)
            except Exception as error:  # noqa: BLE001 - a model may raise any class for inputs that it does not take
                self._leave_out(leaves, error)
            else:
                yield sample

    def _leave_out(self, leaves: Sequence[Any], error: Exception) -> None:
        why = str(error) if isinstance(error, _TooMuchError) else f"the exported program raised {_said(error)}"
        shapes = ", ".join(str(list(leaf.shape)) for leaf in leaves if isinstance(leaf, torch.Tensor))
        self._warnings.append(f"a golden sample of sizes {shapes} is left out: {why}")

    @cached_property
    def _example_cost(self) -> Cost:
        return cost_of(self._program, self._sizes.example)

    def _require_modest(self, sizes: Sizes) -> None:
        cost = cost_of(self._program, sizes, in_fp32=self._precision != self._own)
        if self._seconds * cost.work / max(self._example_cost.work, 1) > LONGEST_RUN:
            raise _TooMuchError(f"it would take over {LONGEST_RUN:.0f} s")
        if cost.memory > self._free * SHARE_OF_MEMORY:
            raise _TooMuchError(_OVER_HALF)

    def _timed(self, leaves: Sequence[Any]) -> tuple[GoldenSample, float]:
        start = time.monotonic()
        outputs = self._run(leaves)
        return GoldenSample([_tensor(leaf) for leaf in leaves], outputs), time.monotonic() - start

    def _run(self, leaves: Sequence[Any]) -> list[torch.Tensor | None]:
        """Runs the exported program, in fp32 if it is in halves; returns its outputs in the original's dtypes."""
        if self._precision == self._own:
            return self._original.run(self._exported, leaves)
        with Widened():
            outputs = self._original.run(self._exported, leaves)
        pairs = zip(outputs, self._original.outputs, strict=True)
        return [out if out is None or own is None else out.to(own.dtype) for out, own in pairs]

    def _run_original(self, samples: Sequence[GoldenSample]) -> list[list[torch.Tensor | None]]:
        """Runs the original on the samples, the example for a second time, until it fails on one."""
        if self._seconds > LONGEST_RUN:
            self._warnings.append(
                f"the model takes over {LONGEST_RUN:.0f} s and was run once alone: whether its outputs are the same at "
                "each run is not known"
            )
            return []
        outputs: list[list[torch.Tensor | None]] = []
        with state_kept(self._original.model):
            for number, sample in enumerate(samples if self._original.eager else samples[:1]):
                try:
                    outputs.append(self._original.run(self._original.model, self._with_plain_values(sample)))
                except Exception as error:  # noqa: BLE001 - the model may raise any class at sizes it does not take
                    self._warnings.append(
                        f"on golden sample {number}, which the exported program takes, the model itself raised "
                        f"{_said(error)}"
                    )
                    break
        return outputs

    def _with_plain_values(self, sample: GoldenSample) -> list[Any]:
        pairs = zip(self._original.leaves, sample.inputs, strict=True)
        return [leaf if tensor is None else tensor for leaf, tensor in pairs]

    def _differs_from_itself(self, example: GoldenSample, originals: list[list[torch.Tensor | None]]) -> bool:
        """Returns whether a second run on the example differs, of the original or of a program that draws numbers."""
        if originals and are_different(originals[0], self._original.outputs):
            return True
        if not any(draws(node) for node in self._program.graph.nodes):
            return False
        with state_kept(self._exported):
            return are_different(self._timed(self._original.leaves)[0].outputs, example.outputs)

    def _why_different(self) -> str:
        operators = sorted({str(node.target) for node in self._program.graph.nodes if draws(node)})
        drawn = f" (it draws random numbers: {', '.join(operators)})" if operators else ""
        return f"the model gives other outputs each time that it is run on the same inputs{drawn}"

    def _at_other_inputs(self) -> list[torch.Tensor | None] | None:
        leaves = _varied(self._original.leaves, seed=0)
        changed = any(
            isinstance(leaf, torch.Tensor) and not torch.equal(leaf, other)
            for leaf, other in zip(self._original.leaves, leaves, strict=True)
        )
        if not changed or self._seconds > LONGEST_RUN:
            return None
        with state_kept(self._exported):
            try:
                return self._run(leaves)
            except Exception as error:  # noqa: BLE001 - varied values may be invalid, such as offsets
                self._warnings.append(
                    "whether the golden outputs depend on the inputs is not known: for other inputs, the exported "
                    f"program raised {_said(error)}"
                )
                return None


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def _varied(leaves: Sequence[Any], seed: int) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    return [_vary(leaf, generator) for leaf in leaves]


def _vary(leaf: Any, generator: torch.Generator) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    if leaf.is_floating_point():
        spread = leaf.float().std().nan_to_num(1.0).item() or 1.0 if leaf.numel() > 1 else 1.0
        return (torch.randn(leaf.shape, generator=generator) * spread + leaf.float().mean()).to(leaf.dtype)
    order = torch.randperm(leaf.numel(), generator=generator)
    return leaf.flatten()[order].reshape(leaf.shape)


def _tensor(leaf: Any) -> torch.Tensor | None:
    return leaf if isinstance(leaf, torch.Tensor) else None
