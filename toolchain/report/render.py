"""A page of plain data as one HTML file that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from importlib import resources
from typing import Any

from toolchain.report.page import ROW_LIMIT, Page
from toolchain.report.pictures import columns
from toolchain.text import printable


def render(page: Page) -> str:
    """The page's HTML. Its Content-Security-Policy allows its own style and script, by digest, and nothing else."""
    style, script = _source("page.css"), _source("page.js")
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    html: str = _template().render(page=page, style=style, script=script, policy=policy, row_limit=ROW_LIMIT)
    return html.strip() + "\n"


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
    environment.globals["columns"] = columns
    return environment.from_string(_source("page.html.j2"))
