"""The page of ``trtcross verify --html``: the verdict, this machine, the artifact, and the errors of its outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from toolchain.checker.structure import LEVELS
from toolchain.errors import (
    IncompatibleError,
    MalformedArtifactError,
    MissingComponentError,
    TrtcrossError,
    UntrustedError,
    UsageError,
    WrongNumbersError,
)
from toolchain.host.installed import version_of
from toolchain.pages.sections import (
    NEEDS,
    artifact_blocks,
    command,
    engine_blocks,
    install_section,
    requirement_table,
)
from toolchain.report.page import (
    Bin,
    Facts,
    Histogram,
    Mark,
    Page,
    Section,
    Table,
    TableCell,
    Text,
    Verdict,
)
from windows_side.preflight.requirements import unmet
from windows_side.verification.levels import Verification, broken_off
from windows_side.verification.output_error import ErrorHistogram, OutputError, doubts_of_added

_BAR_LIMIT = 24
_HISTOGRAM_LIMIT = 12

_COVERED = {
    "signature": "somebody whom the policy trusts has signed it",
    "integrity": "every byte that a digest covers",
    "structure": "graph, engines and manifest agree; no code would run from the file",
    "load": "it can run on this machine, and its engines load",
    "numbers": "outputs for golden inputs, against those of the original model",
}
_HEADLINES: list[tuple[type[TrtcrossError], Mark, str]] = [
    (MalformedArtifactError, Mark.BAD, "Damaged or malformed"),
    (UntrustedError, Mark.BAD, "Not trusted"),
    (WrongNumbersError, Mark.BAD, "Wrong numbers"),
    (IncompatibleError, Mark.BAD, "Not verified: it cannot run here"),
    (MissingComponentError, Mark.DOUBT, "Not verified: something is missing on this machine"),
    (UsageError, Mark.DOUBT, "Not verified"),
    (TrtcrossError, Mark.DOUBT, "Not verified: an unexpected error"),
]
_NUMBERS = "Numbers"


def verify_page(verification: Verification, latency: dict[str, Any] | None = None) -> Page:
    """Returns the page of a verification.

    Args:
        verification: may be under way; the running level is shown as broken off.
        latency: the document of ``bench --json``.
    """
    facts = verification.facts
    model = f"{facts.manifest.model.name}, " if facts else ""
    done = "checked" if verification.error or verification.running else "verified"
    return Page(
        title=Path(verification.path).name,
        subtitle=f"{model}{done} on {verification.started:%Y-%m-%d at %H:%M} UTC, level {verification.level}",
        verdict=_verdict(verification),
        sections=_failed_first(verification, list(_sections(verification, latency))),
        footer=f"trtcross {version_of('trtcross')}; artifact {verification.path}",
    )


def _sections(verification: Verification, latency: dict[str, Any] | None) -> Iterator[Section]:
    yield Section("Levels", [_levels(verification)])
    if verification.machine:
        yield Section("This machine", [Facts(list(verification.machine.items()))])
    if verification.requirements:
        asked = verification.level in ("load", "numbers")
        yield Section(NEEDS, [requirement_table(verification.requirements, asked=asked)])
    if verification.facts:
        facts = verification.facts
        yield Section("The artifact", artifact_blocks(facts.manifest, facts.manifest_sha256, facts.size))
        yield Section("Engines", engine_blocks(facts.manifest))
    if verification.outputs:
        yield Section(_NUMBERS, list(_numbers(verification.outputs)))
    if latency:
        yield Section("Latency", list(_latency(latency["latency"])))
    if verification.facts:
        yield install_section(verification.facts.manifest)
    yield Section("To verify it again", [Text(_again(verification), code=True)])


def _again(verification: Verification) -> str:
    return command("trtcross", "verify", verification.path, "--level", verification.level)


def _failed_first(verification: Verification, sections: list[Section]) -> list[Section]:
    """Returns the sections, with the one first that shows why the verification failed."""
    shown = {IncompatibleError: NEEDS, WrongNumbersError: _NUMBERS}
    failed = [title for kind, title in shown.items() if isinstance(verification.error, kind)]
    return sorted(sections, key=lambda section: section.title not in failed)


def _verdict(verification: Verification) -> Verdict:
    if verification.running:
        broken = broken_off(verification.running)
        return Verdict(Mark.DOUBT, "Not finished", broken.problem, broken.remedy or "")
    error = verification.error
    if error is None:
        return Verdict(Mark.GOOD, f"Verified: {', '.join(verification.levels)}", "\n".join(_left_open(verification)))
    mark, headline = next((mark, headline) for kind, mark, headline in _HEADLINES if isinstance(error, kind))
    reason = error.problem + (f"\n{error.where}" if error.where else "")
    return Verdict(mark, headline, reason, error.remedy or "")


def _left_open(verification: Verification) -> Iterator[str]:
    """Yields what a verification that passed did not cover."""
    if left := [level for level in LEVELS if level not in verification.levels]:
        yield f"Not asked for: {', '.join(left)}."
    if missing := unmet(verification.requirements):
        yield f"Not met, or not known, on this machine: {', '.join(item.name for item in missing)}."


def _levels(verification: Verification) -> Table:
    ended = {result.level: result for result in verification.results}
    rows: list[list[str | TableCell]] = []
    for level in verification.levels:
        outcome, seconds = TableCell("not reached", Mark.NONE), ""
        if level == verification.running:
            outcome = TableCell("broken off", Mark.DOUBT)
        elif level in ended:
            result = ended[level]
            outcome = TableCell("passed", Mark.GOOD) if result.passed else TableCell("failed", Mark.BAD)
            seconds = f"{result.seconds:.2f}"
        rows.append([level, outcome, _COVERED[level], TableCell(seconds, number=True)])
    return Table(("level", "outcome", "what it covers", "seconds"), rows)


def _numbers(outputs: Sequence[OutputError]) -> Iterator[Table | Histogram | Text]:
    columns = (
        "output",
        "sample",
        "within",
        "relative error",
        "of the precision",
        "maximum",
        "cosine",
        "worst element",
        "is",
        "should be",
    )
    yield Table(columns, [_number_row(error) for error in outputs], "Errors relative to golden, with what is allowed.")
    yield from (Text(f"Warning: {text}.") for text in doubts_of_added(outputs))
    drawn = sorted(outputs, key=_badness, reverse=True)[:_HISTOGRAM_LIMIT]
    yield from (error_histogram(error) for error in drawn)
    if len(drawn) < len(outputs):
        yield Text(f"Drawn are the {len(drawn)} that come closest to what is allowed, or exceed it.")


def _badness(error: OutputError) -> float:
    return error.max_relative / (error.tolerance.max_relative or 1e-30)


def _number_row(error: OutputError) -> list[str | TableCell]:
    shape = "\u00d7".join(map(str, error.shape))
    return [
        f"{error.title} {error.dtype} {shape}",
        TableCell(str(error.sample), number=True),
        TableCell("yes", Mark.GOOD) if error.within else TableCell("no", Mark.BAD),
        TableCell(f"{error.relative_l2:.2e} of {error.tolerance.relative_l2:.0e}", number=True),
        TableCell("" if error.precision_error is None else f"{error.precision_error:.2e}", number=True),
        TableCell(f"{error.max_relative:.2e} of {error.tolerance.max_relative:.0e}", number=True),
        TableCell(f"{error.cosine:.7f}", number=True),
        str(list(error.worst_index)),
        TableCell(f"{error.worst_got:.6g}", number=True),
        TableCell(f"{error.worst_want:.6g}", number=True),
    ]


def error_histogram(error: OutputError) -> Histogram:
    """Returns a histogram of an output's elements by their error; bins past the allowed maximum are marked."""
    found, allowed = error.histogram, error.tolerance.max_relative
    bins = [Bin("equal", found.equal, "equal")]
    ticks = range(4, len(found.counts) - 4 if found.not_finite else len(found.counts), 4)
    for index, count in enumerate(found.counts):
        edge = found.edge(index)
        tick = f"{edge:.0e}".replace("e-0", "e-").replace("e+00", "") if index in ticks else ""
        label = f"{edge:.1e} to {found.edge(index + 1):.1e}"
        bins.append(Bin(label, count, tick, Mark.BAD if edge >= allowed else Mark.NONE))
    if found.not_finite:
        bins.append(Bin("not finite", found.not_finite, "not finite", Mark.BAD))
    elements = found.equal + sum(found.counts) + found.not_finite
    return Histogram(
        f"{error.name}, sample {error.sample}: elements by their error relative to the largest value",
        bins,
        f"Of {elements:,} elements {found.equal:,} are equal to golden; the largest error is {error.max_relative:.1e}, "
        f"allowed is {allowed:.0e}. Both axes are logarithmic.",
        (1 + ErrorHistogram.position(allowed), f"allowed: {allowed:.0e}"),
    )


def _latency(latency: dict[str, Any]) -> Iterator[Table | Histogram]:
    from windows_side.reports.bench_page import histogram

    figures = [TableCell(f"{latency[name]:.4f}", number=True) for name in ("median", "p5", "p95", "mean")]
    yield Table(("one call at a time, ms", "median", "5%", "95%", "mean"), [["this artifact", *figures]])
    yield histogram([float(sample) for sample in latency["samples"]], "Milliseconds of each call")
