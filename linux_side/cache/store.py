"""The cache's folder: one folder for each key, and the least recently used entry is removed first.

An entry is written under a name that readers ignore, then moved into place. It is never changed, only removed, so
readers need no lock. Writers hold a lock, which the system releases if they are killed. A partial entry found while
holding the lock was therefore left by a killed process.
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
    """One build in the cache, as it was when the folder was read.

    Attributes:
        key: the build's key.
        folder: the folder that contains the artifact and nothing else.
        size: the artifact's size in bytes; 0 if it is missing.
        used: when the entry was added or last fetched.
        inode: the folder's inode, by which an entry is told from a later one of the same key.
    """

    key: str
    folder: Path
    size: int
    used: datetime
    inode: int

    @property
    def artifact(self) -> Path:
        """The path of the artifact."""
        return self.folder / ARTIFACT


class BuildCache:
    """The build cache in one folder.

    Args:
        folder: the folder; None for ``$TRTCROSS_CACHE`` or else the user's cache folder.
        limit: the most bytes of all entries together; None for ``$TRTCROSS_CACHE_SIZE`` or else 20 GiB. 0 turns the
            cache off.

    Raises:
        UsageError: ``$TRTCROSS_CACHE_SIZE`` is not a size.
    """

    def __init__(self, folder: Path | None = None, limit: int | None = None) -> None:
        self.folder = folder or _default_folder()
        self.limit = _default_limit() if limit is None else limit

    def find(self, key: str) -> CacheEntry | None:
        """Returns the entry of a key, or None. Its bytes are not read."""
        folder = self.folder / key
        try:
            status = folder.stat()
            size = (folder / ARTIFACT).stat().st_size if (folder / ARTIFACT).exists() else 0
        except FileNotFoundError:
            return None
        used = datetime.fromtimestamp(status.st_mtime, timezone.utc)
        return CacheEntry(key, folder, size, used, status.st_ino)

    def entries(self) -> list[CacheEntry]:
        """Returns every entry, the least recently used first."""
        try:
            names = [path.name for path in self.folder.iterdir()]
        except FileNotFoundError:
            return []
        found = [self.find(name) for name in names if _KEY.fullmatch(name)]
        return sorted((entry for entry in found if entry), key=lambda entry: (entry.used, entry.key))

    def holds(self, entry: CacheEntry) -> bool:
        """Returns whether an entry is still there and has not been replaced by another one."""
        now = self.find(entry.key)
        return now is not None and now.inode == entry.inode

    def touch(self, entry: CacheEntry) -> None:
        """Marks an entry as the most recently used one."""
        with suppress(OSError):  # the cache may be read-only
            os.utime(entry.folder)

    def add(self, key: str, artifact: Path) -> bool:
        """Copies an artifact into the cache, and removes the least recently used entries to make room.

        Returns:
            False if the artifact alone exceeds the cache's limit; otherwise True, also if the key already has one.

        Raises:
            OSError: the cache cannot be written to, is full, or is locked for a minute by another process.
        """
        size = artifact.stat().st_size
        if size > self.limit:
            return False
        with self._locked():
            if (self.folder / key / ARTIFACT).exists():  # another process has added the same build
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
        """Removes entries, and partial entries of killed processes.

        Returns:
            The removed entries. An entry that has been replaced meanwhile is not removed.

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
        """Returns the note of a key, which it may have without an entry; None if there is no readable one."""
        try:
            return self._note(key).read_bytes()
        except OSError:
            return None

    def keep_note(self, key: str, data: bytes) -> None:
        """Writes the note of a key, and removes the oldest notes beyond ``MOST_NOTES``.

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
        """Returns every note, the oldest first."""
        found = [path for path in self.folder.glob("*.json") if _KEY.fullmatch(path.stem)]
        return sorted(found, key=lambda path: (path.stat().st_mtime, path.name))

    def _take_away(self, folder: Path) -> None:
        if folder.exists():
            part = self._part()
            folder.rename(part)  # readers no longer find it
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
    """Returns the entries to remove so that the rest has at most ``limit`` bytes.

    Args:
        entries: the least recently used first.
        limit: bytes.
    """
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
