"""Conversion of artifacts: the same engines for a different platform, or of a file that Torch-TensorRT saved."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

from packaging.version import InvalidVersion, Version

from toolchain.artifact import Artifact
from toolchain.checker.safety import require_safe_to_convert
from toolchain.checker.writing import require_readable_golden, require_readable_graph
from toolchain.container.entry_names import (
    GOLDEN_ENTRY,
    GRAPH_ENTRY,
    MANIFEST_ENTRY,
    SAMPLE_INPUTS_ENTRY,
    is_tensor_list,
)
from toolchain.container.writer import ContainerWriter
from toolchain.engine.info import TARGET_PLATFORM_FIELD, EngineInfo
from toolchain.engine.metadata_reader import PickleError, read_metadata, shapes_alone
from toolchain.engine.releases import RELEASES, runs
from toolchain.errors import IncompatibleError, UsageError
from toolchain.graph.document import PlaceholderNode, dump_graph, placeholder_nodes, set_devices, set_field, set_fields
from toolchain.graph.torch_free import surely_runs_without_torch
from toolchain.graph.writer import EngineSource, WrittenGraph, write_graph
from toolchain.io.places import require_own_place
from toolchain.io.strict_json import load_json
from toolchain.limits import TENSOR_LIST
from toolchain.manifest.install import install_lines
from toolchain.manifest.models import (
    GOLDEN_PRECISION,
    GOLDEN_WARNINGS,
    TRUST,
    FileEntry,
    Golden,
    Manifest,
    Package,
    Producer,
    TargetSpec,
)
from toolchain.manifest.writing import manifest_entry
from toolchain.targets import Platform


@dataclass(frozen=True)
class GoldenData:
    """Golden I/O for an artifact that has none.

    Attributes:
        data: the bytes of its entry.
        golden: its record in the manifest.
        warnings: what it cannot show, as sentences.
        precision: what the outputs were computed in, of a model in halves.
    """

    data: bytes
    golden: Golden
    warnings: list[str] = field(default_factory=list)
    precision: str | None = None


def convert_artifact(
    artifact: Artifact,
    out: str | os.PathLike[str],
    platform: Platform | None = None,
    *,
    release: str | None = None,
    golden: GoldenData | None = None,
    trust: str | None = None,
) -> Manifest:
    """Writes an artifact with the same engines; each is checked on the way and stays the same to the byte.

    A foreign artifact loses its pickled sample inputs and its guards; only shapes stay of its engines' metadata.

    Args:
        artifact: the artifact to convert.
        out: the path of the new artifact.
        platform: the new platform, or None to keep the old one.
        release: the release of Torch-TensorRT (``2.14``) whose engine info is written, or None to keep the old one.
        golden: golden I/O, for an artifact that has none.
        trust: why a foreign file is accepted although torch would run code from it; the manifest records it.

    Returns:
        The manifest of the new artifact.

    Raises:
        IncompatibleError: the engines do not run on that platform, or with that release.
        MalformedArtifactError: a digest does not match.
        UntrustedError: torch would run code from the file, and no reason is given to trust it.
        UsageError: the artifact has golden I/O already, there is no such release, or ``out`` is the artifact itself.
    """
    require_own_place(out, artifact.path, where="-o")
    conversion = _Conversion(artifact, platform or artifact.manifest.target.platform, release, trust)
    conversion.check()
    if golden is not None and artifact.manifest.golden is not None:
        raise UsageError(
            "the artifact has golden I/O already", where=str(artifact.path), remedy="leave out --golden-from"
        )
    with ContainerWriter(out) as writer:
        converted = conversion.write(writer, golden)
        artifact.container.check_unchanged()
    return converted


class _Conversion:
    def __init__(self, artifact: Artifact, platform: Platform, release: str | None, trust: str | None) -> None:
        self.artifact = artifact
        self.manifest = artifact.manifest
        self.platform = platform
        self.release = release
        self.trust = trust

    def check(self) -> None:
        """Refuses a conversion that is not possible, before anything is written."""
        target = self.manifest.target
        if not target.backend.portable and self.platform is not target.platform:
            raise IncompatibleError(
                f"engines of {target.backend.value} run only on {target.platform.value}, the platform that they were "
                "built for",
                where=str(self.artifact.path),
                remedy=f"build the model again with --target {self.platform.value}, or with --backend tensorrt-rtx",
            )
        if self.release is not None:
            self._check_release(self.release)
        if self.artifact.foreign:
            require_safe_to_convert(self.artifact, self.trust)

    def _check_release(self, release: str) -> None:
        target = self.manifest.target
        if release not in RELEASES:
            raise UsageError(
                f"there is no release {release!r} of Torch-TensorRT in the table",
                where="--torch-tensorrt",
                remedy="use one of: " + ", ".join(RELEASES),
            )
        if not runs(release, target.backend, target.runtime):
            needed = RELEASES[release].runtimes.get(target.backend)
            raise IncompatibleError(
                f"its engines are of {target.backend.value} {target.runtime}, and Torch-TensorRT {release} runs "
                + (f"those of {target.backend.value} {needed}" if needed else f"none of {target.backend.value}"),
                where=str(self.artifact.path),
                remedy=f"build the model again with Torch-TensorRT {release}",
            )

    def write(self, writer: ContainerWriter, golden: GoldenData | None) -> Manifest:
        names = [name for name in self.artifact.container.entries if name != MANIFEST_ENTRY]
        at = names.index(GRAPH_ENTRY)
        files = {name: self._copy(writer, name) for name in names[:at]}
        sources = [EngineSource(engine.size, engine.chunks) for engine in self.artifact.engines]
        skeleton = dump_graph(self._document())
        require_readable_graph(skeleton)
        graph = write_graph(writer, skeleton, sources)
        files[GRAPH_ENTRY] = graph.file
        files |= {name: self._copy(writer, name) for name in names[at + 1 :]}
        if golden is not None:
            require_readable_golden(golden.data)
            files[GOLDEN_ENTRY] = FileEntry(sha256=writer.add(GOLDEN_ENTRY, golden.data), size=len(golden.data))
        converted = self._converted(files, graph, golden)
        writer.add(MANIFEST_ENTRY, manifest_entry(converted))
        return converted

    def _document(self) -> dict[str, Any]:
        document = self.artifact.graph()
        where = str(self.artifact.path)
        for node in placeholder_nodes(document, where=where):
            if self.artifact.foreign or self.release:
                set_fields(node, [str(field) for field in self._info(node, where).fields(node.token)])
            else:
                set_field(node, TARGET_PLATFORM_FIELD, self.platform.runtime_name)
        if self.artifact.foreign:
            set_devices(document, "cuda", 0)
        return document

    def _info(self, node: PlaceholderNode, where: str) -> EngineInfo:
        info = replace(node.info(where), target_platform=self.platform.runtime_name)
        if self.release:
            info = info.of_abi(RELEASES[self.release].abi, where=where)
        if not self.artifact.foreign:
            return info
        try:
            return replace(info, metadata=shapes_alone(read_metadata(info.metadata)))
        except PickleError:
            return info  # the file is trusted, or it would have been refused

    def _copy(self, writer: ContainerWriter, name: str) -> FileEntry:
        listed = self.manifest.files[name]
        if self.artifact.foreign and (data := self._rewritten(name)) is not None:
            return FileEntry(sha256=writer.add(name, data), size=len(data))
        self.artifact.require_digest(name, writer.copy(self.artifact.container, name))
        return listed

    def _rewritten(self, name: str) -> bytes | None:
        """Returns the new bytes of a foreign entry; None if it is copied as it is."""
        if name == SAMPLE_INPUTS_ENTRY:
            return b""
        if not is_tensor_list(name):
            return None
        # Stock torch moves each weight that it reads to the device in this list; see docs/ship/format.md.
        document = load_json(self.artifact.read_entry(name), where=name, limit=TENSOR_LIST)
        set_devices(document, "cpu", None)
        data = json.dumps(document).encode()
        TENSOR_LIST.require(data, where=name)
        return data

    def _converted(self, files: dict[str, FileEntry], graph: WrittenGraph, golden: GoldenData | None) -> Manifest:
        manifest = self.manifest
        target, producer = self._target(), self._producer()
        update: dict[str, Any] = {
            "created": datetime.now(timezone.utc),
            "target": target,
            "producer": producer,
            "install": install_lines(
                target, producer, without_torch=surely_runs_without_torch([item.operator for item in manifest.fallback])
            ),
            "engines": [
                entry.model_copy(update={"base64": written.span})
                for entry, written in zip(manifest.engines, graph.engines, strict=True)
            ],
            "files": files,
        }
        settings = dict(manifest.settings)
        if golden is not None:
            update["golden"] = golden.golden
            settings |= {GOLDEN_WARNINGS: [*golden.warnings]} if golden.warnings else {}
            settings |= {GOLDEN_PRECISION: golden.precision} if golden.precision else {}
        if self.trust is not None:
            settings[TRUST] = self.trust
        update["settings"] = settings
        return manifest.model_copy(update=update)

    def _target(self) -> TargetSpec:
        update: dict[str, Any] = {"platform": self.platform}
        if self.release:
            update["abi_version"] = RELEASES[self.release].abi
        return self.manifest.target.model_copy(update=update)

    def _producer(self) -> Producer:
        producer = self.manifest.producer
        if not self.release:
            return producer
        return producer.model_copy(
            update={
                "torch": _torch_of(self.release, producer.torch),
                "torch_tensorrt": Package(name=producer.torch_tensorrt.name, version=self.release),
            }
        )


def _torch_of(release: str, saved_by: str) -> str:
    """Returns the torch version that goes with a release of Torch-TensorRT: ``saved_by``, if its numbers fit."""
    try:
        version = Version(saved_by)
    except InvalidVersion:
        return release
    if ".".join(map(str, version.release[:2])) == release:
        return saved_by
    return f"{release}.0+{version.local}" if version.local else f"{release}.0"
