"""The records of a zip file as bytes: the form that we write, and the only forms that we read.

We write stored entries, one after the other from byte 0, with nothing in between and no free text; zip64 is used where
a number needs it. An entry's name, size, CRC and offset decide every byte of its headers, so a reader can compare them
with :func:`local_header` and :func:`central_record`. torch's own writer pads its entries and puts CRC and size behind
them; that form is read too. Anything else (compression, encryption, comments, gaps, headers that disagree) is refused.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_DESCRIPTOR = struct.Struct("<4s3L")
_DESCRIPTOR64 = struct.Struct("<4sL2Q")

LOCAL_SIZE = _LOCAL.size
TAIL_SIZE = _END64.size + _LOCATOR64.size + _END.size

_MAX16, _MAX32 = 0xFFFF, 0xFFFFFFFF
_ZIP32_LIMIT = 2**31 - 1  # above this, readers expect zip64
_VERSION = 45  # the version of the zip specification that introduced zip64
_UTF8, _DESCRIPTOR_FOLLOWS = 0x800, 0x8
_DATE = 0x21  # 1980-01-01: the same bytes on every day
_UNIX, _MODE = 3 << 8, 0o600 << 16  # ... and on every host
_ZIP64_EXTRA, _TORCH_PADDING = 1, 0x4246


class ZipError(ValueError):
    """A record has a form that we do not read."""


@dataclass(frozen=True)
class ZipRecord:
    """An entry as the central directory describes it."""

    name: str
    crc: int
    size: int
    header_offset: int
    flags: int

    @property
    def raw_name(self) -> bytes:
        return self.name.encode()


@dataclass(frozen=True)
class Directory:
    """The central directory: its offset and size in bytes, and how many entries it lists."""

    offset: int
    size: int
    count: int


def local_header(name: bytes, crc: int, size: int) -> bytes:
    """Makes the header in front of a stored entry's data, in zip64's form from 2 GiB on."""
    big = size > _ZIP32_LIMIT
    extra = struct.pack("<2H2Q", _ZIP64_EXTRA, 16, size, size) if big else b""
    shown = _MAX32 if big else size
    version = 45 if big else 20
    return (
        _LOCAL.pack(
            b"PK\3\4", version, _flags(name), 0, 0, _DATE, crc, shown, shown, len(name), len(extra)
        )
        + name
        + extra
    )  # fmt: skip


def central_record(name: bytes, crc: int, size: int, offset: int) -> bytes:
    """Makes an entry's record in the central directory; ``offset`` is where its local header begins."""
    numbers = ([size, size] if size > _ZIP32_LIMIT else []) + ([offset] if offset > _ZIP32_LIMIT else [])
    extra = struct.pack(f"<2H{len(numbers)}Q", _ZIP64_EXTRA, 8 * len(numbers), *numbers) if numbers else b""
    shown = _MAX32 if size > _ZIP32_LIMIT else size
    version = 45 if numbers else 20
    return (
        _CENTRAL.pack(
            b"PK\1\2", _UNIX | version, version, _flags(name), 0, 0, _DATE, crc, shown, shown,
            len(name), len(extra), 0, 0, 0, _MODE, _MAX32 if offset > _ZIP32_LIMIT else offset,
        )
        + name
        + extra
    )  # fmt: skip


def end_records(directory: Directory) -> bytes:
    """Makes the records behind the central directory, with zip64's where a number needs them."""
    count, size, offset = directory.count, directory.size, directory.offset
    if count < _MAX16 and offset <= _ZIP32_LIMIT and size <= _ZIP32_LIMIT:
        return _END.pack(b"PK\5\6", 0, 0, count, count, size, offset, 0)
    return (
        _END64.pack(b"PK\6\6", _END64.size - 12, 45, 45, 0, 0, count, count, size, offset)
        + _LOCATOR64.pack(b"PK\6\7", 0, offset + size, 1)
        + _END.pack(
            b"PK\5\6", 0, 0, min(count, _MAX16), min(count, _MAX16), min(size, _MAX32), min(offset, _MAX32), 0
        )
    )  # fmt: skip


def read_end(tail: bytes, file_size: int) -> Directory:
    """Finds the central directory.

    Args:
        tail: the last :data:`TAIL_SIZE` bytes of the file, or the whole file if it is shorter.
        file_size: the size of the file, in bytes.

    Raises:
        ZipError: the file does not end with the end of a zip archive, or the records contradict each other.
    """
    if len(tail) < _END.size or tail[-_END.size :][:4] != b"PK\5\6":
        raise ZipError("it is not a zip archive, or its end is missing")
    _, disk, first_disk, here, count, size, offset, comment = _END.unpack(tail[-_END.size :])
    if disk or first_disk or here != count or comment:
        raise ZipError("its end record is not one that trtcross or torch writes")
    start = file_size - _END.size
    if tail[-_END.size - _LOCATOR64.size :][:4] == b"PK\6\7" and len(tail) == TAIL_SIZE:
        start = file_size - TAIL_SIZE
        shown = (count, size, offset)
        count, size, offset = _read_end64(tail, start)
        limits = (_MAX16, _MAX32, _MAX32)
        if any(s not in (n, limit) for s, n, limit in zip(shown, (count, size, offset), limits, strict=True)):
            raise ZipError("its two end records contradict each other")
    if offset + size != start:
        raise ZipError("its directory is not where its end record says")
    return Directory(offset, size, count)


def _read_end64(tail: bytes, start: int) -> tuple[int, int, int]:
    _, disk, offset, disks = _LOCATOR64.unpack(tail[_END64.size :][: _LOCATOR64.size])
    magic, length, _, _, disk64, first_disk, here, count, size, directory = _END64.unpack(tail[: _END64.size])
    if (magic, length, disk, disk64, first_disk) != (b"PK\6\6", _END64.size - 12, 0, 0, 0):
        raise ZipError("its zip64 end record is not one that trtcross or torch writes")
    if offset != start or disks != 1 or here != count:
        raise ZipError("its zip64 end record is not where its locator says")
    return count, size, directory


def read_central(data: bytes, position: int) -> tuple[ZipRecord, int]:
    """Reads the record at ``position``; returns it and the position behind it.

    Raises:
        ZipError: the record is malformed, or of a form that we do not read.
    """
    if position + _CENTRAL.size > len(data):
        raise ZipError("its directory is shorter than it says")
    fields = _CENTRAL.unpack_from(data, position)
    magic, _, _, flags, method, _, _, crc, packed, size, name_length, extra_length, comment, disk, _, _, offset = fields
    if magic != b"PK\1\2":
        raise ZipError("its directory is shorter than it says")
    start = position + _CENTRAL.size
    raw, extra = data[start : start + name_length], data[start + name_length :][:extra_length]
    end = start + name_length + extra_length
    name = _decode(raw, flags)
    if end > len(data):
        raise ZipError("its directory is shorter than it says")
    if method or comment or disk or flags & ~(_UTF8 | _DESCRIPTOR_FOLLOWS):
        raise ZipError(f"the entry {name!r} is compressed, encrypted or commented")
    size, packed, offset = _read_zip64(name, extra, [size, packed, offset])
    if size != packed:
        raise ZipError(f"the entry {name!r} is compressed")
    if fields[2] > _VERSION:
        raise ZipError(f"the entry {name!r} needs a newer reader of zip archives")
    return ZipRecord(name, crc, size, offset, flags), end


def local_length(record: ZipRecord, raw: bytes) -> int:
    """Returns the length of the local header of which ``raw`` is the fixed part.

    Raises:
        ZipError: the header differs from the directory.
    """
    if len(raw) < _LOCAL.size or raw[:4] != b"PK\3\4":
        raise ZipError(f"the entry {record.name!r} has no local header")
    _, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL.unpack(raw)
    stated = (crc, packed, size) in {
        (record.crc, record.size, record.size),
        (record.crc, _MAX32, _MAX32),
    }
    behind = bool(flags & _DESCRIPTOR_FOLLOWS) and (crc, packed, size) == (0, 0, 0)
    if flags != record.flags or method or name_length != len(record.raw_name) or not (stated or behind):
        raise ZipError(f"the local header of {record.name!r} differs from the directory")
    return _LOCAL.size + int(name_length) + int(extra_length)


def check_local(record: ZipRecord, raw: bytes) -> None:
    """Compares the name and the extra field of a whole local header with the directory.

    Raises:
        ZipError: they differ.
    """
    name, rest = raw[_LOCAL.size :][: len(record.raw_name)], raw[_LOCAL.size + len(record.raw_name) :]
    if name != record.raw_name:
        raise ZipError(f"the local header of {record.name!r} names another entry")
    shown_packed, shown_size = _LOCAL.unpack(raw[: _LOCAL.size])[7:9]
    wide = _extra_fields(record.name, rest).get(_ZIP64_EXTRA, b"")
    sizes = struct.pack("<2Q", record.size, record.size)
    # torch writes 0 into the header; its extra field has the sizes of a big entry and the offset of one beyond 4 GiB.
    place = struct.pack("<Q", record.header_offset) if record.header_offset >= _MAX32 else b""
    wanted = (sizes if record.size >= _MAX32 else b"") + place
    zeros = (shown_size, shown_packed) == (0, 0) and bool(wanted) and wide in (wanted, sizes)
    if not zeros and wide != (sizes if shown_size == _MAX32 else b""):
        raise ZipError(f"the local header of {record.name!r} has a different size from the directory's")


def descriptors(record: ZipRecord) -> tuple[bytes, ...]:
    """Returns what may follow the entry's data: nothing, or its CRC and size again, in one of two widths."""
    if not record.flags & _DESCRIPTOR_FOLLOWS:
        return (b"",)
    wide = _DESCRIPTOR64.pack(b"PK\7\10", record.crc, record.size, record.size)
    if record.size > _MAX32:
        return (wide,)
    return wide, _DESCRIPTOR.pack(b"PK\7\10", record.crc, record.size, record.size)


def _flags(name: bytes) -> int:
    return 0 if name.isascii() else _UTF8


def _decode(raw: bytes, flags: int) -> str:
    try:
        name = raw.decode("utf-8" if flags & _UTF8 else "ascii")
    except UnicodeDecodeError:
        raise ZipError(f"the entry name {raw!r} is not UTF-8") from None
    return name


def _read_zip64(name: str, extra: bytes, shown: list[int]) -> list[int]:
    """Replaces the numbers that do not fit into 32 bits by those in the zip64 field."""
    field, wanted = _extra_fields(name, extra).get(_ZIP64_EXTRA, b""), shown.count(_MAX32)
    if len(field) != 8 * wanted:
        raise ZipError(f"the entry {name!r} has a zip64 field of the wrong length")
    numbers = iter(struct.unpack(f"<{wanted}Q", field))
    return [next(numbers) if number == _MAX32 else number for number in shown]


def _extra_fields(name: str, extra: bytes) -> dict[int, bytes]:
    fields: dict[int, bytes] = {}
    position = 0
    while position < len(extra):
        kind, length = struct.unpack_from("<2H", extra, position) if position + 4 <= len(extra) else (0, 0)
        position += 4 + length
        if kind not in (_ZIP64_EXTRA, _TORCH_PADDING) or kind in fields or position > len(extra):
            raise ZipError(f"the entry {name!r} has an extra field that is not known")
        fields[kind] = extra[position - length : position]
    return fields
