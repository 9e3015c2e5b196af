"""Renders a page of plain data as one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import lru_cache
from importlib import resources
from typing import Any

from toolchain.report.graph_layout import drawing
from toolchain.report.page import ROW_LIMIT, Page
from toolchain.report.pictures import columns
from toolchain.text import printable, with_commands

_LONG_NAME = re.compile(r"[\w./(]{16,}")
_JOINT = re.compile(r"([_./(])(?=\w)")


def render(page: Page) -> str:
    """Returns the page's HTML; its Content-Security-Policy allows only its own style and script, by digest."""
    style, script = _source("page.css"), _source("page.js")
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    html: str = _template().render(page=page, style=style, script=script, policy=policy, row_limit=ROW_LIMIT)
    return html.strip() + "\n"


def _spans(text: str) -> list[tuple[Any, bool]]:
    """Splits a text into pieces of HTML, each with whether it is a command."""
    from markupsafe import escape

    pieces = with_commands(printable(text))
    return [(escape(piece) if command else _breakable(piece), command) for piece, command in pieces]


def _breakable(text: str) -> Any:
    """Escapes a text and lets long names break behind an underscore, dot, slash or parenthesis, not within a word."""
    from markupsafe import Markup, escape

    html = _LONG_NAME.sub(lambda found: _JOINT.sub(r"\1<wbr>", found[0]), str(escape(text)))
    return Markup(html)  # noqa: S704 - it is escaped above


def _source(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@lru_cache(maxsize=1)
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    def finalize(value: Any) -> Any:
        return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=finalize, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(columns=columns, drawing=drawing)
    environment.filters.update(spans=_spans, breakable=lambda text: _breakable(printable(text)))
    return environment.from_string(_source("page.html.j2"))
