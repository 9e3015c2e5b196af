"""The cache's folder: one folder for each key, complete or not there, the least recently used removed first.

Entries are made under a name that no reader looks at and moved into place; they are never changed, only removed. So
readers need no lock. Those who add or remove hold one, which the system lets go of when they are killed: whatever
unfinished is there when it is taken was left by a killed process.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from toolchain.io.atomic import sync
from toolchain.sizes import parse_size

FOLDER_VARIABLE = "TRTCROSS_CACHE"
LIMIT_VARIABLE = "TRTCROSS_CACHE_SIZE"
DEFAULT_LIMIT = 20 * 2**30
LOCK_SECONDS = 60.0
ARTIFACT = "artifact.pt2"
MOST_NOTES = 1000
_PART = ".part-"
_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class CacheEntry:
    """One build, as it was found.

    Attributes:
        folder: holds the artifact, and nothing else.
        size: of the artifact, in bytes; 0 where it is missing.
        used: when it was made or last taken.
        inode: of the folder, which tells whether it is still the same entry.
    """

    key: str
    folder: Path
    size: int
    used: datetime
    inode: int

    @property
    def artifact(self) -> Path:
        return self.folder / ARTIFACT


class BuildCache:
    """The entries below one folder.

    Args:
        folder: None for ``$TRTCROSS_CACHE`` or the user's cache folder.
        limit: the most bytes of all entries together; None for ``$TRTCROSS_CACHE_SIZE`` or 20 GiB. With 0 there is no
            cache.

    Raises:
        UsageError: ``$TRTCROSS_CACHE_SIZE`` is not a size.
    """

    def __init__(self, folder: Path | None = None, limit: int | None = None) -> None:
        self.folder = folder or _default_folder()
        self.limit = _default_limit() if limit is None else limit

    def find(self, key: str) -> CacheEntry | None:
        """The entry of a key, its bytes not looked at."""
        folder = self.folder / key
        try:
            status = folder.stat()
            size = (folder / ARTIFACT).stat().st_size if (folder / ARTIFACT).exists() else 0
        except FileNotFoundError:
            return None
        used = datetime.fromtimestamp(status.st_mtime, timezone.utc)
        return CacheEntry(key, folder, size, used, status.st_ino)

    def entries(self) -> list[CacheEntry]:
        """Every entry, the least recently used first."""
        try:
            names = [path.name for path in self.folder.iterdir()]
        except FileNotFoundError:
            return []
        found = [self.find(name) for name in names if _KEY.fullmatch(name)]
        return sorted((entry for entry in found if entry), key=lambda entry: (entry.used, entry.key))

    def holds(self, entry: CacheEntry) -> bool:
        """Whether an entry is still there, and not another in its place."""
        now = self.find(entry.key)
        return now is not None and now.inode == entry.inode

    def touch(self, entry: CacheEntry) -> None:
        """Makes an entry the most recently used one."""
        with suppress(OSError):  # a cache that can only be read still serves
            os.utime(entry.folder)

    def add(self, key: str, artifact: Path) -> bool:
        """Copies an artifact into the cache, and removes others where there would be too much.

        Returns:
            False if it alone is bigger than the whole cache may be.

        Raises:
            OSError: the cache cannot be written to, is full, or is locked for a minute by another process.
        """
        size = artifact.stat().st_size
        if size > self.limit:
            return False
        with self._locked():
            if (self.folder / key / ARTIFACT).exists():  # another process built the same
                return True
            self._take_away(self.folder / key)
            for entry in surplus(self.entries(), self.limit - size):
                self._take_away(entry.folder)
            part = self._part()
            part.mkdir()
            try:
                shutil.copyfile(artifact, part / ARTIFACT)
                sync(part / ARTIFACT)
                part.rename(self.folder / key)
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
            sync(self.folder)
        return True

    def remove(self, entries: Iterable[CacheEntry]) -> list[CacheEntry]:
        """Removes entries, and what killed processes left unfinished.

        Returns:
            Those that were removed; one that is another by now stays.

        Raises:
            OSError: the cache cannot be written to, or is locked for a minute by another process.
        """
        if not self.folder.is_dir():
            return []
        with self._locked():
            found = [entry for entry in entries if self.holds(entry)]
            for entry in found:
                self._take_away(entry.folder)
        return found

    def note(self, key: str) -> bytes | None:
        """What was written down of a key, whether or not it has an entry."""
        try:
            return self._note(key).read_bytes()
        except OSError:
            return None

    def keep_note(self, key: str, data: bytes) -> None:
        """Writes something down of a key; of too many notes the oldest goes.

        Raises:
            OSError: the cache cannot be written to, is full, or is locked for a minute by another process.
        """
        with self._locked():
            part = self._part()
            part.mkdir()
            try:
                (part / ARTIFACT).write_bytes(data)
                sync(part / ARTIFACT)
                (part / ARTIFACT).replace(self._note(key))
            finally:
                shutil.rmtree(part, ignore_errors=True)
            for path in self._notes()[:-MOST_NOTES]:
                path.unlink()

    def remove_notes(self) -> None:
        """Removes every note.

        Raises:
            OSError: the cache cannot be written to, or is locked for a minute by another process.
        """
        if self.folder.is_dir():
            with self._locked():
                for path in self._notes():
                    path.unlink()

    def _note(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def _notes(self) -> list[Path]:
        """Every note, the oldest first."""
        found = [path for path in self.folder.glob("*.json") if _KEY.fullmatch(path.stem)]
        return sorted(found, key=lambda path: (path.stat().st_mtime, path.name))

    def _take_away(self, folder: Path) -> None:
        if folder.exists():
            part = self._part()
            folder.rename(part)  # at once out of every reader's sight
            shutil.rmtree(part)

    def _part(self) -> Path:
        return self.folder / f"{_PART}{os.getpid()}-{secrets.token_hex(6)}"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock", timeout=LOCK_SECONDS):
            for path in self.folder.glob(f"{_PART}*"):
                shutil.rmtree(path)
            yield


def surplus(entries: Iterable[CacheEntry], limit: int) -> list[CacheEntry]:
    """Which of the entries, the least recently used first, have to go so that the rest is at most ``limit`` bytes."""
    entries = list(entries)
    total = sum(entry.size for entry in entries)
    gone: list[CacheEntry] = []
    while total > limit and len(gone) < len(entries):
        gone.append(entries[len(gone)])
        total -= gone[-1].size
    return gone


def _default_folder() -> Path:
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named) if named else user_cache_path("trtcross", appauthor=False) / "builds"


def _default_limit() -> int:
    named = os.environ.get(LIMIT_VARIABLE)
    return parse_size(named, where=LIMIT_VARIABLE) if named else DEFAULT_LIMIT
