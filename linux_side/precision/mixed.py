"""``--precision``: makes a program in mixed precision, and measures its error."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.export import ExportedProgram

from linux_side.options import Halves
from linux_side.precision.apply import functional_program, insert_casts
from linux_side.precision.assign import Assignment
from linux_side.precision.patterns import EVERYTHING, KeepPatterns
from linux_side.precision.rules import default_rules
from linux_side.precision.search import Found, Sample, Setting, choose_precision
from toolchain.errors import BuildFailedError, UsageError
from toolchain.manifest.models import PrecisionRecord

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}

# The search aims at this fraction of the tolerance, because a GPU rounds in different places than the simulation.
MARGIN = 0.75

# The difference of fp32 results between machines.
FINEST = 1e-6


@dataclass(frozen=True)
class Mixed:
    """A program in mixed precision.

    Attributes:
        program: the program to lower.
        record: its record in the manifest.
    """

    program: ExportedProgram
    record: PrecisionRecord


def mix(
    program: ExportedProgram,
    halves: Halves,
    tolerance: float,
    keep: Sequence[str],
    samples: Sequence[Sample],
    *,
    tf32: bool,
    plan: Sequence[str] = (),
) -> Mixed:
    """Returns a program that computes in halves where the rules allow it. The given program is not changed.

    Args:
        program: the program in fp32.
        halves: ``fp16`` or ``bf16``.
        tolerance: the relative L2 error allowed for the artifact's outputs; a greater error gives a warning.
        keep: patterns of what stays in fp32 beyond the rules.
        samples: the leaves of each call's inputs, and of its outputs in fp32.
        tf32: whether products that stay in fp32 use TF32.
        plan: patterns of a precision plan, which also stay in fp32.

    Raises:
        UsageError: a pattern matches nothing.
        BuildFailedError: an output is finite in fp32 and not in halves.
    """
    setting = _setting(program, halves, keep, samples, tf32, plan)
    assignment = setting.assigned()
    errors = setting.errors(assignment.half)
    return _mixed(setting, halves, setting.keep, assignment, errors, _over(errors, halves, tolerance))


def mix_within(
    program: ExportedProgram,
    tolerance: float,
    keep: Sequence[str],
    samples: Sequence[Sample],
    *,
    tf32: bool,
    seconds: float = math.inf,
) -> Mixed:
    """Returns a program that computes in fp16 as far as its outputs stay within a tolerance.

    Args:
        program: the program in fp32.
        tolerance: the relative L2 error of the worst output over all samples.
        keep: patterns of what stays in fp32 in any case.
        samples: the leaves of each call's inputs, and of its outputs in fp32.
        tf32: whether products that stay in fp32 use TF32.
        seconds: how long the search may take.

    Raises:
        UsageError: no sample can be measured, a pattern matches nothing, or the tolerance is finer than fp32.
        BuildFailedError: even fp32 exceeds the tolerance.
    """
    if tolerance < FINEST:
        raise UsageError(
            f"the tolerance {tolerance:g} cannot be met: fp32 itself differs by {FINEST:g} from machine to machine",
            where="--tolerance",
            remedy="ask for 1e-5 or more",
        )
    setting = _setting(program, "fp16", keep, samples, tf32)
    _require_samples_that_tell(setting)
    found = choose_precision(setting, tolerance * MARGIN, seconds=seconds)
    if found.best.error > tolerance:
        raise _not_met(tolerance, found, tf32)
    best = found.best
    warnings = _search_warnings(tolerance, found)
    return _mixed(setting, "fp16", [*keep, *best.keep], best.assignment, best.errors, warnings)


def _setting(
    program: ExportedProgram,
    halves: str,
    keep: Sequence[str],
    samples: Sequence[Sample],
    tf32: bool,
    plan: Sequence[str] = (),
) -> Setting:
    functional = functional_program(program)
    KeepPatterns(keep).require_all_matched(functional.graph, "--keep-fp32")
    KeepPatterns(plan).require_all_matched(functional.graph, "--precision-plan")
    if any(node.users and _is_a_number(node) for node in functional.graph.find_nodes(op="placeholder")):
        samples = []  # samples contain tensors only, so a program that takes numbers cannot run on them
    return Setting(functional, default_rules(), DTYPES[halves], samples, [*keep, *plan], tf32)


def _mixed(
    setting: Setting,
    halves: Halves,
    keep: Sequence[str],
    assignment: Assignment,
    errors: list[float | None],
    warnings: list[str],
) -> Mixed:
    _require_finite(errors, halves)
    operators = sum(node.op == "call_function" for node in assignment.half)
    record = PrecisionRecord(
        halves=halves,
        in_halves=operators,
        in_fp32=dict(Counter(assignment.reasons.values()).most_common()),
        keep_fp32=list(keep),
        errors=errors,
        warnings=warnings,
    )
    return Mixed(insert_casts(setting.program, assignment, setting.dtype), record)


def _require_finite(errors: Sequence[float | None], halves: str) -> None:
    for index, error in enumerate(errors):
        if error is not None and not math.isfinite(error):
            raise BuildFailedError(
                f"in {halves} the model's output {index} is not finite, where it is in fp32",
                where=f"--precision {halves}",
                remedy="use --precision auto, or bf16, which has the range of fp32; or --keep-fp32 MODULE",
            )


def _over(errors: Sequence[float | None], halves: str, tolerance: float) -> list[str]:
    return [
        f"{halves} alone makes output {index} differ from fp32 by {error:.1e}, where {tolerance:g} is allowed: "
        "`verify` will refuse it; use --precision auto, or --keep-fp32"
        for index, error in enumerate(errors)
        if error is not None and error > tolerance
    ]


def _require_samples_that_tell(setting: Setting) -> None:
    where = "--precision auto"
    if not setting.samples:
        raise UsageError(
            "there is no golden sample to measure with",
            where=where,
            remedy="build with --golden 1 or more and inputs that are tensors, or choose --precision fp16 by hand",
        )
    for number, (inputs, outputs) in enumerate(setting.samples):
        for kind, leaves in (("input", inputs), ("output", outputs)):
            for index, leaf in enumerate(leaves):
                if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() and bool(leaf.isnan().any()):
                    raise UsageError(
                        f"the golden sample {number} holds NaN in its {kind} {index}, so no error can be measured",
                        where=where,
                        remedy="give the model an example whose inputs and outputs are numbers",
                    )


def _not_met(tolerance: float, found: Found, tf32: bool) -> BuildFailedError:
    reached = f"in fp32{' with TF32' if tf32 else ''} the outputs differ by {found.best.error:.1e}"
    return BuildFailedError(
        f"the tolerance {tolerance:g} cannot be met: {reached}" + _nearest_words(found),
        where="--tolerance",
        remedy=("add --no-tf32, or " if tf32 else "") + f"ask for {found.best.error * 2:.0e} or more",
    )


def _search_warnings(tolerance: float, found: Found) -> list[str]:
    kept = "everything" if found.best.keep == [EVERYTHING] else ", ".join(found.best.keep)
    if kept == "everything":
        return [
            f"--precision auto keeps everything in fp32: nothing in halves holds {tolerance:g}{_nearest_words(found)}"
        ]
    if found.ended:
        return []
    return [
        f"the search of --precision auto ended with its passes or its time, after {found.passes} passes; its best plan "
        f"reaches {found.best.error:.1e} and keeps in fp32 beyond the rules: {kept or 'nothing'}"
    ]


def _nearest_words(found: Found) -> str:
    if found.nearest is None:
        return "; there was no time for one pass in halves"
    keep = ", ".join(found.nearest.keep) or "nothing beyond the rules"
    return f"; the nearest with halves, keeping {keep} in fp32, gives {found.nearest.error:.1e}"


def _is_a_number(node: torch.fx.Node) -> bool:
    return isinstance(node.meta.get("val"), (torch.SymInt, torch.SymFloat, torch.SymBool))
