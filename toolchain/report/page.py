"""A report as one HTML page that needs nothing but itself: no network, no file beside it, no script to be readable.

What is on the page is plain data, :class:`Page` down to :class:`TableCell`; the template knows how each part looks.
Every text may come from a hostile file: it is escaped, its control characters are shown, and it is cut at
:data:`TEXT_LIMIT`.
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
    """How good something is. It has a sign and a colour; the words beside it say the same."""

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
        mark: gives the text a sign and a colour.
        number: stands to the right, in figures of one width.
        code: what is to be typed or copied; gets a button that copies it.
        link: a file beside the page, as a relative path; anything else stays a relative path too.
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
        """The link as a URL that can only be relative: a colon is escaped, and no slash stands first."""
        if self.anchor:
            return "#" + quote(self.anchor, safe="")
        return quote("./" + self.link.replace("\\", "/").lstrip("/"), safe="/.-_~") if self.link else None


@dataclass(frozen=True)
class Table:
    """Rows under named columns, the first of which names the row; at most :data:`ROW_LIMIT` are shown.

    A row of one cell alone is a heading of those below it.
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
    """A paragraph, or lines to be copied into a shell."""

    kind: ClassVar[str] = "text"
    text: str
    code: bool = False


@dataclass(frozen=True)
class Bar:
    """One bar: its length is ``value`` against the longest; ``text`` is the value as people read it.

    Attributes:
        mark: its colour; None is the colour of what matters less.
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
        """A bar's length, in percent of the longest."""
        longest = max((bar.value for bar in self.bars), default=0.0)
        return round(100 * bar.value / longest, 2) if longest else 0.0


@dataclass(frozen=True)
class Bin:
    """One column of a histogram; ``tick`` is written below its left edge, ``label`` is what it counts."""

    label: str
    count: int
    tick: str = ""
    mark: Mark = Mark.NONE


@dataclass(frozen=True)
class Histogram:
    """Columns side by side, their heights logarithmic, so that a single outlier is seen.

    Attributes:
        summary: what the picture shows, in words, for those who cannot see it.
        limit: a line that must not be crossed: how many bins lie left of it, and its name.
    """

    kind: ClassVar[str] = "histogram"
    caption: str
    bins: Sequence[Bin]
    summary: str
    limit: tuple[float, str] | None = None


@dataclass(frozen=True)
class Grid:
    """Coloured cells in rows and columns, for an overview; None is a cell that is not there."""

    kind: ClassVar[str] = "grid"
    caption: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[TableCell | None]]]


@dataclass(frozen=True)
class Box:
    """A box of a graph.

    Attributes:
        kind: how it looks: ``ends`` (inputs and outputs), ``engine`` or ``torch``.
    """

    key: str
    kind: str
    title: str
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class Edge:
    """What goes from one box to another, a line of text for each tensor."""

    source: str
    target: str
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class Graph:
    """Boxes with lines between them, from top to bottom; what leads to a box stands before it in ``boxes``.

    Attributes:
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
    """A part of the page.

    Attributes:
        anchor: what a cell's ``anchor`` leads to.
        folded: whether only the title is seen until somebody asks for more, or comes by the anchor.
        mark: gives a folded section's title a sign and a colour.
    """

    title: str
    blocks: Sequence[Block]
    anchor: str = ""
    folded: bool = False
    mark: Mark | None = None


@dataclass(frozen=True)
class Verdict:
    """What the reader came for: one sentence, why, and what to do next."""

    mark: Mark
    headline: str
    reason: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Page:
    """A report: its verdict first, then its sections."""

    title: str
    verdict: Verdict
    sections: Sequence[Section]
    subtitle: str = ""
    footer: str = ""
