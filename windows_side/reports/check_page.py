"""The page of ``trtcross check --html``: every requirement on this machine, and the graph as a picture."""

from __future__ import annotations

from collections.abc import Sequence

from toolchain.artifact import Artifact
from toolchain.host.installed import own_version
from toolchain.host.machine import machine_facts
from toolchain.host.requirements import Requirement
from toolchain.pages.sections import (
    NEEDS,
    artifact_section,
    command,
    graph_section,
    install_section,
    requirement_table,
    value_section,
)
from toolchain.report.page import Facts, Mark, Page, Section, Text, Verdict
from windows_side.preflight.requirements import unmet


def check_page(artifact: Artifact, requirements: Sequence[Requirement]) -> Page:
    """Returns the page of a check.

    Args:
        requirements: every requirement of the artifact, as :func:`.runtimes.check_for` returns them.
    """
    manifest, path = artifact.manifest, str(artifact.path)
    return Page(
        title=artifact.path.name,
        subtitle=f"{manifest.model.name}, checked against this machine; no engine was touched",
        verdict=_verdict(requirements),
        sections=[
            Section(NEEDS, [requirement_table(requirements)]),
            Section("This machine", [Facts(list(machine_facts().items()))]),
            graph_section(artifact),
            artifact_section(artifact),
            value_section(manifest),
            install_section(manifest),
            Section("To check it again", [Text(command("trtcross", "check", path), code=True)]),
        ],
        footer=f"trtcross {own_version()}; artifact {path}",
    )


def _verdict(requirements: Sequence[Requirement]) -> Verdict:
    if missing := unmet(requirements):
        names = ", ".join(item.name for item in missing)
        return Verdict(Mark.BAD, "It cannot run here", f"not met, or not known: {names}", "see each requirement below")
    return Verdict(Mark.GOOD, "It can run here", f"all {len(requirements)} requirements are met")
