"""The ``.pt2`` file as a zip of stored entries under one root folder, read strictly."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from toolchain.container import zip_records
from toolchain.container.entry_names import name_problem
from toolchain.errors import MalformedArtifactError, UsageError
from toolchain.io.hashing import stream_digest
from toolchain.io.positioned_file import PositionedBytes, PositionedFile
from toolchain.limits import DIRECTORY, ENTRIES
from toolchain.progress import advance

READ_CHUNK = 4 * 2**20
# Stands for the path in errors about an artifact in memory.
_IN_MEMORY = "<bytes>"


@dataclass(frozen=True)
class _Stamp:
    """What a file's status must keep for the file to count as unchanged."""

    device: int
    inode: int
    size: int
    modified: int


def _stamp(status: os.stat_result) -> _Stamp:
    return _Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class ZipEntry:
    """An entry: its name below the root folder, and the offset, size and CRC of its bytes in the file."""

    name: str
    offset: int
    size: int
    crc: int


class Container:
    """A ``.pt2`` file that is open for reading. Several threads may read it at once.

    Opening it reads only the archive's directory and the entries' headers. Entries must follow each other from the
    first byte on, with nothing in between.

    Attributes:
        path: the file's path; ``<bytes>`` for an artifact in memory.
        size: the size of the whole file, in bytes.
        modified: when the file was last written, in seconds since 1970; 0 for an artifact in memory.
        foreign_header: the last part (an entry, or the end) whose headers differ from our writer's bytes, if any.

    Raises:
        UsageError: there is no such file, or it cannot be opened.
        MalformedArtifactError: it is not a zip of stored entries under one root folder.
    """

    def __init__(self, source: str | os.PathLike[str] | bytes) -> None:
        """Opens the archive and checks its directory.

        Args:
            source: the file's path, or all its bytes.
        """
        self.path = Path(_IN_MEMORY) if isinstance(source, bytes) else Path(source)
        self.foreign_header: str | None = None
        self.root = ""
        self._file: PositionedFile | PositionedBytes = (
            PositionedBytes(source) if isinstance(source, bytes) else self._open()
        )
        try:
            self._stamp = self._now()
            self.size, self.modified = self._stamp.size, self._stamp.modified / 1e9
            self.entries: dict[str, ZipEntry] = self._read_directory()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        self._file.close()

    def chunks(self, offset: int, length: int, chunk: int = READ_CHUNK) -> Iterator[bytes]:
        """Yields ``length`` bytes of the file from ``offset`` on, at most ``chunk`` at a time.

        Raises:
            MalformedArtifactError: the file ends before them.
        """
        end = offset + length
        while offset < end:
            data = self._file.read(offset, min(chunk, end - offset))
            if not data:
                raise self.damaged("it is shorter than its directory states")
            offset += len(data)
            advance(len(data))
            yield data

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Reads into ``buffer`` from ``offset`` on, without a copy in between; returns the number of bytes read."""
        count = self._file.read_into(offset, buffer)
        advance(count)
        return count

    def read(self, name: str, *, size_limit: int | None = None) -> bytes:
        """Returns one entry's bytes.

        Raises:
            MalformedArtifactError: there is no such entry, or it has more than ``size_limit`` bytes.
        """
        entry = self.entry(name)
        if size_limit is not None and entry.size > size_limit:
            raise self.damaged(f"the entry {name} has {entry.size} bytes, and at most {size_limit} are read")
        return b"".join(self.chunks(entry.offset, entry.size))

    def entry(self, name: str) -> ZipEntry:
        try:
            return self.entries[name]
        except KeyError:
            raise self.damaged(f"it has no entry {name}") from None

    def sha256(self, name: str) -> str:
        entry = self.entry(name)
        return stream_digest(self.chunks(entry.offset, entry.size))

    def check_unchanged(self) -> None:
        """Refuses a file that was written to or replaced since it was opened.

        Raises:
            MalformedArtifactError: the file is not the one that was opened.
        """
        if isinstance(self._file, PositionedBytes):
            return
        try:
            same = self._now() == self._stamp == _stamp(self.path.stat())
        except OSError:
            same = False
        if not same:
            raise self.damaged("it changed while it was read")

    def _now(self) -> _Stamp:
        if isinstance(self._file, PositionedBytes):
            return _Stamp(0, 0, self._file.size, 0)
        return _stamp(self._file.status())

    def _open(self) -> PositionedFile:
        try:
            if self.path.is_dir():
                raise _is_folder(self.path)
            if not stat.S_ISREG(self.path.stat().st_mode):  # a pipe would block, and a device has no end
                raise OSError(errno.EINVAL, "it is not a regular file")
            return PositionedFile(self.path)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"the artifact cannot be opened: {getattr(error, 'strerror', None) or error}",
                where=str(self.path),
                remedy="check the path and the permissions",
            ) from error

    def _read_directory(self) -> dict[str, ZipEntry]:
        try:
            return self._read_entries()
        except zip_records.ZipError as error:
            raise self.damaged(str(error)) from error

    def _read_entries(self) -> dict[str, ZipEntry]:
        tail = self._file.read(max(self.size - zip_records.TAIL_SIZE, 0), zip_records.TAIL_SIZE)
        directory = zip_records.read_end(tail, self.size)
        if problem := ENTRIES.excess(directory.count) or DIRECTORY.excess(directory.size):
            raise self.damaged(f"it {problem}")
        if not directory.count:
            raise self.damaged("it has no entries")
        data = self._file.read(directory.offset, directory.size)
        entries: dict[str, ZipEntry] = {}
        names: set[str] = set()
        position = end = 0
        for _ in range(directory.count):
            record, following = zip_records.read_central(data, position)
            root, _, name = record.name.partition("/")
            if problem := name_problem(root) or name_problem(name):
                raise self.damaged(f"the entry name {record.name!r} {problem}")
            if entries and root != self.root:
                raise self.damaged("its entries are not under one root folder")
            if name.casefold() in names:
                raise self.damaged(f"it has the entry {name} twice")
            self.root = root
            names.add(name.casefold())
            entries[name], end = self._read_entry(record, name, data[position:following], end, directory.offset)
            position = following
        if position != len(data) or end != directory.offset:
            raise self.damaged("there are bytes in it that belong to no entry")
        if not tail.endswith(zip_records.end_records(directory)):
            self.foreign_header = "end of the archive"
        return entries

    def _read_entry(
        self, record: zip_records.ZipRecord, name: str, central: bytes, start: int, limit: int
    ) -> tuple[ZipEntry, int]:
        """Reads the entry whose local header must be at ``start``; returns it and where the next one must be."""
        if record.header_offset != start:
            raise self.damaged(f"the entry {record.name!r} overlaps another, or bytes before it belong to no entry")
        raw = self._file.read(start, zip_records.LOCAL_SIZE)
        length = zip_records.local_length(record, raw)
        raw += self._file.read(start + len(raw), length - len(raw))
        zip_records.check_local(record, raw)
        data = start + length
        end = data + record.size
        if end > limit:
            raise self.damaged(f"the entry {record.name!r} reaches past the end of the entries")
        ours = (record.raw_name, record.crc, record.size)
        if raw != zip_records.local_header(*ours) or central != zip_records.central_record(*ours, start):
            self.foreign_header = record.name
        for descriptor in zip_records.descriptors(record):
            if not descriptor or self._file.read(end, len(descriptor)) == descriptor:
                return ZipEntry(name, data, record.size, record.crc), end + len(descriptor)
        raise self.damaged(f"the record behind the entry {record.name!r} does not describe it")

    def damaged(self, problem: str) -> MalformedArtifactError:
        """Returns the error for a file that is damaged."""
        return MalformedArtifactError(f"the artifact is damaged: {problem}", where=str(self.path))


def _is_folder(path: Path) -> UsageError:
    return UsageError(
        "this is a folder, not an artifact",
        where=str(path),
        remedy=f"name a .pt2 file in it, or let `trtcross select {path}` choose",
    )
