"""Makes reports from plain data: an HTML page that needs no network, and JUnit XML for CI.

::

    from toolchain.report import Mark, Page, Section, Table, Verdict, render, write_report

    table = Table(["model", "error"], [["resnet50", "3e-4"]])
    page = Page("Night run", Verdict(Mark.GOOD, "all within tolerance"), [Section("Models", [table])])
    write_report(Path("night.html"), render(page))
"""

from __future__ import annotations

from toolchain.report.junit import Case, Suite, junit_xml
from toolchain.report.page import (
    Bar,
    Bars,
    Bin,
    Block,
    Box,
    Edge,
    Facts,
    Graph,
    Grid,
    Histogram,
    Mark,
    Page,
    Section,
    Table,
    TableCell,
    Text,
    Verdict,
)
from toolchain.report.render import render
from toolchain.report.writing import write_report

__all__ = [
    "Bar",
    "Bars",
    "Bin",
    "Block",
    "Box",
    "Case",
    "Edge",
    "Facts",
    "Graph",
    "Grid",
    "Histogram",
    "Mark",
    "Page",
    "Section",
    "Suite",
    "Table",
    "TableCell",
    "Text",
    "Verdict",
    "junit_xml",
    "render",
    "write_report",
]
