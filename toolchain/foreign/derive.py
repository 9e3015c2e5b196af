"""Derives a manifest from a file of Torch-TensorRT's own saver, which has none.

Nothing in the file is run. The graph is parsed as data, engines are found by a bounded search, and the metadata pickle
is read by a reader that accepts only a list of names.
"""

from __future__ import annotations

import hashlib
import platform
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from toolchain.container.entry_names import GRAPH_ENTRY
from toolchain.container.reader import Container
from toolchain.engine.info import EngineInfo
from toolchain.engine.metadata_reader import PickleError, read_metadata, settings_of
from toolchain.engine.plan_header import HEADER_SIZE, PlanHeader, parse_plan_header
from toolchain.engine.releases import RELEASES, release_of
from toolchain.errors import IncompatibleError, MalformedArtifactError
from toolchain.foreign.engine_search import find_engines, raw_size
from toolchain.graph.document import PlaceholderNode, drop_code, dump_graph, parse_graph, placeholder_nodes
from toolchain.graph.skeleton import engine_token
from toolchain.graph.torch_free import surely_runs_without_torch
from toolchain.graph.values import GraphValues
from toolchain.host.installed import own_version
from toolchain.io.base64_stream import TEXT_CHUNK, ParallelHash, decode_stream
from toolchain.io.hashing import stream_digest
from toolchain.limits import FOREIGN_GRAPH
from toolchain.manifest.install import install_lines
from toolchain.manifest.models import (
    FOREIGN,
    Aliased,
    BuildRecord,
    Coverage,
    EngineEntry,
    FileEntry,
    Manifest,
    Package,
    PlanFacts,
    Producer,
    SourceModel,
    Span,
    TargetSpec,
)
from toolchain.manifest.reading import parse_manifest
from toolchain.targets import Platform


@dataclass(frozen=True)
class _Plan:
    header: PlanHeader
    magic: str
    sha256: str
    size: int
    span: Span


@dataclass(frozen=True)
class Derived:
    """What is derived from a foreign file.

    Attributes:
        manifest: the manifest that the file would have.
        graph: the graph's text with a token in each engine's place, without guards and nodes' metadata: nothing needs
            them, and torch would run or import them.
    """

    manifest: Manifest
    graph: bytes


def derive(container: Container) -> Derived:
    """Derives a manifest and a graph; every byte of the file is read once, and each engine twice.

    Raises:
        MalformedArtifactError: the file is damaged, or no artifact of Torch-TensorRT.
        IncompatibleError: its engines are for a platform that trtcross does not know.
    """
    try:
        manifest, document = _derived(container)
        text = manifest.to_json().encode()
        drop_code(document)
        graph = dump_graph(document)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        # The code above relies on the form that torch writes. Whatever is missing or has a different type ends here.
        raise container.damaged(f"its graph is not as torch writes one ({type(error).__name__})") from error
    return Derived(parse_manifest(text, where=str(container.path)), graph)  # as strict as for a file's own


def _derived(container: Container) -> tuple[Manifest, dict[str, Any]]:
    where = f"{container.path}, entry {GRAPH_ENTRY}"
    found = find_engines(_checked(container, GRAPH_ENTRY), where=where)
    skeleton = found.skeleton
    document = parse_graph(skeleton, where=where, limit=FOREIGN_GRAPH)
    placeholders = placeholder_nodes(document, where=where)
    _check_tokens(container, skeleton, placeholders, len(found.spans))
    values = GraphValues(document, where=where)
    plans = [_plan(container, span, node.name) for span, node in zip(found.spans, placeholders, strict=True)]
    infos = [node.info(f"{where}, node {node.name}") for node in placeholders]
    files = {
        name: FileEntry(sha256=hashlib.sha256(skeleton).hexdigest(), size=entry.size)
        if name == GRAPH_ENTRY
        else _file(container, name)
        for name, entry in container.entries.items()
    }
    target = _target(container, infos[0], plans[0], values)
    producer = _producer(target, values)
    manifest = Manifest(
        created=datetime.fromtimestamp(container.modified, timezone.utc),
        stock_readable=True,
        producer=producer,
        model=SourceModel(name=container.path.stem, digest=_model_digest(files)),
        settings={FOREIGN: "Torch-TensorRT", "compilation_settings": _settings(infos[0])},
        target=target,
        install=install_lines(
            target, producer, without_torch=surely_runs_without_torch([item.operator for item in values.fallback()])
        ),
        call=values.call(),
        inputs=values.inputs(),
        outputs=values.outputs(),
        engines=[
            _engine(values, node, info, plan) for node, info, plan in zip(placeholders, infos, plans, strict=True)
        ],
        fallback=values.fallback(),
        coverage=Coverage(operators=None, in_engines=None),
        files=files,
        golden=None,
        build=BuildRecord(seconds={}, cache_key=None, from_cache=False),
    )
    return manifest, document


def _check_tokens(container: Container, skeleton: bytes, placeholders: list[PlaceholderNode], engines: int) -> None:
    tokens = [engine_token(index) for index in range(engines)]
    if not placeholders:
        raise MalformedArtifactError(
            "this is a plain .pt2 program: it holds no TensorRT engine in a placeholder node",
            where=str(container.path),
            remedy="give it to `trtcross build`, which makes an artifact of it",
        )
    in_text = skeleton.count(engine_token(0)[:-1].encode())
    if [node.token for node in placeholders] != tokens or in_text != engines:
        raise container.damaged("its placeholder nodes do not hold one TensorRT engine each")


def _plan(container: Container, span: tuple[int, int], node: str) -> _Plan:
    where = f"{container.path}, node {node}"
    start, length = container.entry(GRAPH_ENTRY).offset + span[0], span[1]
    digest, head = ParallelHash(), b""
    for raw in decode_stream(container.chunks(start, length, TEXT_CHUNK), digest, where=where):
        head = head or raw[:HEADER_SIZE]
    header = parse_plan_header(head, where=where)
    size = raw_size(b"".join(container.chunks(start + max(length - 2, 0), min(length, 2))), length)
    place = Span(entry=GRAPH_ENTRY, offset=span[0], length=length)
    return _Plan(header, head[:4].decode("ascii"), digest.hexdigest(), size, place)


def _checked(container: Container, name: str) -> Iterator[bytes]:
    """Yields an entry's bytes and checks its CRC at the end, the only check that such a file offers."""
    entry, crc = container.entry(name), 0
    for chunk in container.chunks(entry.offset, entry.size):
        crc = zlib.crc32(chunk, crc)
        yield chunk
    if crc != entry.crc:
        raise container.damaged(f"the CRC of the entry {name} is wrong")


def _file(container: Container, name: str) -> FileEntry:
    return FileEntry(sha256=stream_digest(_checked(container, name)), size=container.entry(name).size)


def _model_digest(files: dict[str, FileEntry]) -> str:
    digest = hashlib.sha256()
    for name in sorted(files):
        if name == GRAPH_ENTRY or name.startswith(("data/weights/", "data/constants/")):
            digest.update(f"{name} {files[name].sha256}\n".encode())
    return digest.hexdigest()


def _target(container: Container, info: EngineInfo, plan: _Plan, values: GraphValues) -> TargetSpec:
    names = {known.runtime_name: known for known in Platform}
    if info.target_platform not in names:
        raise IncompatibleError(
            f"its engines are for the platform {info.target_platform[:40]!r}, which trtcross does not know",
            where=str(container.path),
            remedy="build the model with trtcross, for one of: " + ", ".join(known.value for known in Platform),
        )
    backend = plan.header.backend
    release = release_of(values.torch_version(), info.abi_version) or _newest(info.abi_version)
    capabilities = list(map(str, plan.header.capabilities))
    if not capabilities and not info.hardware_compatible:
        capabilities = [str(info.device.capability)]
    return TargetSpec(
        platform=names[info.target_platform],
        compute_capabilities=capabilities,
        backend=backend,
        runtime=plan.header.release or RELEASES[release].runtimes[backend],
        abi_version=info.abi_version,
    )


def _newest(abi: int) -> str:
    return [name for name, release in RELEASES.items() if release.abi == abi][-1]


def _producer(target: TargetSpec, values: GraphValues) -> Producer:
    torch = values.torch_version()
    release = release_of(torch, target.abi_version) or _newest(target.abi_version)
    torch_tensorrt, tensorrt = target.backend.distributions
    return Producer(
        trtcross=own_version(),
        torch=torch or release,
        torch_tensorrt=Package(name=torch_tensorrt, version=release),
        tensorrt=Package(name=tensorrt, version=target.runtime),
        python=platform.python_version(),
        os=f"{platform.system()} {platform.machine()}",
        gpu=None,
        driver=None,
    )


def _settings(info: EngineInfo) -> dict[str, Any] | None:
    try:
        return settings_of(read_metadata(info.metadata))
    except PickleError:
        return None  # `verify` and `load` refuse the file and give the reason


def _engine(values: GraphValues, node: PlaceholderNode, info: EngineInfo, plan: _Plan) -> EngineEntry:
    return EngineEntry(
        name=info.name,
        node=node.name,
        sha256=plan.sha256,
        size=plan.size,
        base64=plan.span,
        plan=PlanFacts(magic=plan.magic, release=plan.header.release, capability_mask=plan.header.capability_mask),
        inputs=values.bindings(info.input_names, node.inputs),
        outputs=values.bindings(info.output_names, node.outputs),
        profiles=[],
        requires_output_allocator=info.requires_output_allocator,
        aliased_io=[Aliased(output=a.output, input=a.input, kind=a.kind) for a in info.aliased_io],
    )
