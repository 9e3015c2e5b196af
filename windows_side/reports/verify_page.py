"""A verification's page: the verdict, this machine, what is in the artifact, and how far its numbers are off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from toolchain.checker.structure import LEVELS
from toolchain.container.entry_names import GOLDEN_ENTRY, GRAPH_ENTRY
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
from toolchain.host.requirements import Requirement, State
from toolchain.manifest.models import Coverage, EngineEntry, Manifest, PrecisionRecord
from toolchain.report.page import (
    Bar,
    Bars,
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
from toolchain.text import size_text
from windows_side.preflight.requirements import unmet
from windows_side.verification.levels import ArtifactSummary, Verification, broken_off
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
# Sections that show why a verification failed.
_NEEDS, _NUMBERS = "What the artifact needs", "Numbers"
_STATES = {State.MET: Mark.GOOD, State.NOT_MET: Mark.BAD, State.UNKNOWN: Mark.DOUBT}


def verify_page(verification: Verification, latency: dict[str, Any] | None = None) -> Page:
    """
    Args:
        verification: as far as it has come; a level under way is shown as broken off.
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
        yield Section(_NEEDS, [requirement_table(verification.requirements, asked=asked)])
    if verification.facts:
        yield Section("The artifact", list(_artifact(verification.facts)))
        yield Section("Engines", list(_engines(verification.facts.manifest)))
    if verification.outputs:
        yield Section(_NUMBERS, list(_numbers(verification.outputs)))
    if latency:
        yield Section("Latency", list(_latency(latency["latency"])))
    if verification.facts:
        install = verification.facts.manifest.install
        yield Section("To set up a machine for it", [Text("\n".join(install), code=True)])


def _failed_first(verification: Verification, sections: list[Section]) -> list[Section]:
    """The sections, with the one first that shows why the verification failed."""
    shown = {IncompatibleError: _NEEDS, WrongNumbersError: _NUMBERS}
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
    """What a verification that passed does not say."""
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


def requirement_table(requirements: Sequence[Requirement], *, asked: bool = True) -> Table:
    """Every requirement, and what to do where one is not met.

    Args:
        asked: False where nobody asked whether it runs here: what is not met is then no failure.
    """
    rows: list[list[str | TableCell]] = [
        [item.name, TableCell(item.state.value, _mark(item.state, asked)), item.needed, item.found]
        for item in requirements
    ]
    columns = ["requirement", "state", "needs", "here"]
    if unmet(requirements):
        columns.append("what to do")
        for row, item in zip(rows, requirements, strict=True):
            row.append("" if item.state is State.MET else item.remedy or "")
    return Table(columns, rows)


def _mark(state: State, asked: bool) -> Mark:
    return _STATES[state] if asked or state is State.MET else Mark.NONE


def _artifact(facts: ArtifactSummary) -> Iterator[Facts | Table | Bars]:
    manifest = facts.manifest
    target, producer = manifest.target, manifest.producer
    digest = facts.manifest_sha256
    yield Facts(
        [
            ("model", manifest.model.name),
            ("for", f"{target.platform.value}, {target.backend.value} {target.runtime}, ABI {target.abi_version}"),
            ("GPUs", " ".join(target.compute_capabilities) or "as the engine decides"),
            (
                "built",
                f"{manifest.created:%Y-%m-%d %H:%M} UTC by trtcross {producer.trtcross}, torch {producer.torch}, "
                f"{producer.torch_tensorrt.name} {producer.torch_tensorrt.version}",
            ),
            ("size", f"{size_text(facts.size)} ({facts.size:,} bytes)"),
            ("manifest's SHA-256", TableCell(digest, code=True) if digest else "none: saved by Torch-TensorRT itself"),
            ("coverage", _coverage(manifest.coverage)),
            ("precision", _precision(manifest.precision)),
        ]
    )
    if manifest.fallback:
        rows: list[list[str | TableCell]] = [
            [item.operator, TableCell(str(item.count), number=True), item.device] for item in manifest.fallback
        ]
        yield Table(("operator that stays in PyTorch", "times", "on"), rows)


def _precision(precision: PrecisionRecord | None) -> str:
    if precision is None:
        return "as the model was exported"
    stayed = sum(precision.in_fp32.values())
    kept = f"; kept beyond the rules: {', '.join(precision.keep_fp32)}" if precision.keep_fp32 else ""
    return f"{precision.in_halves} operators in {precision.halves}, {stayed} in fp32{kept}"


def _coverage(coverage: Coverage) -> str:
    if coverage.operators is None:
        return "not known"
    return f"{coverage.in_engines} of {coverage.operators} operators run in TensorRT"


def _engines(manifest: Manifest) -> Iterator[Bars | Table]:
    yield _sizes(manifest)
    rows = [_engine_row(engine) for engine in manifest.engines]
    yield Table(("engine", "inputs", "outputs", "SHA-256"), rows)


def _engine_row(engine: EngineEntry) -> list[str | TableCell]:
    inputs, outputs = (
        ", ".join(f"{binding.name} {binding.dtype} {binding.shape}" for binding in bindings)
        for bindings in (engine.inputs, engine.outputs)
    )
    return [engine.name, inputs, outputs, TableCell(engine.sha256, code=True)]


def _sizes(manifest: Manifest) -> Bars:
    """The engines and what else is in the file, each in its raw size."""
    largest = sorted(manifest.engines, key=lambda engine: -engine.size)[:_BAR_LIMIT]
    names = {engine.name for engine in largest}
    bars = [Bar(e.name, e.size, size_text(e.size)) for e in manifest.engines if e.name in names]
    left = len(manifest.engines) - len(bars)
    if left > 0:
        size = sum(engine.size for engine in manifest.engines) - sum(bar.value for bar in bars)
        bars.append(Bar(f"{left} smaller engines", size, size_text(int(size))))
    files = {name: file.size for name, file in manifest.files.items()}
    graph = files.pop(GRAPH_ENTRY, 0) - sum(engine.base64.length for engine in manifest.engines)
    golden = files.pop(GOLDEN_ENTRY, 0)
    for label, size in (("weights and constants", sum(files.values())), ("golden I/O", golden), ("graph", graph)):
        bars.append(Bar(label, max(size, 0), size_text(max(size, 0)), None))
    return Bars("What the file holds. In the file, an engine is base64, a third longer.", bars)


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
        f"{error.name} {error.dtype} {shape}",
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
    """How many elements of an output are how far off; what lies past the allowed maximum is marked."""
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
