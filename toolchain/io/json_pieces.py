"""Parses a JSON text piece by piece, so that only one piece is in memory at a time.

The containers near the root are walked member by member; each value below them is parsed whole, as one piece.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, NamedTuple

from toolchain.io.strict_json import DEPTH_LIMIT, STRICT, json_errors, require_depth, unique_members
from toolchain.limits import Limit, LimitError

CHUNK = 2**18

# Bounds on what is remembered: characters in all, the length of a text's beginning, and texts with the same beginning.
_MEMORY_LIMIT, _PREFIX_LENGTH, _SAME_PREFIX_LIMIT = 2**18, 40, 6

_SPACES = " \t\n\r"
_SPACE = re.compile(f"[{_SPACES}]*")

Path = tuple[str | int, ...]


class Piece(NamedTuple):
    """A value of the document with its path and its place in the text.

    Attributes:
        path: the keys and indices that lead to it.
        value: the parsed value; for a container that is walked, an empty one, whose members follow as pieces.
        start: where its text begins, in characters.
        end: where its text ends; for a container that is walked, where its members begin.
    """

    path: Path
    value: Any
    start: int
    end: int


class PieceLimits(NamedTuple):
    """How many pieces are read, how long each may be, and how many values and objects; a repeated text counts once."""

    pieces: Limit
    length: Limit
    values: Limit
    objects: Limit


def json_pieces(
    chunks: Iterable[bytes],
    *,
    depth: int,
    limits: PieceLimits,
    where: str,
    keys: frozenset[str] = frozenset(),
    on_object: Callable[[dict[str, Any]], None] = lambda _: None,
) -> Iterator[Piece]:
    """Parses UTF-8 JSON as strictly as :func:`.strict_json.load_json`.

    Args:
        chunks: the text; :data:`CHUNK` bytes are a good length.
        depth: how many levels of containers are walked.
        limits: how much is read.
        where: the file and entry, for errors.
        keys: the keys that ``on_object`` is interested in.
        on_object: called with every parsed object that has one of ``keys``, before its piece is yielded.

    Raises:
        MalformedArtifactError: the text exceeds a limit, or is not JSON that we accept.
    """
    with json_errors(where):
        yield from _Walk(chunks, depth, limits, _objects(keys, on_object)).pieces()


def _objects(
    keys: frozenset[str], on_object: Callable[[dict[str, Any]], None]
) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    # This runs for every object of the text, and takes most of the time of reading a graph.
    def make(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            return unique_members(pairs)
        if not keys.isdisjoint(made):
            on_object(made)
        return made

    return make


class _Walk:
    def __init__(
        self,
        chunks: Iterable[bytes],
        depth: int,
        limits: PieceLimits,
        make_object: Callable[[list[tuple[str, Any]]], dict[str, Any]],
    ) -> None:
        self._chunks = iter(chunks)
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text = ""  # the part that is in memory
        self._origin = 0  # where it begins in the whole text
        self._at = 0  # how much of it was read
        self._ended = False
        self._fill_at = 0  # a piece that begins here or later may not be whole in memory
        self._depth, self._limits = depth, limits
        self._count = self._values = self._objects = 0
        self._known: dict[str, list[tuple[str, Any]]] = {}  # by the text's beginning
        self._remembered = 0
        self._scan = json.JSONDecoder(object_pairs_hook=make_object, **STRICT).scan_once  # type: ignore[attr-defined]

    def pieces(self) -> Iterator[Piece]:
        if self._next_character() in ("{", "[") and self._depth:
            yield from self._container((), 0)
        else:
            yield self._parsed((), 0)
        if self._next_character():
            raise ValueError(f"there is more behind its end, at {self._origin + self._at}")

    def _container(self, path: Path, depth: int) -> Iterator[Piece]:
        """Walks the container that begins here: a list by index, an object by name."""
        named = self._text[self._at] == "{"
        closing = "}" if named else "]"
        self._at += 1
        yield Piece(path, {} if named else [], self._origin + self._at - 1, self._origin + self._at)
        walked, depth, names, index = depth + 1 < self._depth, depth + 1, set[str](), 0
        following = self._next_character()
        while following != closing:
            if index:
                if following != ",":
                    raise self._expecting("a comma")
                self._at += 1
                following = self._next_character()
            name = self._name(following, names) if named else index
            opening = self._next_character() if named else following
            self._count += 1
            if self._count > self._limits.pieces.most:
                raise self._too_much(0)
            if walked and opening in ("{", "["):
                yield from self._container((*path, name), depth)
            elif named:
                yield self._repeated((*path, name)) or self._parsed((*path, name), depth, repeats=True)
            else:
                yield self._parsed((*path, name), depth)
            index += 1
            following = self._next_character()
        self._at += 1

    def _name(self, following: str, names: set[str]) -> str:
        """Reads a member's name and its colon."""
        if following != '"':
            raise self._expecting("a name")
        name: str
        name, self._at = scanstring(self._text, self._at + 1, True)
        if name in names:
            raise ValueError(f"the key {name[:80]!r} is there twice")
        names.add(name)
        if self._next_character() != ":":
            raise self._expecting("a colon")
        self._at += 1
        return name

    def _parsed(self, path: Path, depth: int, repeats: bool = False) -> Piece:
        """Parses the whole value that begins here."""
        text, start = self._text, self._at
        try:
            value, end = self._scan(text, start)
        except StopIteration:
            raise self._expecting("a value") from None
        except json.JSONDecodeError as error:
            if self._ended:
                raise ValueError(f"{error.msg} at {self._origin + error.pos}") from None
            owner, most = self._limits.length.owner, self._limits.length.most
            raise ValueError(f"{error.msg}, or {owner} has over {most} characters") from None
        objects, lists = text.count("{", start, end), text.count("[", start, end)
        self._objects += objects
        self._values += objects + lists + text.count(",", start, end)
        limits = self._limits
        if end - start > limits.length.most or self._objects > limits.objects.most or self._values > limits.values.most:
            raise self._too_much(end - start)
        if objects + lists > DEPTH_LIMIT - depth:
            require_depth(value, DEPTH_LIMIT - depth)
        if repeats and objects:
            self._remember(text[start:end], value)
        self._at = end
        return Piece(path, value, self._origin + start, self._origin + end)

    def _too_much(self, length: int) -> LimitError:
        limits = self._limits
        counts = {limits.pieces: self._count, limits.objects: self._objects, limits.values: self._values}
        over = (LimitError(limit, count) for limit, count in counts.items() if limit.excess(count))
        return next(over, LimitError(limits.length, length))

    def _repeated(self, path: Path) -> Piece | None:
        """Returns the value that begins here if its text was parsed before, or None.

        A graph describes a few kinds of tensors thousands of times. Only objects are remembered: the end of an object's
        text is unambiguous.
        """
        start = self._at
        for known, value in self._known.get(self._text[start : start + _PREFIX_LENGTH], ()):
            if self._text.startswith(known, start):
                self._at += len(known)
                return Piece(path, value, self._origin + start, self._origin + self._at)
        return None

    def _remember(self, known: str, value: Any) -> None:
        if self._remembered > _MEMORY_LIMIT:
            self._known.clear()
            self._remembered = 0
        self._remembered += len(known)
        alike = self._known.setdefault(known[:_PREFIX_LENGTH], [])
        alike.insert(0, (known, value))
        del alike[_SAME_PREFIX_LIMIT:]

    def _next_character(self) -> str:
        """Skips spaces and returns the next character, with a whole piece behind it in memory; empty at the end."""
        while True:
            character = self._text[self._at : self._at + 1]
            if character and character in _SPACES:
                self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
                character = self._text[self._at : self._at + 1]
            if self._at < self._fill_at or self._ended:
                return character
            self._fill()

    def _fill(self) -> None:
        chunk = next(self._chunks, b"")
        self._origin += self._at
        self._text = self._text[self._at :] + self._decoder.decode(chunk, final=not chunk)
        self._at = 0
        self._ended = not chunk
        self._fill_at = len(self._text) - self._limits.length.most

    def _expecting(self, what: str) -> ValueError:
        return ValueError(f"{what} is missing at {self._origin + self._at}")
