"""Reports: a self-contained page, JUnit XML, and `verify`, which writes both whatever the outcome."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.conftest import ROOT
from tests.unit.handmade import Handmade
from toolchain.cli.main import cli
from toolchain.errors import MalformedArtifactError, TrtcrossError, UsageError, WrongNumbersError
from toolchain.manifest.models import Tolerance
from toolchain.report.junit import Case, Suite, junit_xml
from toolchain.report.page import (
    Bar,
    Bars,
    Bin,
    Box,
    Edge,
    Facts,
    Graph,
    Histogram,
    Mark,
    Page,
    Section,
    Table,
    TableCell,
    Text,
    Verdict,
)
from toolchain.report.pictures import columns
from toolchain.report.render import render
from toolchain.report.writing import write_report
from toolchain.text import TEXT_LIMIT, printable
from windows_side.reports.verify_page import error_histogram
from windows_side.reports.verify_reports import Reports, verification_suite
from windows_side.verification.levels import StepResult, Verification
from windows_side.verification.output_error import ErrorHistogram, OutputError

SCRIPT = "</script></style><script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>\" onload=\"x"


class Tags(HTMLParser):
    """Collects the elements of a page, their attributes, and the visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


def page_of(text: str) -> Page:
    """Returns a page on which every part holds this text."""
    bins = [Bin(text, 3, text), Bin(text, 0)]
    blocks = [
        Table([text, text], [[text, TableCell(text, Mark.BAD, code=True)], [text, TableCell(text, link=text)]], text),
        Facts([(text, text)]),
        Text(text),
        Text(text, code=True),
        Bars(text, [Bar(text, 1, text)]),
        Histogram(text, bins, text, (1, text)),
        Graph(text, [Box("a", "ends", text), Box("b", "engine", text)], [Edge("a", "b", [text])], text),
    ]
    return Page(text, Verdict(Mark.DOUBT, text, text, text), [Section(text, blocks)], text, text)


def figures(name: str = "y", **changes: Any) -> OutputError:
    counts = [0] * ErrorHistogram.BINS
    counts[10] = 5
    values: dict[str, Any] = {
        "sample": 0, "name": name, "dtype": "float32", "shape": (2, 4), "relative_l2": 1e-5, "max_absolute": 2e-5,
        "max_relative": 1.5e-5, "cosine": 1.0, "worst_index": (1, 3), "worst_got": 1.00002, "worst_want": 1.0,
        "tolerance": Tolerance(relative_l2=0.005, max_relative=0.02), "histogram": ErrorHistogram(3, tuple(counts), 0),
    }  # fmt: skip
    return OutputError(**{**values, **changes})


def verify(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["verify", *map(str, arguments)])


# --- the page


def test_a_page_asks_nobody_for_anything() -> None:
    tags = Tags(render(page_of("https://example.com/x.js")))
    for tag, attributes in tags.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form", "image", "use")
        for name, value in attributes.items():
            assert not name.startswith("on") and name not in ("src", "style", "srcset", "action", "formaction")
            assert name != "href" or (value or "").startswith("./"), value
    (script,), (style,) = tags.named("script"), tags.named("style")
    assert not script and not style


def test_its_policy_allows_its_own_style_and_script_and_nothing_else() -> None:
    html = render(page_of("x"))
    policy = next(meta["content"] for meta in Tags(html).named("meta") if "http-equiv" in meta) or ""
    digests = {
        name: "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for name, text in re.findall(r"<(style|script)>(.*?)</\1>", html, re.DOTALL)
    }
    assert policy.split("; ") == [
        "default-src 'none'",
        f"style-src '{digests['style']}'",
        f"script-src '{digests['script']}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    assert "url(" not in html and "@import" not in html


def test_hostile_text_stays_text() -> None:
    plain, hostile = Tags(render(page_of("x"))), Tags(render(page_of(SCRIPT)))
    shapes = [[(tag, sorted(attributes)) for tag, attributes in tags.elements] for tags in (plain, hostile)]
    assert shapes[0] == shapes[1]
    assert hostile.text.count(SCRIPT) >= 10


@pytest.mark.parametrize("link", ["javascript:alert(1)", "//example.com", "https://example.com", "\\\\host\\share"])
def test_a_link_leads_nowhere_but_beside_the_page(link: str) -> None:
    href = TableCell("x", link=link).href or ""
    assert href.startswith("./") and not href.startswith(".//") and ":" not in href


def test_what_is_long_is_cut_and_what_is_invisible_is_shown() -> None:
    assert printable("a\x1b\u202eb\ud800\ufffe\x00\tc\n") == "a\\x1b\\u202eb\\ud800\\ufffe\\x00\tc\n"
    assert printable("x" * 10_000) == "x" * TEXT_LIMIT + f"\u2026 ({10_000 - TEXT_LIMIT} more characters)"
    assert len(render(page_of("<" * 10_000_000))) < 2_000_000
    rows = [[str(number)] for number in range(5000)]
    html = render(Page("t", Verdict(Mark.GOOD, "v"), [Section("s", [Table(["n"], rows)])]))
    assert "and 4000 more" in html and ">1000<" not in html


def test_tables_name_their_columns_and_rows_and_pictures_say_what_they_show() -> None:
    tags = Tags(render(page_of("x")))
    assert {"scope": "col", "role": "columnheader"} in tags.named("th")
    assert any(cell.get("scope") == "row" for cell in tags.named("th"))
    for svg in tags.named("svg"):
        assert svg.get("aria-hidden") == "true" or (svg["role"], svg["aria-label"]) == ("img", "x")
    ids = [value for _, attributes in tags.elements if (value := attributes.get("id"))]
    labels = [value for _, attributes in tags.elements if (value := attributes.get("aria-labelledby"))]
    assert len(ids) == len(set(ids)) and set(labels) <= set(ids)
    assert tags.named("html") == [{"lang": "en"}]


def test_a_single_outlier_is_seen_and_the_limit_is_where_it_belongs() -> None:
    counts = [0] * ErrorHistogram.BINS
    counts[4], counts[18] = 1_000_000, 1
    drawn = error_histogram(figures(max_relative=0.15, histogram=ErrorHistogram(0, tuple(counts), 0)))
    picture = columns(drawn)
    many, outlier = picture.columns
    assert (many.height, outlier.height >= 3) == (120, True)
    assert (many.mark, outlier.mark) == (Mark.NONE, Mark.BAD)
    assert many.x < picture.limit.x < outlier.x
    assert "the largest error is 1.5e-01, allowed is 2e-02" in drawn.summary


# --- JUnit


def test_junit_counts_and_tells_failures_from_bugs() -> None:
    suite = Suite(
        "a\x00.pt2",
        [
            Case("integrity", "g", 0.5, output="entries: 3"),
            Case("structure", "g", failure=MalformedArtifactError("bad \x1b[31m <&>", where="here", remedy="fix it")),
            Case("load", "g", failure=TrtcrossError("a bug")),
            Case("numbers", "g", skipped="not reached"),
        ],
        properties={"GPU": "none"},
    )
    root = ElementTree.fromstring(junit_xml([suite]))
    counts = {name: root.get(name) for name in ("tests", "failures", "errors", "skipped", "time")}
    assert counts == {"tests": "4", "failures": "1", "errors": "1", "skipped": "1", "time": "0.500"}
    assert root.find("testsuite").get("name") == "a\\x00.pt2"
    failure = root.find(".//failure")
    assert failure is not None and failure.get("type") == "MalformedArtifactError"
    assert "what to do: fix it" in (failure.text or "") and "\\x1b[31m <&>" in (failure.get("message") or "")


def test_a_report_is_moved_into_place_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    write_report(path, "old")
    write_report(path, "new\n")
    assert path.read_bytes() == b"new\n" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(UsageError, match="cannot be written"):
        write_report(tmp_path / "none" / "r.html", "x")
    with pytest.raises(UsageError, match="is a folder"):
        write_report(tmp_path, "x")


# --- verify


def test_verify_writes_both_reports(tmp_path: Path) -> None:
    path, html, junit = Handmade().write(tmp_path / "a.pt2"), tmp_path / "r.html", tmp_path / "r.xml"
    result = verify(path, "--level", "structure", "--html", html, "--junit", junit, "--json")
    assert result.exit_code == 0, result.output
    text = Tags(html.read_text("utf-8")).text
    for words in ("Verified: integrity, structure", "Not asked for: load, numbers", "handmade", "engine_0", "sm_89",
                  "torch-cuda", "dll-search-path", "py -3.11 -m venv"):  # fmt: skip
        assert words in text
    document = json.loads(result.stdout)
    for item in document["requirements"]:
        assert item["name"] in text and item["found"] in text
    assert document["machine"]["platform"] in text
    cases = ElementTree.parse(junit).findall(".//testcase")
    assert [(case.get("name"), len(case.findall("failure"))) for case in cases] == [("integrity", 0), ("structure", 0)]
    assert {path.name for path in tmp_path.iterdir()} == {"a.pt2", "r.html", "r.xml"}


@pytest.mark.parametrize(
    ("damage", "code", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-30]), 4, "Damaged or malformed"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"torch.ops", b"torch.oqs")), 4, "Damaged"),
        (lambda path: path.unlink(), 2, "Not verified"),
    ],
    ids=["cut off", "changed", "missing"],
)
def test_verify_writes_them_for_a_damaged_file_too(tmp_path: Path, damage: Any, code: int, words: str) -> None:
    path, html, junit = Handmade().write(tmp_path / "a.pt2"), tmp_path / "r.html", tmp_path / "r.xml"
    damage(path)
    result = verify(path, "--html", html, "--junit", junit, "--json")
    assert result.exit_code == code, result.output
    error = json.loads(result.stdout)["error"]
    text = Tags(html.read_text("utf-8")).text
    assert words in text and error["remedy"] in text
    root = ElementTree.parse(junit).getroot()
    assert (root.get("failures"), root.get("skipped")) == ("1", "3")
    assert error["problem"] in (root.find(".//failure").text or "")


def classes_in(html: Path) -> set[str]:
    """Returns the CSS classes of the cells in the table of requirements."""
    table = html.read_text("utf-8").partition("What the artifact needs")[2].partition("</table>")[0]
    return {word for value in re.findall(r'<td[^>]*class="([^"]*)"', table) for word in value.split()}


@pytest.mark.parametrize("level", ["structure", "load"])
def test_what_failed_stands_first_and_what_was_not_asked_for_is_no_failure(tmp_path: Path, level: str) -> None:
    html = tmp_path / "r.html"
    result = verify(Handmade().write(tmp_path / "a.pt2"), "--level", level, "--html", html)
    text = Tags(html.read_text("utf-8")).text
    needs, levels = (text.index(title) for title in ("What the artifact needs", "what it covers"))
    if level == "structure":
        assert result.exit_code == 0 and levels < needs and "bad" not in classes_in(html)
        assert ", verified on " in text
    else:
        assert result.exit_code == 3 and needs < levels and "bad" in classes_in(html)
        assert ", checked on " in text and "verified on" not in text


def test_verify_says_what_this_machine_lacks(tmp_path: Path) -> None:
    html = tmp_path / "r.html"
    result = verify(Handmade().write(tmp_path / "a.pt2"), "--html", html, "--json")
    assert result.exit_code == 3
    document, text = json.loads(result.stdout), Tags(html.read_text("utf-8")).text
    assert [level["passed"] for level in document["levels"]] == [True, True, False]
    assert "Not verified: it cannot run here" in text and "not reached" in text
    for item in document["requirements"]:
        assert item["state"] == "met" or (item["remedy"] or "") in text


@pytest.mark.parametrize("option", ["--html", "--junit"])
def test_a_report_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path, option: str) -> None:
    result = verify(Handmade().write(tmp_path / "a.pt2"), "--level", "integrity", option, tmp_path / "none" / "r")
    assert result.exit_code == 2 and "integrity" not in result.stdout
    assert "the report cannot be written" in result.stderr


def test_a_report_never_replaces_the_artifact_or_the_other_report(tmp_path: Path) -> None:
    path = Handmade().write(tmp_path / "a.pt2")
    before = path.read_bytes()
    for arguments in (("--html", path), ("--junit", tmp_path / "." / "a.pt2"), ("--html", "r", "--junit", "r")):
        assert verify(path, "--level", "integrity", *arguments).exit_code == 2
    assert path.read_bytes() == before


def test_an_artifacts_words_are_text_on_its_page(tmp_path: Path) -> None:
    def hostile(document: dict[str, Any]) -> None:
        document["model"]["name"] = SCRIPT
        document["engines"][0]["inputs"][0]["name"] = SCRIPT
        document["fallback"] = [{"operator": SCRIPT, "count": 1, "device": SCRIPT}]

    html = tmp_path / "r.html"
    path = Handmade(edit_manifest=hostile).write(tmp_path / "<script>a&b.pt2" if os.name == "posix" else tmp_path / "a")
    verify(path, "--level", "structure", "--html", html)
    tags = Tags(html.read_text("utf-8"))
    assert tags.text.count(SCRIPT) >= 4 and path.name in tags.text
    assert len(tags.named("script")) == 1 and not tags.named("img")


CRASH = """
import os, sys, types
import windows_side.verification.levels as verification
verification.require = lambda artifact, **options: []
loading = types.ModuleType("windows_side.loader.loading")
loading.load_admitted = lambda artifact, doubts, options: os.kill(os.getpid(), 9) if os.name == "posix" else os._exit(9)
sys.modules["windows_side.loader.loading"] = loading
from toolchain.cli.main import main
main()
"""


def test_a_crash_while_loading_leaves_reports_that_say_so(tmp_path: Path) -> None:
    path, html, junit = Handmade().write(tmp_path / "a.pt2"), tmp_path / "r.html", tmp_path / "r.xml"
    command = [sys.executable, "-c", CRASH, "verify", path, "--level", "load", "--html", html, "--junit", junit]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True)
    assert done.returncode in (-9, 9), done.stderr
    text = Tags(html.read_text("utf-8")).text
    assert "Not finished" in text and "the process ended during the level 'load'" in text
    root = ElementTree.parse(junit).getroot()
    assert (root.get("tests"), root.get("errors")) == ("3", "1")


def test_a_bug_is_reported_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def buggy(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("windows_side.verification.levels.check_structure", buggy)
    html = tmp_path / "r.html"
    result = verify(Handmade().write(tmp_path / "a.pt2"), "--level", "structure", "--html", html)
    assert result.exit_code == 1
    assert "ZeroDivisionError: oops" in Tags(html.read_text("utf-8")).text


def finished(path: Path, outputs: list[OutputError], error: TrtcrossError | None) -> Verification:
    """Returns a verification that has ended on a machine with a GPU, with these outputs."""
    verification = Verification(path, "structure", about_machine=True)
    for _ in verification.run():
        pass
    verification.level, verification.levels = "numbers", ("integrity", "structure", "load", "numbers")
    verification.outputs = outputs
    details = {"outputs": [output.to_json() for output in outputs]}
    verification.results += [StepResult("load", True, 4.0), StepResult("numbers", error is None, 1.0, error, details)]
    return verification


def test_numbers_are_shown_with_their_worst_element_and_drawn(tmp_path: Path) -> None:
    wrong = figures("bad", relative_l2=float("inf"), max_relative=float("inf"), cosine=float("nan"), worst_index=(0, 2),
                    histogram=ErrorHistogram(7, (0,) * ErrorHistogram.BINS, 1))  # fmt: skip
    verification = finished(Handmade().write(tmp_path / "a.pt2"), [figures(), wrong], WrongNumbersError("too far"))
    html, junit = tmp_path / "r.html", tmp_path / "r.xml"
    Reports(html, junit).write(verification)
    tags = Tags(html.read_text("utf-8"))
    for words in ("Wrong numbers", "too far", "[1, 3]", "1.50e-05 of 2e-02", "[0, 2]", "not finite", "Of 8 elements 7"):
        assert words in tags.text
    assert len([svg for svg in tags.named("svg") if svg.get("role") == "img"]) == 2
    assert "worst_index (0, 2)" in junit.read_text("utf-8")
    numbers = next(case for case in verification_suite(verification).cases if case.name == "numbers")
    assert "worst_index (0, 2)" in numbers.output and "within False" in numbers.output


def test_json_has_no_number_that_json_does_not_know() -> None:
    def forbidden(text: str) -> None:
        raise AssertionError(text)

    document = figures(relative_l2=float("inf"), cosine=float("nan")).to_json()
    back = json.loads(json.dumps(document), parse_constant=forbidden)
    assert back["relative_l2"] is None and back["cosine"] is None and back["within"] is False


def test_latency_is_shown_when_it_is_given(tmp_path: Path) -> None:
    pytest.importorskip("windows_side.reports.bench_page")
    figures_file, html = tmp_path / "bench.json", tmp_path / "r.html"
    latency = {"median": 0.321, "p5": 0.3, "p95": 0.4, "mean": 0.33, "samples": [0.3, 0.321, 0.4]}
    figures_file.write_text(json.dumps({"verb": "bench", "latency": latency}), "utf-8")
    path = Handmade().write(tmp_path / "a.pt2")
    assert verify(path, "--level", "integrity", "--html", html, "--latency", figures_file).exit_code == 0
    assert "0.3210" in Tags(html.read_text("utf-8")).text
    assert verify(path, "--level", "integrity", "--html", html).exit_code == 0
    assert "Latency" not in Tags(html.read_text("utf-8")).text
    for wrong in ("{}", "no", '{"latency": {"median": "<b>", "p5": 1, "p95": 1, "mean": 1, "samples": [1]}}'):
        figures_file.write_text(wrong, "utf-8")
        assert verify(path, "--level", "integrity", "--html", html, "--latency", figures_file).exit_code == 2


# --- the numbers themselves


def test_how_far_tensors_are_apart() -> None:
    torch = pytest.importorskip("torch")
    from windows_side.verification.golden import compare_output

    tolerance = Tolerance(relative_l2=0.005, max_relative=0.02)
    want = torch.tensor([[1.0, 2.0, -4.0], [0.5, 0.0, 3.0]])
    got = want.clone()
    got[0, 2] = -4.04
    error = compare_output(got, want, tolerance, name="y")
    assert (error.worst_index, error.within) == ((0, 2), False)  # the relative error is 0.0074
    assert error.max_relative == pytest.approx(0.01, rel=1e-4) and error.max_absolute == pytest.approx(0.04, rel=1e-4)
    assert error.relative_l2 == pytest.approx(0.04 / 30.25**0.5, rel=1e-4)
    assert (error.histogram.equal, sum(error.histogram.counts), error.histogram.not_finite) == (5, 1, 0)
    place = next(index for index, count in enumerate(error.histogram.counts) if count)
    assert ErrorHistogram.edge(place) <= error.max_relative < ErrorHistogram.edge(place + 1)
    assert compare_output(want, want, tolerance, name="y").within


@pytest.mark.parametrize(
    ("got", "want", "within"),
    [
        ([1.0, float("inf")], [1.0, float("inf")], True),
        ([1.0, float("nan")], [1.0, float("nan")], True),
        ([1.0, float("inf")], [1.0, float("-inf")], False),
        ([1.0, float("nan")], [1.0, 2.0], False),
        ([1.0, 2.0], [1.0, float("inf")], False),
        ([5.0, float("inf")], [1.0, float("inf")], False),
        ([], [], True),
        ([0.0], [0.0], True),
        ([1e-9], [0.0], False),
    ],
)
def test_infinities_and_nothing_at_all(got: list[float], want: list[float], within: bool) -> None:
    torch = pytest.importorskip("torch")
    from windows_side.verification.golden import compare_output

    tolerance = Tolerance(relative_l2=0.005, max_relative=0.02)
    error = compare_output(torch.tensor(got), torch.tensor(want), tolerance, name="y")
    found = error.histogram
    assert error.within is within
    assert found.equal + sum(found.counts) + found.not_finite == len(want)
