"""Writes JUnit XML as CI systems read it; https://github.com/testmoapp/junitxml describes the dialect."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from toolchain.errors import TrtcrossError
from toolchain.text import printable

_OUTPUT_LIMIT = 50_000


@dataclass(frozen=True)
class Case:
    """One thing that was tested, and its outcome.

    Attributes:
        name: what was tested.
        group: what it belongs to; CI shows it as the class.
        seconds: how long it took.
        failure: why it failed; a bug of ours (exit code 1) counts as an error, not a failure.
        skipped: why it was skipped.
        output: text for people.
    """

    name: str
    group: str
    seconds: float = 0.0
    failure: TrtcrossError | None = None
    skipped: str | None = None
    output: str = ""

    @property
    def outcome(self) -> str:
        """``passed``, ``failure``, ``error`` or ``skipped``."""
        if self.failure is not None:
            return "error" if self.failure.exit_code == TrtcrossError.exit_code else "failure"
        return "passed" if self.skipped is None else "skipped"


@dataclass(frozen=True)
class Suite:
    """Cases that belong together, such as one artifact's."""

    name: str
    cases: Sequence[Case]
    when: datetime | None = None
    properties: Mapping[str, str] = field(default_factory=dict)


def junit_xml(suites: Sequence[Suite], name: str = "trtcross") -> str:
    """Returns the XML document. Texts are made printable and cut, since they may come from a hostile file."""
    root = ElementTree.Element("testsuites", _counts([case for suite in suites for case in suite.cases], name))
    for suite in suites:
        root.append(_suite(suite))
    ElementTree.indent(root, " ")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _counts(cases: Sequence[Case], name: str) -> dict[str, str]:
    outcomes = [case.outcome for case in cases]
    return {
        "name": printable(name),
        "tests": str(len(cases)),
        "failures": str(outcomes.count("failure")),
        "errors": str(outcomes.count("error")),
        "skipped": str(outcomes.count("skipped")),
        "time": f"{sum(case.seconds for case in cases):.3f}",
    }


def _suite(suite: Suite) -> ElementTree.Element:
    element = ElementTree.Element("testsuite", _counts(suite.cases, suite.name))
    if suite.when:
        element.set("timestamp", suite.when.isoformat(timespec="seconds"))
    if suite.properties:
        properties = ElementTree.SubElement(element, "properties")
        for name, value in suite.properties.items():
            ElementTree.SubElement(properties, "property", name=printable(name), value=printable(value))
    element.extend(_case(case) for case in suite.cases)
    return element


def _case(case: Case) -> ElementTree.Element:
    attributes = {"name": printable(case.name), "classname": printable(case.group), "time": f"{case.seconds:.3f}"}
    element = ElementTree.Element("testcase", attributes)
    if case.failure is not None:
        kind, message = type(case.failure).__name__, printable(case.failure.problem)
        problem = ElementTree.SubElement(element, case.outcome, type=kind, message=message)
        problem.text = printable(str(case.failure))
    elif case.skipped is not None:
        ElementTree.SubElement(element, "skipped", message=printable(case.skipped))
    if case.output:
        ElementTree.SubElement(element, "system-out").text = printable(case.output, _OUTPUT_LIMIT)
    return element
