"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import BinaryIO


def is_replaceable(path: str | os.PathLike[str]) -> bool:
    """Whether a path is free or names a file, rather than a device or a pipe, which another cannot take the place of."""
    return os.path.isfile(path) or not os.path.exists(path)


def writing(path: str | os.PathLike[str]) -> AbstractContextManager[BinaryIO]:
    """A file to write to: `replacing` what is at a path, or the device or the pipe that is there."""
    return replacing(path) if is_replaceable(path) else open(path, "wb")


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of the one at `path` when the block ends.

    Where it does not come to its end, by a full disk or an interrupt, the old file stays as it was, and nothing else is
    left. A link stays a link to the new file, whose permissions are those of the old one.
    """
    import shutil  # which those who only read do without

    target = os.path.realpath(path)
    temporary = os.path.join(os.path.dirname(target), f".{os.path.basename(target)}.{os.urandom(8).hex()}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if os.path.exists(target):
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except BaseException as error:
        if os.path.exists(temporary):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.filename == temporary:  # which nobody has named
            raise OSError(error.errno, error.strerror, os.fspath(path)) from None
        raise
