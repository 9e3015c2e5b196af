"""The page of ``trtcross inspect --html``: what an artifact is, and its graph as a picture."""

from __future__ import annotations

from toolchain.artifact import Artifact
from toolchain.host.installed import own_version
from toolchain.pages.sections import (
    artifact_section,
    command,
    engine_blocks,
    graph_section,
    install_section,
    value_section,
)
from toolchain.report.page import Mark, Page, Section, Text, Verdict


def artifact_page(artifact: Artifact) -> Page:
    """Makes a page about an artifact; this machine is not part of it."""
    manifest, path = artifact.manifest, str(artifact.path)
    count, coverage = len(manifest.engines), manifest.coverage
    engines = f"{count} TensorRT engine{'' if count == 1 else 's'} for {manifest.target.platform.value}"
    known = coverage.operators is not None
    return Page(
        title=artifact.path.name,
        subtitle=f"{manifest.model.name}, as trtcross inspect reads it: no byte of an engine was checked or run",
        verdict=Verdict(
            Mark.NONE,
            engines,
            f"{coverage.in_engines} of {coverage.operators} operators run in TensorRT" if known else "",
        ),
        sections=[
            graph_section(artifact),
            artifact_section(artifact),
            value_section(manifest),
            Section("Engines", engine_blocks(manifest)),
            install_section(manifest),
            Section("To check it on a machine", [Text(command("trtcross", "check", path), code=True)]),
        ],
        footer=f"trtcross {own_version()}; artifact {path}",
    )
