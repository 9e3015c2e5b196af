"""Retargeting an artifact: the same engine bytes, another platform in the engine info and in the manifest."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path

from toolchain.artifact import Artifact
from toolchain.container_writer import ContainerWriter
from toolchain.engine_info import TARGET_PLATFORM_FIELD
from toolchain.errors import IncompatibleError
from toolchain.graph_document import dump_graph, placeholder_nodes, set_field
from toolchain.graph_writer import EngineSource, write_graph
from toolchain.install import install_lines
from toolchain.manifest import GRAPH_ENTRY, MANIFEST_ENTRY, Manifest
from toolchain.targets import Platform


def convert_artifact(artifact: Artifact, out: str | os.PathLike[str], platform: Platform) -> Manifest:
    """Writes the artifact of another platform; every engine is checked on the way and stays the same to the byte.

    Where ``out`` is the artifact's own file, it is replaced, and ``artifact`` is closed.

    Raises:
        IncompatibleError: the backend's engines run only on the platform that they were built for.
        MalformedArtifactError: a digest does not match.
    """
    manifest = artifact.manifest
    if not manifest.target.backend.portable and platform is not manifest.target.platform:
        raise IncompatibleError(
            f"engines of {manifest.target.backend.value} run only on {manifest.target.platform.value}, "
            "the platform that they were built for",
            where=str(artifact.path),
            remedy=f"build the model again with --target {platform.value}, or with --backend tensorrt-rtx",
        )
    document = artifact.graph()
    for node in placeholder_nodes(document, where=str(artifact.path)):
        set_field(node, TARGET_PLATFORM_FIELD, platform.runtime_name)
    files = {}
    with ContainerWriter(out) as writer:
        for name in artifact.container.entries:
            if name == GRAPH_ENTRY:
                sources = [EngineSource(engine.size, engine.chunks) for engine in artifact.engines]
                graph = write_graph(writer, dump_graph(document), sources)
                files[name] = graph.file
            elif name != MANIFEST_ENTRY:
                artifact.require_digest(name, writer.copy(artifact.container, name))
                files[name] = manifest.files[name]
        engines = [
            entry.model_copy(update={"base64": written.span})
            for entry, written in zip(manifest.engines, graph.engines, strict=True)
        ]
        target = manifest.target.model_copy(update={"platform": platform})
        converted = manifest.model_copy(
            update={
                "created": datetime.now(timezone.utc),
                "target": target,
                "install": install_lines(target, manifest.producer),
                "engines": engines,
                "files": files,
            }
        )
        writer.add(MANIFEST_ENTRY, converted.to_json().encode())
        artifact.container.check_unchanged()
        if Path(out).exists() and artifact.path.samefile(out):
            artifact.close()  # Windows replaces no file that is open
    return converted
