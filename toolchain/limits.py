"""Limits on what a reader accepts from an artifact; a writer checks the same limits before it writes.

They bound the cost of opening a hostile file to one second of CPU and 200 MB (``docs/trust/security.md``). Each number
is written here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass

from toolchain.errors import BuildFailedError

_REPORT = "report the model, so that the limit can be raised"


@dataclass(frozen=True)
class Limit:
    """The largest number of something that is read.

    Attributes:
        owner: what contains the things that are counted, as an error names it.
        unit: what is counted, in the plural.
        most: how many are read.
        remedy: what to do when a build exceeds the limit.
    """

    owner: str
    unit: str
    most: int
    remedy: str = _REPORT

    def excess(self, count: int) -> str | None:
        """Returns the rest of a sentence that begins with the owner; None within the limit."""
        return f"has {count} {self.unit}, and at most {self.most} are read" if count > self.most else None

    def require(self, count: int, *, where: str) -> None:
        """Checks the limit before anything is written.

        Raises:
            BuildFailedError: ``count`` exceeds it, so that no reader would accept the artifact.
        """
        _require(self.owner, self.excess(count), where, self.remedy)


class LimitError(ValueError):
    """A text has more of something than is read.

    Attributes:
        limit: which one.
    """

    def __init__(self, limit: Limit, count: int) -> None:
        super().__init__(f"{limit.owner} {limit.excess(count)}")
        self.limit = limit


@dataclass(frozen=True)
class JsonLimit:
    """The largest JSON text that is read.

    The number of values bounds the memory: a value of two bytes becomes an object of a hundred. Values are counted
    before the text is parsed, by the characters that precede one (``[``, ``{`` and ``,``), inside strings too.

    Attributes:
        owner: the text, as an error names it.
        size: how many bytes are read.
        values: how many values, or None where the text is our own.
    """

    owner: str
    size: int
    values: int | None = None
    remedy: str = _REPORT

    def excess(self, data: bytes) -> str | None:
        """Returns the rest of a sentence that begins with the owner; None within the limits."""
        problem = Limit(self.owner, "bytes", self.size).excess(len(data))
        if problem is None and self.values is not None:
            problem = Limit(self.owner, "values", self.values).excess(sum(map(data.count, (b"[", b"{", b","))))
        return problem

    def require(self, data: bytes, *, where: str) -> None:
        """Checks the limits before the text is written.

        Raises:
            BuildFailedError: ``data`` exceeds one, so that no reader would accept the artifact.
        """
        _require(self.owner, self.excess(data), where, self.remedy)


def _require(owner: str, problem: str | None, where: str, remedy: str) -> None:
    if problem is not None:
        raise BuildFailedError(f"no reader would take the artifact: {owner} {problem}", where=where, remedy=remedy)


_FEWER_OPERATORS = "let more of the model go into engines, or split it: each operator in PyTorch is a part of the graph"
_FEWER_WEIGHTS = "let more of the model go into engines, or split it: each tensor that stays in PyTorch is an entry"

ENTRIES = Limit("the archive", "entries", 20_000, _FEWER_WEIGHTS)
DIRECTORY = Limit("the archive's directory", "bytes", 8 * 2**20, _FEWER_WEIGHTS)
ENTRY_NAME = Limit("an entry's name", "bytes", 1000)

MANIFEST = JsonLimit("the manifest", 8 * 2**20, 250_000, remedy=_FEWER_WEIGHTS)
TENSOR_LIST = JsonLimit("a list of tensors", 8 * 2**20, 500_000, remedy=_FEWER_WEIGHTS)
GOLDEN_HEADER = JsonLimit(
    "the header of the golden I/O", 4 * 2**20, 200_000, remedy="build with fewer --golden samples"
)

# The graph without its engines. It is read piece by piece: memory depends on the length of one piece, time on the
# number of values in all of them. A graph of 30,000 operators that stay in PyTorch (16.6 MiB) has 74,000 pieces.
GRAPH = JsonLimit("the graph", 32 * 2**20, remedy=_FEWER_OPERATORS)
GRAPH_PIECES = Limit("the graph", "pieces", 150_000, _FEWER_OPERATORS)
GRAPH_PIECE = Limit("a piece of the graph", "characters", 2 * 2**20)
GRAPH_VALUES = Limit("the graph", "different values", 1_000_000, _FEWER_OPERATORS)
GRAPH_OBJECTS = Limit("the graph", "different objects", 350_000, _FEWER_OPERATORS)
# What torch would look up, import or evaluate; each different text counts once.
OPERATORS = Limit("the graph", "different operators", 20_000)
EXPRESSIONS = Limit("the graph", "characters in its different symbolic sizes", 200_000, "give fewer dynamic dimensions")
EXPRESSION = Limit("a symbolic size", "characters", 10_000, "give fewer dynamic dimensions")
TREESPECS = Limit("the graph", "characters in its different call signatures", 2 * 2**20)
TREESPEC = JsonLimit("a call signature", 2**20, 100_000)
METADATA = Limit("an engine's metadata", "characters", 2**20)

# A graph of Torch-TensorRT's own saver, which is parsed whole.
FOREIGN_GRAPH = JsonLimit("the graph", 16 * 2**20, 500_000)
FOREIGN_ENGINES = Limit("the graph", "engines", 10_000)

# A program that torch has just written in this process, or that the caller builds: it is not hostile.
OWN_PROGRAM = JsonLimit("the program's graph", 512 * 2**20)

PRECISION_PLAN = JsonLimit("the precision plan", 2**20, 100_000)
SIGNATURE = JsonLimit("the signature", 2**20, 10_000)
