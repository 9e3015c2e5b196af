"""An exported program with tokens, and its engines, become an artifact on disk."""

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

# Torch holds every engine's text in one generated Python source, which CPython limits to 2 GiB.
STOCK_LIMIT = 2**31 - 2**24


@dataclass(frozen=True)
class Serialized:
    """A program as torch wrote it, on disk, and its graph's text with tokens."""

    path: Path
    skeleton: bytes
    nodes: list[str]


def serialize_program(program: ExportedProgram, spool: Path) -> Serialized:
    """Lets torch write the program, then takes build traces out of the graph and puts it on the GPU.

    Raises:
        BuildFailedError: there is more of it than any reader takes, or torch would run code from it.
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
    document["guards_code"] = []  # Python source; the manifest's ranges say the same as data
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
        engines: in graph order.
        golden: the golden entry's bytes.
        manifest: the manifest's members but ``engines`` and ``files``.

    Raises:
        BuildFailedError: there is more of something than any reader takes, or the disk is full.
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
    """SHA-256 of a program's graph (without build traces) and weights, as it would be saved."""
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
