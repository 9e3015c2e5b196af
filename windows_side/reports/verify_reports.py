"""Writes a verification as files: the page for people, and JUnit XML for CI."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain.errors import MalformedArtifactError, UsageError
from toolchain.io.strict_json import load_json
from toolchain.limits import JsonLimit
from toolchain.report.junit import Case, Suite, junit_xml
from toolchain.report.writing import write_report
from windows_side.verification.levels import StepResult, Verification, broken_off

_LATENCY = JsonLimit("the latency", 64 * 2**20, 1_000_000)


@dataclass(frozen=True)
class Reports:
    """The files to write, and what the page shows besides the verification.

    Attributes:
        html: where the page goes, or None.
        junit: where the JUnit XML goes, or None.
        latency: the document of ``bench --json``, for the page.
    """

    html: Path | None
    junit: Path | None
    latency: dict[str, Any] | None = None

    def write(self, verification: Verification) -> None:
        """Writes the files from the results so far; a verification under way is reported as broken off.

        Raises:
            UsageError: a file cannot be written.
        """
        if self.junit:
            write_report(self.junit, junit_xml([verification_suite(verification)]))
        if self.html:
            from toolchain.report.render import render
            from windows_side.reports.verify_page import verify_page

            write_report(self.html, render(verify_page(verification, self.latency)))


def verification_suite(verification: Verification) -> Suite:
    """Returns one case per level; a level that was not reached is skipped, and one that is still running has failed."""
    group = "trtcross.verify"
    cases = [_case(result, group) for result in verification.results]
    ended = {result.level for result in verification.results}
    for level in verification.levels:
        if level == verification.running:
            cases.append(Case(level, group, failure=broken_off(level)))
        elif level not in ended:
            cases.append(Case(level, group, skipped="not reached"))
    return Suite(verification.path, cases, verification.started, _properties(verification))


def read_latency(path: Path) -> dict[str, Any]:
    """Reads the document that ``bench --json`` printed.

    Raises:
        UsageError: the file cannot be read, or has no such figures.
    """
    wrong = UsageError(
        "these are no figures of a benchmark", where=str(path), remedy="write it by `trtcross bench --json`"
    )
    try:
        document = load_json(path.read_bytes(), where=str(path), limit=_LATENCY)
    except (OSError, MalformedArtifactError) as error:
        raise wrong from error
    latency = document.get("latency") if isinstance(document, dict) else None
    figures = [latency.get(name) for name in ("median", "p5", "p95", "mean")] if isinstance(latency, dict) else []
    samples = latency.get("samples") if isinstance(latency, dict) else None
    if not figures or not isinstance(samples, list) or not samples:
        raise wrong
    if not all(isinstance(figure, (int, float)) and not isinstance(figure, bool) for figure in [*figures, *samples]):
        raise wrong
    return dict(document)


def _case(result: StepResult, group: str) -> Case:
    lines = [f"{name}: {value}" for name, value in result.details.items() if name != "outputs"]
    for output in result.details.get("outputs", ()):
        figures = {name: value for name, value in output.items() if name not in ("histogram", "tolerance")}
        lines.append(", ".join(f"{name} {value}" for name, value in figures.items()))
    return Case(result.level, group, result.seconds, result.error, output="\n".join(lines))


def _properties(verification: Verification) -> dict[str, str]:
    properties = dict(verification.machine)
    if verification.facts and verification.facts.manifest_sha256:
        properties["manifest sha256"] = verification.facts.manifest_sha256
    for item in verification.requirements:
        properties[f"requirement {item.name}"] = f"{item.state.value}: needs {item.needed}; here: {item.found}"
    return properties
