"""The disk cache: keeps what it is given, and never gets in the way."""

import os
import random
import stat
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphc import disk_cache
from graphc.config import override
from graphc.disk_cache import DiskCache, cache_key

as_user = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not stop the superuser")


@pytest.fixture(autouse=True)
def fresh_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_cache, "_reported", set())


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 1000])
@pytest.mark.parametrize("key", ["key", b"\x00key\xff", "", "a/../../b"])
def test_what_is_put_is_got(tmp_path: Path, key: str | bytes, data: bytes) -> None:
    cache = DiskCache(tmp_path / "deep" / "cache", 1 << 20)
    assert cache.get(key) is None
    cache.put(key, data)
    assert cache.get(key) == data
    assert DiskCache(tmp_path / "deep" / "cache", 1 << 20).get(key) == data
    assert all((tmp_path / "deep" / "cache") in path.parents for path in files(tmp_path))


def test_a_later_put_replaces_an_earlier_one(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 1 << 20)
    cache.put("key", b"old")
    cache.put("key", b"new")
    assert cache.get("key") == b"new"
    assert len(files(tmp_path)) == 1


def test_keys_keep_their_parts_apart() -> None:
    keys = {cache_key("ab", "c"), cache_key("a", "bc"), cache_key("abc"), cache_key("abc", ""), cache_key("", "abc")}
    assert len(keys) == 5
    assert cache_key("ab", b"c") == cache_key(b"ab", "c")


@pytest.mark.parametrize(("directory", "size"), [(None, 1 << 20), ("cache", 0), ("cache", -1)])
def test_switched_off(tmp_path: Path, directory: str | None, size: int) -> None:
    cache = DiskCache(None if directory is None else tmp_path / directory, size)
    cache.put("key", b"data")
    cache.evict()
    assert cache.get("key") is None
    assert files(tmp_path) == []


def test_the_configuration_decides(tmp_path: Path) -> None:
    with override(cache_dir=tmp_path, cache_size=1000):
        cache = DiskCache.configured()
        assert (cache.directory, cache.max_bytes) == (tmp_path, 1000)
    with override(cache_dir=None):
        assert DiskCache.configured().directory is None


def damage_header(data: bytes) -> bytes:
    return b"X" + data[1:]


def damage_payload(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def truncate(data: bytes) -> bytes:
    return data[:-3]


def truncate_header(data: bytes) -> bytes:
    return data[:10]


def empty(data: bytes) -> bytes:
    return b""


def extend(data: bytes) -> bytes:
    return data + b"more"


@pytest.mark.parametrize("damage", [damage_header, damage_payload, truncate, truncate_header, empty, extend])
def test_a_damaged_entry_is_removed_and_reported_once(tmp_path: Path, damage) -> None:
    cache = DiskCache(tmp_path, 1 << 20)
    for key in ("one", "two"):
        cache.put(key, b"some object code")
    for path in files(tmp_path):
        path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(RuntimeWarning, match=r"damaged entry.*removed"):
        assert cache.get("one") is None
    assert cache.get("two") is None  # silently
    assert files(tmp_path) == []
    cache.put("one", b"again")
    assert cache.get("one") == b"again"


def test_an_entry_under_the_name_of_another_key_is_not_its_own(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 1 << 20)
    cache.put("one", b"code of one")
    (one,) = files(tmp_path)
    cache.put("two", b"code of two")
    (two,) = set(files(tmp_path)) - {one}
    two.write_bytes(one.read_bytes())
    with pytest.warns(RuntimeWarning, match="damaged"):
        assert cache.get("two") is None
    assert cache.get("one") == b"code of one"


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no owners of files on this system")
def test_an_entry_that_another_user_wrote_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = DiskCache(tmp_path, 1 << 20)
    cache.put("key", b"code")
    (entry,) = files(tmp_path)
    owner = entry.stat().st_uid
    if owner == 0:
        os.chown(entry, 12345, -1)
        owner = 12345
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert cache.get("key") is None
    monkeypatch.setattr(os, "geteuid", lambda: owner)
    assert cache.get("key") == b"code"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_others_cannot_write_into_a_new_cache(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path / "cache", 1 << 20)
    cache.put("key", b"code")
    (entry,) = files(tmp_path)
    assert stat.S_IMODE(entry.stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE(entry.parent.stat().st_mode) & 0o077 == 0


def test_a_file_in_place_of_the_directory_is_reported_once(tmp_path: Path) -> None:
    obstacle = tmp_path / "cache"
    obstacle.write_text("not a directory")
    cache = DiskCache(obstacle, 1 << 20)
    assert cache.get("key") is None
    with pytest.warns(RuntimeWarning, match="cannot keep compiled code"):
        cache.put("key", b"data")
    cache.put("key", b"data")  # silently
    cache.evict()
    assert obstacle.read_text() == "not a directory"


def test_a_full_disk_is_reported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*args: object, **keywords: object) -> None:
        raise OSError(28, "No space left on device")

    cache = DiskCache(tmp_path, 1 << 20)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", no_space)
        with pytest.warns(RuntimeWarning, match="No space left on device"):
            cache.put("key", b"data")
        cache.put("key", b"data")  # silently
    assert files(tmp_path) == []
    cache.put("key", b"data")
    assert cache.get("key") == b"data"


def test_a_read_only_disk_is_not_worth_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = DiskCache(tmp_path, 1 << 20)
    cache.put("key", b"data")

    def read_only(*args: object, **keywords: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "utime", read_only)
    monkeypatch.setattr(disk_cache.tempfile, "mkstemp", read_only)
    cache.put("other", b"data")
    assert cache.get("other") is None
    assert cache.get("key") == b"data"


@as_user
def test_a_directory_without_permission_is_not_worth_a_word(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        cache = DiskCache(tmp_path / "cache", 1 << 20)
        cache.put("key", b"data")
        assert cache.get("key") is None
    finally:
        tmp_path.chmod(0o700)


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    cache = DiskCache(tmp_path, 1 << 20)
    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cache.put("key", b"data")
    assert files(tmp_path) == []


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 10_000)
    now = time.time()
    for age, name in enumerate("abcdefgh"):
        before = set(files(tmp_path))
        cache.put(name, name.encode() * 1000)
        (path,) = set(files(tmp_path)) - before
        os.utime(path, (now - 1000 + age, now - 1000 + age))
    assert cache.get("a") is not None  # now the most recently used
    cache.put("i", b"i" * 1000)  # 9 entries of 1080 bytes: full, but not over
    assert len(files(tmp_path)) == 9
    cache.put("j", b"j" * 1000)
    left = {name for name in "abcdefghij" if cache.get(name) is not None}
    assert left == set("afghij")
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 7500


def test_the_size_stays_near_the_limit(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 200_000)
    random_bytes = random.Random(0)
    for number in range(500):
        cache.put(str(number), random_bytes.randbytes(random_bytes.randrange(4000)))
    assert sum(path.stat().st_size for path in files(tmp_path)) < 300_000
    assert cache.get("499") is not None


def test_what_is_larger_than_the_cache_is_not_kept(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 1000)
    cache.put("small", b"x" * 500)
    cache.put("large", b"x" * 1000)
    assert cache.get("large") is None
    assert cache.get("small") is not None


def test_eviction_removes_what_killed_writers_left_and_nothing_else(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 1 << 20)
    cache.put("key", b"data")
    (entry,) = files(tmp_path)
    old, new = entry.parent / ".tmp-old", entry.parent / ".tmp-new"
    foreign = tmp_path / "notes.txt"
    for path in (old, new, foreign):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    cache.evict()
    assert set(files(tmp_path)) == {entry, new, foreign}


def test_the_random_numbers_of_user_code_are_left_alone(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 1 << 20)
    random.seed(7)
    expected = random.random()
    random.seed(7)
    for number in range(10):
        cache.put(str(number), b"data")
    assert random.random() == expected


def test_many_threads_at_once(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 20_000)
    contents = {str(number): bytes([number]) * 700 for number in range(30)}
    failures: list[str] = []

    def use(seed: int) -> None:
        order = random.Random(seed)
        for _ in range(150):
            key = order.choice(list(contents))
            data = cache.get(key)
            if data is None:
                cache.put(key, contents[key])
            elif data != contents[key]:
                failures.append(key)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert not [path for path in files(tmp_path) if path.name.startswith(".tmp-")]


def test_many_processes_at_once(tmp_path: Path) -> None:
    script = """
        import random, sys, warnings
        from graphc.disk_cache import DiskCache
        warnings.simplefilter("error")
        cache = DiskCache(sys.argv[1], 20_000)
        order = random.Random(int(sys.argv[2]))
        for _ in range(200):
            number = order.randrange(30)
            data = cache.get(str(number))
            if data is None:
                cache.put(str(number), bytes([number]) * 700)
            else:
                assert data == bytes([number]) * 700
    """
    processes = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(script), str(tmp_path), str(seed)]) for seed in range(3)
    ]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]


def test_clearing_leaves_what_others_have_in_the_directory(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 1 << 20)
    cache.put("key", b"code")
    others = [tmp_path / name / "notes.txt" for name in ("a", "7", "x", "ab", "notes")]
    for file in others:
        file.parent.mkdir(exist_ok=True)
        file.write_text("kept")
    assert cache.usage()[0] == 1 and cache.clear() == 1
    cache.evict()
    assert all(file.read_text() == "kept" for file in others)


def test_entries_of_earlier_versions_are_counted_and_go(tmp_path: Path) -> None:
    """Their directories had names of two digits."""
    cache = DiskCache(tmp_path, 1 << 20)
    cache.put("key", b"code")
    (entry,) = (file for file in tmp_path.rglob("*") if file.is_file())
    name = entry.parent.name + entry.name
    old = tmp_path / name[:2] / name[2:]
    old.parent.mkdir()
    entry.rename(old)
    assert cache.get("key") is None and cache.usage()[0] == 1
    assert cache.clear() == 1 and not old.exists()
