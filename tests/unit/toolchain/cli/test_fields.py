"""Options from the fields of a model: their bounds on the command line."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner
from pydantic import Field

from toolchain.cli.fields import field_options
from toolchain.options import Options


class Bounded(Options):
    """Numbers with bounds of each kind."""

    above: float | None = Field(default=None, gt=0, description="Above zero.")
    below: int = Field(default=1, lt=5, description="Below five.")
    between: int = Field(default=1, ge=1, le=3, description="One to three.")
    free: float = Field(default=0.5, description="Any.")


@click.command()
@field_options(Bounded)
def command(**_: Any) -> None:
    """Takes the options."""


def test_help_shows_the_bounds_of_each_number() -> None:
    shown = CliRunner().invoke(command, ["--help"], terminal_width=200).output
    assert "[x>0]" in shown and "x<5]" in shown and "1<=x<=3]" in shown and "None" not in shown


@pytest.mark.parametrize("words", [["--above", "0"], ["--below", "5"], ["--between", "4"], ["--free", "x"]])
def test_a_number_outside_its_bounds_is_refused_on_the_command_line(words: list[str]) -> None:
    assert CliRunner().invoke(command, words).exit_code == 2
    assert CliRunner().invoke(command, ["--above", "1e-9", "--below", "-4", "--between", "3"]).exit_code == 0
