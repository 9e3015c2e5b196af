"""A build's precision: the program in fp32 becomes one in mixed precision, and what that costs is measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.export import ExportedProgram

from linux_side.precision.apply import functional_program, insert_casts
from linux_side.precision.assign import Assignment, assign
from linux_side.precision.plan import KeepPatterns
from linux_side.precision.rules import default_rules
from linux_side.precision.simulate import relative_errors, run_rounded

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}

Sample = tuple[Sequence[Any], Sequence[Any]]


@dataclass(frozen=True)
class Mixed:
    """A program in mixed precision.

    Attributes:
        program: what to lower.
        kept: how many operators stay in fp32, by reason.
        errors: of each output, the worst relative L2 error over all samples, measured on the CPU; None where no sample
            tells.
    """

    program: ExportedProgram
    kept: dict[str, int] = field(default_factory=dict)
    errors: list[float | None] = field(default_factory=list)


def mix(program: ExportedProgram, precision: str, keep: Sequence[str], samples: Sequence[Sample]) -> Mixed:
    """Makes a program compute in halves where the rules let it; the given one is not changed.

    Args:
        precision: ``fp16`` or ``bf16``.
        keep: patterns of what stays in fp32 beyond the rules.
        samples: each the leaves of a call and its outputs' leaves in fp32.

    Raises:
        UsageError: a pattern names nothing.
    """
    dtype = DTYPES[precision]
    functional = functional_program(program)
    patterns = KeepPatterns(keep)
    assignment = assign(functional, default_rules(), dtype, patterns.reason)
    patterns.require_all_matched(functional.graph)
    errors = _worst_errors(functional, assignment, dtype, samples)
    kept = Counter(assignment.reasons.values())
    return Mixed(insert_casts(functional, assignment, dtype), dict(kept.most_common()), errors)


def _worst_errors(
    program: ExportedProgram, assignment: Assignment, dtype: torch.dtype, samples: Sequence[Sample]
) -> list[float | None]:
    if any(node.users and _is_a_number(node) for node in program.graph.find_nodes(op="placeholder")):
        return []  # samples hold tensors alone
    runs = [relative_errors(run_rounded(program, assignment.half, dtype, inputs), want) for inputs, want in samples]
    return [max((error for error in errors if error is not None), default=None) for errors in zip(*runs, strict=True)]


def _is_a_number(node: torch.fx.Node) -> bool:
    return isinstance(node.meta.get("val"), (torch.SymInt, torch.SymFloat, torch.SymBool))
