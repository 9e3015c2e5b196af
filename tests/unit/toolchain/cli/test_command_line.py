"""The command line: exit codes, messages, JSON documents, and how little is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tests.unit.handmade import Handmade, plan
from tests.unit.imports import imported_by
from tests.unit.terminal import at_a_terminal
from toolchain.cli.main import OWN, SUMMARIES, cli
from toolchain.cli.output import Output, verb
from toolchain.errors import BuildFailedError, MissingComponentError
from toolchain.text import size_text


def test_help_imports_nothing_heavy() -> None:
    packages = imported_by("from toolchain.cli.main import cli; cli(['--help'], standalone_mode=False)")
    assert "click" in packages
    assert not packages & {"torch", "pydantic", "rich", "numpy", "pybase64", "linux_side", "windows_side"}


def test_reading_an_artifact_imports_no_torch(tmp_path: Path) -> None:
    path = Handmade().write(tmp_path / "a.pt2")
    code = (
        "import sys; from toolchain import open_artifact; from toolchain.cli.main import cli\n"
        "with open_artifact(sys.argv[1]) as a: a.check_integrity(); a.engines[0].read(); a.engines[0].info\n"
        "cli(['inspect', '--digests', sys.argv[1]], standalone_mode=False)\n"
        "cli(['verify', '--level', 'structure', sys.argv[1]], standalone_mode=False)"
    )
    assert not imported_by(code, str(path)) & {"torch", "numpy", "sympy", "linux_side"}


def test_help_lists_every_verb() -> None:
    text = CliRunner().invoke(cli, ["--help"]).output
    assert all(f"\n  {name} " in text for name in SUMMARIES)


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (["inspect", "missing.pt2"], 2, "UsageError"),
        (["inspect", "not_a_zip"], 4, "MalformedArtifactError"),
        (["verify", "--level", "structure", "not_a_zip"], 4, "MalformedArtifactError"),
        (["convert", "good.pt2", "--target", "amiga", "-o", "x"], 2, "UsageError"),
        (["convert", "good.pt2", "--target", "linux-x86_64", "-o", "no/x"], 7, "BuildFailedError"),
        (["inspect"], 2, "UsageError"),
        (["inspect", "--no-such-option", "good.pt2"], 2, "UsageError"),
        (["no-such-verb"], 2, "UsageError"),
    ],
)
def test_a_failure_has_its_exit_code_and_its_document(
    tmp_path: Path, arguments: list[str], code: int, kind: str
) -> None:
    Handmade().write(tmp_path / "good.pt2")
    (tmp_path / "not_a_zip").write_bytes(b"no")
    command = [sys.executable, "-m", "toolchain", *arguments, "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    document = json.loads(done.stdout)
    assert (done.returncode, document["ok"], document["error"]["kind"]) == (code, False, kind)
    assert document["error"]["exit_code"] == code
    assert document["error"]["remedy"]
    assert "Traceback" not in done.stderr


def test_inspect_says_what_it_is_and_what_it_needs(tmp_path: Path) -> None:
    path = Handmade(engines=[plan(b"x")]).write(tmp_path / "a.pt2")
    text = CliRunner().invoke(cli, ["inspect", str(path)]).output
    for words in ("handmade", "windows-x86_64", "tensorrt-rtx 1.6.1.120", "sm_89", "engine_0", "float32", "py -3.11"):
        assert words in text
    document = json.loads(CliRunner().invoke(cli, ["inspect", "--json", "--digests", str(path)]).stdout)
    assert (document["ok"], document["digests_checked"], document["plan_headers_agree"]) == (True, True, True)


def test_a_list_of_a_disabled_cache_says_that_it_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRTCROSS_CACHE", str(tmp_path))
    monkeypatch.setenv("TRTCROSS_CACHE_SIZE", "0")
    result = CliRunner().invoke(cli, ["store", "list"])
    assert result.exit_code == 0 and "it is off: $TRTCROSS_CACHE_SIZE is 0" in result.output
    monkeypatch.setenv("TRTCROSS_CACHE_SIZE", "1GiB")
    assert "it is off" not in CliRunner().invoke(cli, ["store", "list"]).output


def test_the_remedy_for_another_platform_is_a_command_to_be_pasted(tmp_path: Path) -> None:
    path = Handmade().write(tmp_path / "my model.pt2")
    result = CliRunner().invoke(cli, ["check", str(path), "--json"])
    remedy = next(item["remedy"] for item in json.loads(result.stdout)["requirements"] if item["name"] == "platform")
    if sys.platform == "linux":
        out = tmp_path / "my model-linux.pt2"
        assert remedy == f"on this machine: trtcross convert '{path}' --target linux-x86_64 -o '{out}'"


def test_the_error_of_an_unknown_verb_names_the_nearest() -> None:
    result = CliRunner().invoke(cli, ["bulid", "x"])
    assert result.exit_code == 2 and "there is no verb 'bulid': do you mean 'build'?" in result.output


@pytest.mark.parametrize("name", sorted(SUMMARIES))
def test_without_entry_points_a_verb_of_a_side_says_so_and_the_others_work(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **wanted: [])
    result = CliRunner().invoke(cli, [name, "--help"])
    if name in (*OWN, "completion"):
        assert result.exit_code == 0
    else:
        assert isinstance(result.exception, MissingComponentError)
        assert f"the verb {name} is not registered" in result.exception.problem and result.exception.remedy


def test_a_bug_is_exit_code_1_with_a_document() -> None:
    @click.command()
    @verb
    def buggy(report: Output) -> None:
        report.put(so_far="so good")
        raise ZeroDivisionError("oops")

    result = CliRunner().invoke(buggy, ["--json"])
    document = json.loads(result.stdout)
    assert (result.exit_code, document["so_far"], document["error"]["exit_code"]) == (1, "so good", 1)
    assert "ZeroDivisionError" in document["error"]["problem"]


def test_a_reason_that_goes_on_for_pages_is_cut_but_with_v_and_in_the_document() -> None:
    @click.command()
    @verb
    def fail(report: Output) -> None:
        raise BuildFailedError("why " * 950, remedy="what to do")

    result = CliRunner().invoke(fail, ["--json"])
    assert len(result.stderr) < 1200 and "(2800 more characters; -v shows them)" in result.stderr
    assert "what to do" in result.stderr and json.loads(result.stdout)["error"]["problem"] == "why " * 950
    assert "why " * 950 in CliRunner().invoke(fail, ["-v"]).stderr


def test_a_size_is_read_on_the_command_line_as_in_the_library(tmp_path: Path) -> None:
    pytest.importorskip("linux_side.commands.build")
    run = CliRunner().invoke
    build = ["build", str(tmp_path / "none.pt2"), "-o", str(tmp_path / "o.pt2"), "--workspace"]
    assert "there is no model" in run(cli, [*build, "1GiB"]).stderr  # parsing succeeded
    wrong = run(cli, [*build, "much"])
    assert wrong.exit_code == 2 and "'much' is not a size" in wrong.stderr and "16GiB" in wrong.stderr


def test_a_missing_file_is_no_failed_level() -> None:
    result = CliRunner().invoke(cli, ["verify", "nowhere.pt2"])
    assert result.exit_code == 2 and "cannot be opened" in result.stderr and "FAILED" not in result.output


def test_quiet_says_nothing_and_json_keeps_stdout_to_itself() -> None:
    @click.command()
    @verb
    def talk(report: Output) -> None:
        report.say("words")
        report.say("more", level=1)

    run = CliRunner().invoke
    assert (run(talk).output, run(talk, ["-q"]).output, run(talk, ["-v"]).output) == ("words\n", "", "words\nmore\n")
    assert json.loads(run(talk, ["--json"]).stdout)["ok"]


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1536, "1.5 KiB"), (47_147_876, "45.0 MiB"), (2**33, "8.00 GiB")]
)
def test_sizes_as_people_read_them(size: int, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no broken pipes")
def test_a_reader_that_goes_away_is_no_bug(tmp_path: Path) -> None:
    """The reader of `trtcross inspect X --json | head` closes the pipe early."""
    program = "import os; os.close(0); r, w = os.pipe(); os.close(r); os.dup2(w, 1)\n"
    program += "import sys; sys.argv = ['trtcross', 'doctor', '--json']\nfrom toolchain.cli.main import main; main()"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert "should not have happened" not in result.stderr
    assert "Traceback" not in result.stderr


def on_stdout(stdout: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs a verb in a process whose stdout a line of Python has set."""
    program = f"import os, sys; {stdout}; sys.argv = {['trtcross', *words]}\n"
    program += "from toolchain.cli.main import main; main()"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such devices")
@pytest.mark.parametrize("words", [("inspect",), ("inspect", "--json")])
def test_a_reader_that_stops_reading_is_success_and_a_full_disk_an_error(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    artifact = tmp_path / "a.pt2"
    Handmade([plan(b"engine")]).write(artifact)
    closed = on_stdout("r, w = os.pipe(); os.close(r); os.dup2(w, 1)", *words, str(artifact))
    assert (closed.returncode, closed.stderr if "--json" not in words else "") == (0, "")
    full = on_stdout("os.dup2(os.open('/dev/full', os.O_WRONLY), 1)", *words, str(artifact))
    assert full.returncode == 2 and "stdout cannot be written to: No space left on device" in full.stderr
    assert "Traceback" not in full.stderr and "Exception ignored" not in full.stderr


def doctor(**environment: str) -> str:
    return at_a_terminal([sys.executable, "-m", "toolchain", "doctor"], columns=60, **environment)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminals")
def test_a_terminal_gets_colours_and_lines_that_fit_and_a_plain_one_no_colours() -> None:
    coloured = doctor()
    lines = click.unstyle(coloured).splitlines()
    assert "\x1b[" in coloured and any(line.startswith(" " * 8) for line in lines)
    assert all(len(line) <= 60 for line in lines if not any(len(word) > 40 for word in line.split()))
    assert "\x1b" not in doctor(NO_COLOR="1") + doctor(TERM="dumb")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminals")
def test_a_command_that_does_not_fit_stays_whole(tmp_path: Path) -> None:
    path = Handmade().write(tmp_path / "a-model-with-a-name-that-is-not-short.pt2")
    shown = click.unstyle(at_a_terminal([sys.executable, "-m", "toolchain", "check", str(path)], columns=60))
    if sys.platform == "linux":
        line = next(line.strip() for line in shown.splitlines() if "--target" in line)
        assert line.startswith("trtcross convert") and line.endswith("-linux.pt2")


@pytest.mark.parametrize("group", ["matrix", "store"])
def test_the_help_of_a_group_has_every_summary_whole(group: str) -> None:
    result = CliRunner().invoke(cli, [group, "--help"])
    assert result.exit_code == 0 and "..." not in result.output.partition("Verbs:")[2] and "Verbs:" in result.output
