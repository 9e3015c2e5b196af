"""Makes the sections about an artifact, and about its requirements on a machine, for every page that has them."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence

from toolchain.artifact import Artifact
from toolchain.container.entry_names import GOLDEN_ENTRY, GRAPH_ENTRY
from toolchain.errors import TrtcrossError
from toolchain.host.requirements import Requirement, State
from toolchain.manifest.describe import size_lines, sizes_text
from toolchain.manifest.models import (
    FOREIGN,
    Coverage,
    EngineEntry,
    Manifest,
    ValueSpec,
    fallback_warnings,
    golden_text,
    golden_warnings,
)
from toolchain.pages.graph_picture import graph_picture
from toolchain.report.page import Bar, Bars, Block, Facts, Mark, Section, Table, TableCell, Text
from toolchain.text import size_text

_BAR_LIMIT = 24

NEEDS = "What the artifact needs"
_STATES = {State.MET: Mark.GOOD, State.NOT_MET: Mark.BAD, State.UNKNOWN: Mark.DOUBT}


def command(*words: str) -> str:
    """Quotes a command line for this system's shell."""
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


def requirement_table(requirements: Sequence[Requirement], *, asked: bool = True) -> Table:
    """Makes a table of requirements, with a remedy for each that is not met.

    Args:
        requirements: the requirements.
        asked: False if the page is not about whether the artifact runs here: an unmet requirement is then no failure.
    """
    rows: list[list[str | TableCell]] = [
        [item.name, TableCell(item.state.value, _mark(item.state, asked)), item.needed, found]
        for item, found in zip(requirements, _once([(item, item.found) for item in requirements]), strict=True)
    ]
    columns = ["requirement", "state", "needs", "here"]
    if any(item.state is not State.MET for item in requirements):
        columns.append("what to do")
        remedies = _once([(item, "" if item.state is State.MET else item.remedy or "") for item in requirements])
        for row, remedy in zip(rows, remedies, strict=True):
            row.append(remedy)
    return Table(columns, rows)


def _once(texts: Sequence[tuple[Requirement, str]]) -> list[str]:
    """Replaces a text that an earlier unmet requirement has already by a reference to that requirement."""
    first_with: dict[str, str] = {}
    result = []
    for item, text in texts:
        first = item.name if item.state is State.MET or not text else first_with.setdefault(text, item.name)
        result.append(text if first == item.name else f"as for {first}")
    return result


def _mark(state: State, asked: bool) -> Mark:
    return _STATES[state] if asked or state is State.MET else Mark.NONE


def graph_section(artifact: Artifact) -> Section:
    """Makes the section with the graph as a picture, or the reason why it cannot be drawn."""
    try:
        return Section("The graph", [graph_picture(artifact, size_lines(artifact.manifest))])
    except TrtcrossError as error:
        return Section("The graph", [Text(f"It is not drawn: {error.problem}.")])


def value_section(manifest: Manifest) -> Section:
    """Makes the section about inputs, outputs and the conditions on their sizes."""
    rows = [
        *(_value_row("input", value) for value in manifest.inputs),
        *(_value_row("output", value) for value in manifest.outputs),
    ]
    blocks: list[Block] = [Table(("name", "is", "dtype", "sizes"), rows)]
    blocks += [Text(f"Checked at each call: {line}.") for line in size_lines(manifest)]
    return Section("Inputs and outputs", blocks)


def _value_row(kind: str, value: ValueSpec) -> list[str | TableCell]:
    if value.shape is None:
        return [value.name, kind, "", repr(value.value)]
    return [value.name, kind, str(value.dtype), sizes_text(value.shape)]


def install_section(manifest: Manifest) -> Section:
    """Makes the section with the lines that set up a machine for the artifact."""
    return Section("To set up a machine for it", [Text("\n".join(manifest.install), code=True)])


def artifact_section(artifact: Artifact) -> Section:
    """Makes the section of :func:`artifact_blocks` for an open artifact."""
    digest = None if artifact.foreign else artifact.manifest_sha256
    return Section("The artifact", artifact_blocks(artifact.manifest, digest, artifact.container.size))


def artifact_blocks(manifest: Manifest, manifest_sha256: str | None, size: int) -> list[Block]:
    """Makes the facts about an artifact, the table of operators that stay in PyTorch, and the warnings.

    Args:
        manifest: the artifact's manifest.
        manifest_sha256: the digest of its bytes; None for a foreign file, which has no manifest.
        size: the size of the file, in bytes.
    """
    target = manifest.target
    facts: list[tuple[str, str | TableCell]] = [
        ("model", manifest.model.name),
        ("for", f"{target.platform.value}, {target.backend.value} {target.runtime}, ABI {target.abi_version}"),
        ("GPUs", " ".join(target.compute_capabilities) or "as the engine decides"),
        ("built", _built(manifest)),
        ("size", f"{size_text(size)} ({size:,} bytes)"),
        (
            "manifest's SHA-256",
            TableCell(manifest_sha256, code=True) if manifest_sha256 else "none: saved by Torch-TensorRT itself",
        ),
        ("coverage", _coverage(manifest.coverage)),
        ("precision", precision_text(manifest)),
        ("golden I/O", golden_text(manifest)),
    ]
    blocks: list[Block] = [Facts(facts)]
    if manifest.fallback:
        rows: list[list[str | TableCell]] = [
            [item.operator, TableCell(str(item.count), number=True), item.device] for item in manifest.fallback
        ]
        blocks.append(Table(("operator that stays in PyTorch", "times", "on"), rows))
    warnings = dict.fromkeys([*fallback_warnings(manifest), *golden_warnings(manifest)])
    return [*blocks, *(Text(f"Warning: {text}") for text in warnings)]


def _built(manifest: Manifest) -> str:
    producer, when = manifest.producer, f"{manifest.created:%Y-%m-%d %H:%M} UTC"
    stack = f"torch {producer.torch}, {producer.torch_tensorrt.name} {producer.torch_tensorrt.version}"
    if saver := manifest.settings.get(FOREIGN):
        return f"{when} by {saver}, {stack}"
    return f"{when} by trtcross {producer.trtcross}, {stack}"


def precision_text(manifest: Manifest) -> str:
    """Describes the precision that the artifact computes in."""
    precision = manifest.precision
    if precision is None:
        return str(manifest.settings.get("precision") or "as the model has it")
    stayed = sum(precision.in_fp32.values())
    kept = f"; kept beyond the rules: {', '.join(precision.keep_fp32)}" if precision.keep_fp32 else ""
    return f"{precision.in_halves} operators in {precision.halves}, {stayed} in fp32{kept}"


def _coverage(coverage: Coverage) -> str:
    if coverage.operators is None:
        return "not known"
    return f"{coverage.in_engines} of {coverage.operators} operators run in TensorRT"


def engine_blocks(manifest: Manifest) -> list[Block]:
    """Makes the blocks about the engines: sizes, bindings and digests."""
    rows = [_engine_row(engine) for engine in manifest.engines]
    digests = "\n".join(f"{engine.sha256}  {engine.name}" for engine in manifest.engines)
    return [_sizes(manifest), Table(("engine", "inputs", "outputs"), rows), Text("SHA-256:"), Text(digests, code=True)]


def _engine_row(engine: EngineEntry) -> list[str | TableCell]:
    inputs, outputs = (
        ", ".join(f"{binding.name} {binding.dtype} {binding.shape}" for binding in bindings)
        for bindings in (engine.inputs, engine.outputs)
    )
    return [engine.name, inputs, outputs]


def _sizes(manifest: Manifest) -> Bars:
    """Makes bars of the engines and the other contents of the file, in raw bytes."""
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
