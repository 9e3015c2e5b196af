"""Writes a ``.pt2`` file: stored entries under one root folder, streamed, and moved into place as a whole."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

from toolchain.container import zip_records
from toolchain.container.entry_names import ROOT, name_problem
from toolchain.container.reader import Container
from toolchain.errors import BuildFailedError
from toolchain.io.atomic import new_part, replace_file
from toolchain.io.bulk_file import BulkFile
from toolchain.limits import DIRECTORY, ENTRIES


class ContainerWriter:
    """Writes a ``.pt2`` file beside its destination and moves it into place when it is complete.

    If the ``with`` block ends with an exception, the destination stays as it was.

    Raises:
        BuildFailedError: the folder or the file cannot be written to.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._directory: dict[str, bytes] = {}
        self._directory_size = 0

    def __enter__(self) -> ContainerWriter:
        try:
            self._part = new_part(self.path)
            self._file = BulkFile(self._part)
        except OSError as error:
            raise BuildFailedError(
                f"the output folder cannot be written to: {error.strerror}",
                where=str(self.path.parent),
                remedy="choose another path with -o",
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._commit()
        except OSError as problem:
            raise self._write_failed(problem) from problem
        finally:
            self._file.close()
            self._part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            raise self._write_failed(error) from error

    def add(self, name: str, data: bytes) -> str:
        """Writes one entry and returns its SHA-256."""
        self.stream(name, [data], len(data))
        return hashlib.sha256(data).hexdigest()

    def stream(self, name: str, chunks: Iterable[bytes | memoryview], size: int) -> None:
        """Writes one entry of ``size`` bytes from an iterable of chunks.

        Raises:
            BuildFailedError: no reader accepts the name, or this many entries.
            ValueError: the name is taken, or the chunks do not have ``size`` bytes.
        """
        if problem := name_problem(name):
            raise BuildFailedError(
                f"no reader would take the artifact: the entry name {name[:80]!r} {problem}",
                where=str(self.path),
                remedy="report the model: entries are named by torch and by trtcross",
            )
        ENTRIES.require(len(self._directory) + 1, where=str(self.path))
        if name.casefold() in self._directory:
            raise ValueError(f"the entry {name!r} is there twice")
        full, start = f"{ROOT}/{name}".encode(), self._file.position
        crc = written = 0
        self._file.write(zip_records.local_header(full, crc, size))
        for chunk in chunks:
            crc = zlib.crc32(chunk, crc)
            written += len(chunk)
            self._file.write(chunk)
        if written != size:
            raise ValueError(f"the entry {name!r} should have {size} bytes and has {written}")
        self._file.rewrite(start, zip_records.local_header(full, crc, size))
        self._directory[name.casefold()] = zip_records.central_record(full, crc, size, start)
        self._directory_size += len(self._directory[name.casefold()])
        DIRECTORY.require(self._directory_size, where=str(self.path))

    def copy(self, container: Container, name: str) -> str:
        """Copies an entry of a different container and returns its SHA-256."""
        entry, digest = container.entry(name), hashlib.sha256()

        def chunks() -> Iterator[bytes]:
            for chunk in container.chunks(entry.offset, entry.size):
                digest.update(chunk)
                yield chunk

        self.stream(name, chunks(), entry.size)
        return digest.hexdigest()

    def _commit(self) -> None:
        records = b"".join(self._directory.values())
        directory = zip_records.Directory(self._file.position, len(records), len(self._directory))
        self._file.write(records + zip_records.end_records(directory))
        self._file.finish()
        replace_file(self._part, self.path)

    def _write_failed(self, error: OSError) -> BuildFailedError:
        return BuildFailedError(
            f"the artifact could not be written: {error.strerror or error}",
            where=str(self.path),
            remedy="free some disk space or choose another path with -o; nothing was left half-written",
        )
