"""The option of every verb that may be given a foreign file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

trust_option: Callable[[F], F] = click.option(
    "--trust",
    metavar="REASON",
    help="Take a foreign file although torch would run code from it; why is recorded.",
)
