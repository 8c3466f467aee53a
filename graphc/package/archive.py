"""The zip archive: written with the standard library, read by the letter.

`zipfile` is made to open whatever can be opened: data before the archive, overlapping members, two directories that say
different things. A file from anywhere is better refused, so the directory is read here: members are stored, lie one
after another from the first byte on with nothing in between, and their two headers agree.

PKWARE, ".ZIP File Format Specification" 6.3.10, sections 4.3 and 4.5.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

ALIGNMENT = 64  # a cache line, and the widest vector

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_EXTRA = struct.Struct("<2H")
_ZIP64_EXTRA = 1
_PADDING_EXTRA = 0x6367
_MAX_16, _MAX_32 = 0xFFFF, 0xFFFFFFFF
_UTF8 = 0x800
_STORED = 0


class Malformed(Exception):
    """What is wrong with a file, without its name."""

    def __init__(self, reason: str, hint: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Member:
    """A file in the archive: its name, and where its bytes are."""

    name: str
    offset: int
    size: int
    crc: int


def write_archive(file: BinaryIO, members: Iterable[tuple[str, Sequence[memoryview]]]) -> None:
    """Write members, each a name and parts of bytes, to a seekable file, so that where there are several the second is
    aligned."""
    import zipfile  # which those who only read do without

    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, parts in members:
            lead = parts[0].nbytes if len(parts) > 1 else 0
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # the same bytes on every system
            info.external_attr = 0o644 << 16
            info.file_size = sum(part.nbytes for part in parts)
            large = info.file_size * 1.05 > zipfile.ZIP64_LIMIT  # then zipfile adds its own field to the header
            start = file.tell() + _LOCAL.size + len(name.encode()) + _EXTRA.size + (20 if large else 0) + lead
            padding = -start % ALIGNMENT
            info.extra = _EXTRA.pack(_PADDING_EXTRA, padding) + bytes(padding)
            with archive.open(info, "w", force_zip64=large) as member:
                for part in parts:
                    member.write(part)


def read_directory(data: memoryview, max_members: int) -> dict[str, Member]:
    """The members of an archive by name; Malformed where it is not one that `write_archive` could have written."""
    start, size, count = _end_of_directory(data)
    if count > max_members:
        raise Malformed(f"it has {count} members, more than {max_members}")
    members: dict[str, Member] = {}
    position = start
    regions = []
    for _ in range(count):
        member, position, begin = _member(data, position, start + size)
        if member.name in members:
            raise Malformed(f"it has two members called {member.name!r}")
        members[member.name] = member
        regions.append((begin, member.offset + member.size, member.name))
    if position != start + size:
        raise Malformed("its directory is longer than its members need")
    end = 0
    for begin, finish, name in sorted(regions):
        if begin != end:
            raise Malformed(f"the member {name!r} does not begin where the one before it ends")
        end = finish
    if end != start:
        raise Malformed("there are bytes between the last member and the directory")
    return members


def check_crc(data: memoryview, member: Member) -> None:
    """Malformed where a member's bytes are not those that the directory describes."""
    if zlib.crc32(data[member.offset : member.offset + member.size]) != member.crc:
        raise Malformed(f"{member.name} is damaged: its checksum differs")


def _end_of_directory(data: memoryview) -> tuple[int, int, int]:
    """Where the directory begins, its length in bytes, and how many members it lists."""
    if bytes(data[:4]) not in (b"PK\x03\x04", b"PK\x05\x06"):
        raise Malformed("it is not a graphc file", "graphc files are made by graphc.save(program, path)")
    at = len(data) - _END.size
    if at < 0 or bytes(data[at : at + 4]) != b"PK\x05\x06":
        raise Malformed("it is truncated: the end of its directory is missing", "copy or download it again")
    _, disk, first_disk, here, count, size, start, comment = _END.unpack_from(data, at)
    limit = at
    if at >= _END64_LOCATOR.size and bytes(data[at - _END64_LOCATOR.size :][:4]) == b"PK\x06\x07":
        narrow = here, count, size, start
        limit, here, count, size, start = _end_of_directory_64(data, at)
        if narrow != (min(here, _MAX_16), min(count, _MAX_16), min(size, _MAX_32), min(start, _MAX_32)):
            raise Malformed("the end of its directory is damaged")
    if disk or first_disk or comment or here != count or start + size != limit:
        raise Malformed("the end of its directory is damaged")
    return start, size, count


def _end_of_directory_64(data: memoryview, at: int) -> tuple[int, int, int, int, int]:
    """The same for an archive of more than 2 GB, from the record before the end: limit, counts, size and start."""
    locator = at - _END64_LOCATOR.size
    record = locator - _END64.size
    if record < 0:
        raise Malformed("the end of its directory is damaged")
    _, disk, where, disks = _END64_LOCATOR.unpack_from(data, locator)
    if disk or disks != 1 or where != record:
        raise Malformed("the end of its directory is damaged")
    sign, length, _, _, disk, first_disk, here, count, size, start = _END64.unpack_from(data, record)
    if sign != b"PK\x06\x06" or length != _END64.size - 12 or disk or first_disk:
        raise Malformed("the end of its directory is damaged")
    return record, here, count, size, start


def _member(data: memoryview, at: int, limit: int) -> tuple[Member, int, int]:
    """The member that the directory describes at `at`; where its next entry is; where the member's own header begins."""
    if at + _CENTRAL.size > limit:
        raise Malformed("its directory is damaged")
    (sign, _, _, flags, method, time, date, crc, packed, size, name_length, extra_length, comment_length, disk, _, _,
     begin) = _CENTRAL.unpack_from(data, at)  # fmt: skip
    following = at + _CENTRAL.size + name_length + extra_length + comment_length
    if sign != b"PK\x01\x02" or following > limit or disk or comment_length:
        raise Malformed("its directory is damaged")
    raw_name = bytes(data[at + _CENTRAL.size : at + _CENTRAL.size + name_length])
    name = _decode(raw_name)
    if method != _STORED or packed != size or flags & ~_UTF8:
        raise Malformed(f"the member {name!r} is compressed or encrypted", "graphc stores its members as they are")
    extra = data[following - extra_length : following]
    size, packed, begin = _large_values(extra, name, [size, packed, begin])
    if begin + _LOCAL.size > limit:
        raise Malformed(f"the member {name!r} lies outside the file")
    local = _LOCAL.unpack_from(data, begin)
    sizes = _large_values(data[begin + _LOCAL.size + local[9] :][: local[10]], name, [local[8], local[7]])
    if local[0] != b"PK\x03\x04" or local[2:7] != (flags, method, time, date, crc) or sizes != [size, packed]:
        raise Malformed(f"the two headers of the member {name!r} differ")
    if bytes(data[begin + _LOCAL.size :][: local[9]]) != raw_name:
        raise Malformed(f"the member {name!r} has another name in its own header")
    offset = begin + _LOCAL.size + local[9] + local[10]
    if packed != size or offset + size > limit:
        raise Malformed(f"the member {name!r} lies outside the file")
    return Member(name, offset, size, crc), following, begin


def _decode(name: bytes) -> str:
    try:
        return name.decode("ascii")
    except UnicodeDecodeError:
        raise Malformed(f"it has a member with the name {name!r}, which is not ASCII") from None


def _large_values(extra: memoryview, name: str, values: list[int]) -> list[int]:
    """Sizes and offset with those that do not fit 32 bits, marked by all ones, taken from the extra field for them."""
    if _MAX_32 not in values:
        return values
    at = 0
    while at + _EXTRA.size <= len(extra):
        kind, length = _EXTRA.unpack_from(extra, at)
        at += _EXTRA.size
        wanted = values.count(_MAX_32)
        if kind == _ZIP64_EXTRA and length == 8 * wanted and at + length <= len(extra):
            large = iter(struct.unpack_from(f"<{wanted}Q", extra, at))
            return [next(large) if value == _MAX_32 else value for value in values]
        at += length
    raise Malformed(f"the size of the member {name!r} is missing")


def member_bytes(data: memoryview, members: Mapping[str, Member], name: str, limit: int) -> memoryview:
    """The bytes of a member that has to be there and to be no longer than `limit`."""
    member = members.get(name)
    if member is None:
        raise Malformed(f"it has no {name}", "graphc files are made by graphc.save(program, path)")
    if member.size > limit:
        raise Malformed(f"{name} has {member.size} bytes, more than {limit}", "raise the limit if you trust the file")
    return data[member.offset : member.offset + member.size]
