"""The contents of a report as plain data, from :class:`Page` down to :class:`TableCell`.

The template decides how each part looks. The HTML page needs no network, no other file, and no script to be readable.
Every text may come from a hostile file: it is escaped, its control characters are made visible, and it is cut at
:data:`TEXT_LIMIT` characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, TypeAlias
from urllib.parse import quote

from toolchain.text import TEXT_LIMIT

ROW_LIMIT = 1000

__all__ = [
    "TEXT_LIMIT",
    "Bar",
    "Bars",
    "Bin",
    "Block",
    "Box",
    "Edge",
    "Facts",
    "Graph",
    "Grid",
    "Histogram",
    "Mark",
    "Page",
    "Section",
    "Table",
    "TableCell",
    "Text",
    "Verdict",
]  # fmt: skip


class Mark(str, Enum):
    """How good something is: a sign and a colour for what the words beside them state too."""

    GOOD = "good"
    BAD = "bad"
    DOUBT = "doubt"
    NONE = "none"

    @property
    def sign(self) -> str:
        return {"good": "\u2713", "bad": "\u2717", "doubt": "?", "none": "\u2013"}[self.value]


@dataclass(frozen=True)
class TableCell:
    """One cell of a table, or one value of a list of facts.

    Attributes:
        text: the text.
        mark: gives the text a sign and a colour.
        number: whether the text is right-aligned, in figures of one width.
        code: whether the text is to be typed or copied; a button copies it.
        link: the relative path of a file beside the page; a URL is taken as a relative path too.
        anchor: a section of this page, by its own ``anchor``.
    """

    text: str
    mark: Mark | None = None
    number: bool = False
    code: bool = False
    link: str | None = None
    anchor: str | None = None

    @property
    def href(self) -> str | None:
        """The link as a URL that can only be relative: colons are escaped, and slashes at the start removed."""
        if self.anchor:
            return "#" + quote(self.anchor, safe="")
        return quote("./" + self.link.replace("\\", "/").lstrip("/"), safe="/.-_~") if self.link else None


@dataclass(frozen=True)
class Table:
    """Rows under named columns; the first cell names the row, and at most :data:`ROW_LIMIT` rows are shown.

    A row of a single cell is a heading for the rows below it.
    """

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[str | TableCell]]
    caption: str = ""

    def holds_numbers(self, column: int) -> bool:
        """Whether a column's first cell is a number."""
        first = next((row[column] for row in self.rows if len(row) > column and len(row) > 1), "")
        return isinstance(first, TableCell) and first.number


@dataclass(frozen=True)
class Facts:
    """Names and values, one below the other."""

    kind: ClassVar[str] = "facts"
    facts: Sequence[tuple[str, str | TableCell]]


@dataclass(frozen=True)
class Text:
    """A paragraph, or with ``code``, lines to copy into a shell."""

    kind: ClassVar[str] = "text"
    text: str
    code: bool = False


@dataclass(frozen=True)
class Bar:
    """One bar, whose length is proportional to its value.

    Attributes:
        label: what it stands for.
        value: the value.
        text: the value as people read it.
        mark: its colour; None is the colour of less important bars.
    """

    label: str
    value: float
    text: str
    mark: Mark | None = Mark.NONE


@dataclass(frozen=True)
class Bars:
    """Bars from left to right, one below the other."""

    kind: ClassVar[str] = "bars"
    caption: str
    bars: Sequence[Bar]

    def share(self, bar: Bar) -> float:
        """Returns a bar's length, in percent of the longest."""
        longest = max((bar.value for bar in self.bars), default=0.0)
        return round(100 * bar.value / longest, 2) if longest else 0.0


@dataclass(frozen=True)
class Bin:
    """One column of a histogram: ``label`` is what it counts, and ``tick`` is written below its left edge."""

    label: str
    count: int
    tick: str = ""
    mark: Mark = Mark.NONE


@dataclass(frozen=True)
class Histogram:
    """Columns side by side, with logarithmic heights, so that a single outlier is visible.

    Attributes:
        caption: the title.
        bins: the columns.
        summary: what the picture shows, in words, for those who cannot see it.
        limit: a line that must not be crossed: how many bins are left of it, and its name.
    """

    kind: ClassVar[str] = "histogram"
    caption: str
    bins: Sequence[Bin]
    summary: str
    limit: tuple[float, str] | None = None


@dataclass(frozen=True)
class Grid:
    """Coloured cells in rows and columns, for an overview; None stands for a missing cell."""

    kind: ClassVar[str] = "grid"
    caption: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[TableCell | None]]]


@dataclass(frozen=True)
class Box:
    """A box of a graph: a title with lines below it, in the look of its kind.

    Attributes:
        key: the name by which edges refer to it.
        kind: its look: ``ends`` (inputs and outputs), ``engine`` or ``torch``.
        title: its first line.
        lines: the lines below the title.
    """

    key: str
    kind: str
    title: str
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class Edge:
    """A connection from one box to another, with a line of text for each tensor."""

    source: str
    target: str
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class Graph:
    """Boxes with lines between them, from top to bottom.

    Attributes:
        caption: the title.
        boxes: the boxes; the source of an edge precedes its target.
        edges: the connections.
        summary: what the picture shows, in words, for those who cannot see it.
    """

    kind: ClassVar[str] = "graph"
    caption: str
    boxes: Sequence[Box]
    edges: Sequence[Edge]
    summary: str


Block: TypeAlias = "Table | Facts | Text | Bars | Histogram | Grid | Graph"


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading of its own, which may be folded.

    Attributes:
        title: its heading.
        blocks: its contents.
        anchor: the name by which a cell's ``anchor`` refers to it.
        folded: whether only the title is shown until the reader opens it or follows a link to it.
        mark: gives a folded section's title a sign and a colour.
    """

    title: str
    blocks: Sequence[Block]
    anchor: str = ""
    folded: bool = False
    mark: Mark | None = None


@dataclass(frozen=True)
class Verdict:
    """The result of the report: one sentence, the reason, and what to do next."""

    mark: Mark
    headline: str
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Page:
    """A report: the verdict first, then the sections."""

    title: str
    verdict: Verdict
    sections: Sequence[Section]
    subtitle: str = ""
    footer: str = ""
