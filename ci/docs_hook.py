"""A hook of mkdocs that adapts pages, which are written for the repository, to the site.

The marks by which tests find commands become words for the reader. `<!-- run -->` means that
`tests/integration/test_docs.py` runs the block below; `<!-- run: 3 -->` adds the exit code that it ends with;
`<!-- not run: why -->` means that no test runs it, and `<!-- page not run: why -->` the same of a whole page.
`tests/unit/test_document_commands.py` requires a mark before each block of commands.

Links to files of the repository that are not on the site become the files' names. The fields of `BuildOptions` are
written where a page has the mark for them. Docstrings contain Sphinx's roles and `::`, which Markdown does not know,
and name pages by their files: both are converted. An option's name is kept on one line. A search ranks answers to
questions before docstrings and figures.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_MARK = re.compile(r"^<!-- (run|not run|page not run)(?:: ([^\n]+?))? -->$", re.M)
_WORDS = {
    "run": "Run by a test",
    "not run": "Not run by a test",
    "page not run": "No command of this page is run by a test",
}
_BETWEEN = {"run": "; exit code ", "not run": ": ", "page not run": ": "}
# The weight in a search of a page, or of all pages in a folder.
_BOOST = {
    "reference/inside.md": 2.0,
    "reference": 0.3,
    "benchmarks": 0.3,
    "benchmarks/build.md": 2.0,
    "benchmarks/index.md": 3.0,
    "build/dynamic.md": 3.0,
    "build/fallback.md": 3.0,
    "build/models.md": 3.0,
    "build/precision.md": 2.0,
    "fix": 2.0,
    "fix/check.md": 5.0,
    "run/first-call.md": 2.0,
    "run/windows.md": 1.5,
    "start/first-hour.md": 0.3,
    "start/glossary.md": 2.0,
    "trust/index.md": 2.0,
    "verify/ci.md": 3.0,
}
_FIELDS = "<!-- the fields of BuildOptions -->"
_LINK = re.compile(r"\[([^\]\n]+)\]\((\.\./[^)#\s]+)\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Adapts a page's Markdown; mkdocs calls it for each page."""
    folder, docs = Path(page.file.abs_src_path).parent, Path(config.docs_dir)
    name = page.file.src_uri
    page.meta["search"] = {"boost": _BOOST.get(name, _BOOST.get(name.partition("/")[0], 1.0))}

    def outside(link: re.Match[str]) -> str:
        path = Path(os.path.normpath(folder / link[2]))
        if docs in path.parents or not path.exists():
            return link[0]
        name = path.relative_to(docs.parent).as_posix()
        return f"`{name}`" if name in link[1] else f"{link[1]} (`{name}`)"

    if _FIELDS in markdown:
        markdown = markdown.replace(_FIELDS, "\n".join(_fields()))
    return _LINK.sub(outside, _MARK.sub(_paragraph, markdown))


def _fields() -> Iterator[str]:
    from linux_side.options import BuildOptions

    yield from ("| field | default | meaning |", "|---|---|---|")
    for name, field in BuildOptions.model_fields.items():
        default = field.get_default(call_default_factory=True)
        yield f"| `{name}` | `{getattr(default, 'value', default)!r}` | {field.description} |"


def on_page_content(html: str, *, page: Any, config: Any, **_: Any) -> str:
    """Adapts a page's HTML; mkdocs calls it for each page."""
    docs = Path(config.docs_dir)

    def named(name: re.Match[str]) -> str:
        if not (docs / f"{name[1]}.md").exists():
            return name[0]
        there = os.path.relpath(docs / f"{name[1]}.html", (docs / page.file.dest_uri).parent)
        return f'<a href="{Path(there).as_posix()}">{name[0]}</a>'

    html = re.sub(r"<code>(--[\w-]+)</code>", r'<code class="option">\1</code>', html)
    html = re.sub(r":(?:attr|class|data|exc|func|meth|mod):<code>[.~]?", "<code>", html)
    html = re.sub(r"::</p>", ":</p>", html.replace("<p>::</p>\n", ""))
    return re.sub(r"(?<!\">)<code>docs/([\w/-]+)\.md</code>", named, html)


def _paragraph(mark: re.Match[str]) -> str:
    kind, more = mark.groups()
    words = _WORDS[kind] + (_BETWEEN[kind] + more if more else "")
    html = re.sub(r"`([^`]+)`", r"<code>\1</code>", words)
    return f'<p class="ran ran-{"yes" if kind == "run" else "no"}">{html}</p>\n'
