"""A cache of compiled code on disk, shared by all processes of a user.

An entry is a file named by its key's digest: a header that proves the file whole and the key its own, then the
payload. Entries are written to a temporary file and moved into place, so a reader sees all of one or none. The cache
is an accelerator and nothing more: whatever goes wrong with the directory, `get` misses, `put` keeps nothing, and the
program goes on.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import re
import struct
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from graphc.config import config

_MAGIC = b"graphc\x00\x01"
_HEADER = struct.Struct("<8s32sQ32s")  # magic, digest of the key, length of the payload, digest of the payload
_TEMPORARY = ".tmp-"
_SHARD_DIGITS = 1
"""How many digits of an entry's name are its directory's: with two, those of a new cache took some 50 ms to make."""
_SHARD = re.compile("[0-9a-f]{1,2}")  # of two digits where an earlier version has kept something
_NAME = re.compile("[0-9a-f]{64}")
_ABANDONED_SECONDS = 3600.0
_EVICTION_CHECKS = 16  # how often the size is checked, on average, while as much as `max_bytes` is written
_SIZE_AFTER_EVICTION = 0.75

_random = random.Random()  # our own: the generator that user code seeds stays as it is
_reported: set[str] = set()


def cache_key(*parts: str | bytes) -> str:
    """The digest of all that decides an entry's content; `("ab", "c")` and `("a", "bc")` are different keys."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(struct.pack("<Q", len(data)))
        digest.update(data)
    return digest.hexdigest()


class DiskCache:
    """Byte strings by key in a directory of about `max_bytes` at most, the least recently used going first.

    Without a directory, or with `max_bytes` of 0, nothing is kept. Any number of threads and processes may use one
    directory at once.
    """

    def __init__(self, directory: str | os.PathLike[str] | None, max_bytes: int) -> None:
        self.directory = None if directory is None or max_bytes <= 0 else Path(directory)
        self.max_bytes = max_bytes

    @staticmethod
    def configured() -> DiskCache:
        """The cache that `config.cache_dir` and `config.cache_size` describe."""
        return DiskCache(config.cache_dir, config.cache_size)

    def get(self, key: str | bytes) -> bytes | None:
        """The bytes kept under `key`, or None. A damaged entry is deleted, reported once and counts as missing."""
        if self.directory is None:
            return None
        digest = _digest(key)
        path = _entry_path(self.directory, digest)
        try:
            with open(path, "rb") as file:
                if not _is_ours(file.fileno()):
                    return None
                data = file.read()
        except OSError:  # not there, or not for us to read
            return None
        payload = _payload(data, digest)
        if payload is None:
            with contextlib.suppress(OSError):
                path.unlink()
            _report("damaged", f"a damaged entry of graphc's compilation cache was removed: {path}")
            return None
        with contextlib.suppress(OSError):  # on a read-only disk the order of use is not kept
            os.utime(path)
        return payload

    def put(self, key: str | bytes, data: bytes) -> None:
        """Keep `data` under `key`, in place of what is there."""
        if self.directory is None or len(data) + _HEADER.size > self.max_bytes:
            return
        digest = _digest(key)
        header = _HEADER.pack(_MAGIC, digest, len(data), hashlib.sha256(data).digest())
        try:
            _write_atomically(_entry_path(self.directory, digest), header + data)
        except (PermissionError, FileNotFoundError):
            return  # a read-only home, a directory that another process cleared, a file held open on Windows
        except OSError as error:
            if error.errno != errno.EROFS:
                _report("unwritable", f"graphc cannot keep compiled code in {self.directory}: {error.strerror}")
            return
        # Counting what the directory holds is worth it once in a while: by chance, so that many short-lived processes
        # that write a little each come to it as often as a single one that writes the same.
        if _random.random() * self.max_bytes < len(data) * _EVICTION_CHECKS:
            self.evict()

    def usage(self) -> tuple[int, int]:
        """How many entries there are, and how many bytes they take."""
        entries = [] if self.directory is None else list(_entries(self.directory))
        return len(entries), sum(size for _, size, _ in entries)

    def clear(self) -> int:
        """Delete every entry, and nothing else that may lie in the directory; says how many there were."""
        entries = [] if self.directory is None else list(_entries(self.directory))
        for _, _, path in entries:
            with contextlib.suppress(FileNotFoundError):  # another process evicts at the same time
                os.unlink(path)
        return len(entries)

    def evict(self) -> None:
        """Delete the entries used longest ago if the directory has outgrown `max_bytes`."""
        if self.directory is None:
            return
        entries = sorted(_entries(self.directory))
        total = sum(size for _, size, _ in entries)
        if total <= self.max_bytes:
            return
        for _, size, path in entries:
            with contextlib.suppress(OSError):  # another process evicts at the same time
                os.unlink(path)
            total -= size
            if total <= self.max_bytes * _SIZE_AFTER_EVICTION:
                return


def _digest(key: str | bytes) -> bytes:
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()


def _entry_path(directory: Path, digest: bytes) -> Path:
    name = digest.hex()
    return directory / name[:_SHARD_DIGITS] / name[_SHARD_DIGITS:]


def _is_ours(descriptor: int) -> bool:
    """Entries are run as code: in a directory that others can write to, theirs are not to be trusted."""
    if not hasattr(os, "geteuid"):
        return True
    return os.fstat(descriptor).st_uid in (os.geteuid(), 0)


def _payload(data: bytes, digest: bytes) -> bytes | None:
    """The payload of an entry, or None if it is damaged or another key's."""
    if len(data) < _HEADER.size:
        return None
    magic, owner, length, checksum = _HEADER.unpack_from(data)
    payload = data[_HEADER.size :]
    if magic != _MAGIC or owner != digest or length != len(payload) or hashlib.sha256(payload).digest() != checksum:
        return None
    return payload


def _write_atomically(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _entries(directory: Path) -> Iterator[tuple[float, int, str]]:
    """Each entry's time of last use, size and path; deletes what writers that were killed left behind."""
    for shard in _scan(directory):
        for file in _scan(shard.path) if _SHARD.fullmatch(shard.name) else ():
            try:
                status = file.stat(follow_symlinks=False)
                if _NAME.fullmatch(shard.name + file.name):
                    yield status.st_mtime, status.st_size, file.path
                elif file.name.startswith(_TEMPORARY) and time.time() - status.st_mtime > _ABANDONED_SECONDS:
                    os.unlink(file.path)
            except OSError:  # gone since it was listed
                continue


def _scan(directory: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as listing:
            return list(listing)
    except OSError:
        return []


def _report(kind: str, message: str) -> None:
    if kind not in _reported:
        _reported.add(kind)
        warnings.warn(message, RuntimeWarning, stacklevel=3)
