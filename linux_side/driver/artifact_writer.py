"""Writes an artifact from an exported program with tokens and its engines."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.export import ExportedProgram

from linux_side.exporter.engine_module import CompiledEngine
from linux_side.fx.saving import records_of, save
from linux_side.lowering.convert import EngineFacts
from toolchain.checker.writing import require_plain_graph, require_readable_golden, require_readable_graph
from toolchain.container.entry_names import (
    GOLDEN_ENTRY,
    GRAPH_ENTRY,
    MANIFEST_ENTRY,
    SAMPLE_INPUTS_ENTRY,
    is_tensor_list,
)
from toolchain.container.reader import Container
from toolchain.container.writer import ContainerWriter
from toolchain.engine.plan_header import HEADER_SIZE, parse_plan_header
from toolchain.graph.document import dump_graph, parse_graph, placeholder_nodes, set_devices, strip_traces
from toolchain.graph.writer import WrittenEngine, write_graph
from toolchain.limits import TENSOR_LIST
from toolchain.manifest.models import Aliased, EngineEntry, FileEntry, Manifest, PlanFacts
from toolchain.manifest.writing import manifest_entry

# torch.export.load puts the base64 text of all engines into one generated Python source. CPython limits it to 2 GiB.
STOCK_LIMIT = 2**31 - 2**24


@dataclass(frozen=True)
class Serialized:
    """A program as torch saved it.

    Attributes:
        path: the saved file.
        skeleton: the JSON of its graph, with a token in place of each engine.
        nodes: the names of the placeholder nodes, in graph order.
    """

    path: Path
    skeleton: bytes
    nodes: list[str]


def serialize_program(program: ExportedProgram, spool: Path) -> Serialized:
    """Saves the program with torch, then removes build traces from its graph and sets its devices to the GPU.

    Raises:
        BuildFailedError: the program exceeds a limit of the readers, or loading it would run code.
    """
    path = spool / "program.pt2"
    save(program, path)
    container = Container(path)
    try:
        document = parse_graph(container.read(GRAPH_ENTRY), where=GRAPH_ENTRY)
        for name in filter(is_tensor_list, container.entries):
            TENSOR_LIST.require(container.read(name), where=name)
    finally:
        container.close()
    strip_traces(document)
    set_devices(document, "cuda", 0)
    document["guards_code"] = []  # Python source; the manifest has the same rules as data
    nodes = [node.name for node in placeholder_nodes(document, where=GRAPH_ENTRY)]
    skeleton = dump_graph(document)
    require_plain_graph(require_readable_graph(skeleton))
    return Serialized(path, skeleton, nodes)


def write_artifact(
    out: Path,
    serialized: Serialized,
    engines: Sequence[CompiledEngine],
    facts: dict[str, EngineFacts],
    golden: bytes | None,
    manifest: dict[str, Any],
) -> Manifest:
    """Writes the artifact in one pass.

    Args:
        out: the file to write; an existing one is replaced.
        serialized: the saved program.
        engines: the engines in graph order.
        facts: the bindings and profiles of each engine, by its name.
        golden: the golden entry's bytes; None without golden I/O.
        manifest: the manifest's members except ``engines``, ``files`` and ``stock_readable``.

    Returns:
        The manifest that was written.

    Raises:
        BuildFailedError: the artifact exceeds a limit of the readers, or the disk is full.
    """
    if golden is not None:
        require_readable_golden(golden)
    files: dict[str, FileEntry] = {}
    container = Container(serialized.path)
    try:
        with ContainerWriter(out) as writer:
            for name, entry in container.entries.items():
                if name == GRAPH_ENTRY:
                    graph = write_graph(writer, serialized.skeleton, [engine.plan for engine in engines])
                    files[name] = graph.file
                elif name == SAMPLE_INPUTS_ENTRY:
                    files[name] = FileEntry(sha256=writer.add(name, b""), size=0)
                else:
                    files[name] = FileEntry(sha256=writer.copy(container, name), size=entry.size)
            if golden is not None:
                files[GOLDEN_ENTRY] = FileEntry(sha256=writer.add(GOLDEN_ENTRY, golden), size=len(golden))
            entries = [
                _entry(engine, node, written, facts[engine.info.name])
                for engine, node, written in zip(engines, serialized.nodes, graph.engines, strict=True)
            ]
            finished = Manifest(
                engines=entries,
                files=files,
                stock_readable=files[GRAPH_ENTRY].size < STOCK_LIMIT,
                **manifest,
            )
            writer.add(MANIFEST_ENTRY, manifest_entry(finished))
    finally:
        container.close()
    return finished


def program_digest(program: ExportedProgram) -> str:
    """Returns the SHA-256 of a program's graph (without build traces) and weights as torch would save them."""
    records = records_of(program)
    digest = hashlib.sha256()
    for name, content in sorted(records.digests.items()):
        if name == GRAPH_ENTRY:
            document = parse_graph(records.graph, where=GRAPH_ENTRY)
            strip_traces(document)
            content = hashlib.sha256(dump_graph(document)).hexdigest()
        elif not name.startswith(("data/weights/", "data/constants/")):
            continue
        digest.update(f"{name} {content}\n".encode())
    return digest.hexdigest()


def _entry(engine: CompiledEngine, node: str, written: WrittenEngine, facts: EngineFacts) -> EngineEntry:
    info = engine.info
    head = bytes(next(iter(engine.plan.chunks())))[:HEADER_SIZE]
    header = parse_plan_header(head, where=f"engine {info.name}")
    return EngineEntry(
        name=info.name,
        node=node,
        sha256=written.sha256,
        size=written.size,
        base64=written.span,
        plan=PlanFacts(magic=head[:4].decode("ascii"), release=header.release, capability_mask=header.capability_mask),
        inputs=facts.inputs,
        outputs=facts.outputs,
        profiles=facts.profiles,
        requires_output_allocator=info.requires_output_allocator,
        aliased_io=[Aliased(output=a.output, input=a.input, kind=a.kind) for a in info.aliased_io],
    )
