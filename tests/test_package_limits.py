"""Hostile files are refused in less than a second of the processor's time, within 200 MB of memory.

Each is read in a process of its own, whose address space and time have these limits.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from package_files import WEIGHT, rewrite, saved

from graphc.package.archive import write_archive
from graphc.package.manifest import MANIFEST, WEIGHTS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are told and set in Linux's way")

SECONDS, MEGABYTES = 1, 200

SERVER = f"""
import os, resource, sys
import graphc.runtime
from graphc.errors import PackageError
from graphc.package import Limits, read_package
from graphc.parse import parse_graph
parse_graph("graph @f(%x: float32[2]) -> float32[2] {{ %0 = neg(%x) : float32[2] return %0 }}")  # the parser's tables

def read(path, limits):
    with open("/proc/self/statm") as file:
        room = int(file.read().split()[0]) * resource.getpagesize() + {MEGABYTES} * 1000**2 + os.path.getsize(path)  # mapped
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    resource.setrlimit(resource.RLIMIT_CPU, ({SECONDS}, {SECONDS}))
    spend, spin = limits.pop("spend", False), limits.pop("spin", False)
    try:
        while spin:
            pass
        if spend:
            bytearray({MEGABYTES + 10} * 1000**2)
        read_package(path, limits=Limits(**limits))
    except PackageError as error:
        return "refused " + str(error).replace("\\n", " ")[:4000]
    except BaseException as error:
        return f"{{type(error).__name__}} {{error}}"[:4000]
    return "read"

for line in sys.stdin:
    path, limits = eval(line)
    out, into = os.pipe()
    child = os.fork()
    if not child:
        os.write(into, read(path, limits).encode("utf-8", "replace"))
        os._exit(0)
    os.close(into)
    with open(out, "rb") as answer:
        text = answer.read().decode()
    _, status = os.waitpid(child, 0)
    print(text or f"ended by signal {{os.WTERMSIG(status)}}", flush=True)
"""


@pytest.fixture(scope="module")
def read() -> Iterator[Callable[..., str]]:
    """Reads a file within the limits, and says what came of it."""
    with subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None and server.stdout is not None

        def ask(path: Path, **limits: int) -> str:
            assert server.stdin is not None and server.stdout is not None
            server.stdin.write(f"({str(path)!r}, {limits!r})\n")
            server.stdin.flush()
            return server.stdout.readline().rstrip("\n")

        yield ask
        server.stdin.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return saved(tmp_path / "model.gcz")


def test_good_files_are_read_and_limits_are_limits(read: Callable[..., str], path: Path) -> None:
    """A guard for the tests below: a file is read within the limits, and what goes beyond them is ended."""
    assert read(path) == "read"
    assert "has more than 2 items" in read(path, manifest_items=2)
    assert read(path, spend=True).startswith("MemoryError")
    assert read(path, spin=True) == "ended by signal 9"


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_zip_bomb(read: Callable[..., str], path: Path) -> None:
    """268 megabytes of zeros in one."""
    described = contents(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(MANIFEST, described[MANIFEST])
        with archive.open(WEIGHTS, "w") as member:
            for _ in range(16):
                member.write(bytes(1 << 24))
    assert path.stat().st_size < 1 << 21
    assert "is compressed or encrypted" in read(path)


def test_members_over_each_other(read: Callable[..., str], path: Path) -> None:
    """A thousand members whose bytes are the same: the other way to make much of little."""
    data = path.read_bytes()
    start = struct.unpack_from("<L", data, len(data) - 6)[0]
    with zipfile.ZipFile(path) as archive:
        first = next(info for info in archive.infolist() if info.filename.endswith("forward.gir"))
    name = first.filename.encode()
    at = data.index(name, start) - 46
    length = 46 + len(name) + struct.unpack_from("<H", data, at + 30)[0]
    entries = [data[at : at + length].replace(name, b"graphs/a%05d.gir" % i) for i in range(1000)]
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1000, 1000, sum(map(len, entries)), start, 0)
    path.write_bytes(data[:start] + b"".join(entries) + end)
    assert read(path).startswith("refused")


@pytest.mark.parametrize("name", ["/etc/passwd", "../../up.gir", "graphs/../../x.gir", "C:\\x.gir", "graphs/\x00.gir"])
def test_paths(read: Callable[..., str], path: Path, name: str) -> None:
    described = contents(path)
    with open(path, "wb") as file:
        write_archive(file, [(n, [memoryview(d)]) for n, d in {**described, name.replace("\x00", "0/"): b"x"}.items()])
    answer = read(path)
    assert answer.startswith("refused") and "which no file of graphc's has" in answer


def test_one_name_twice(read: Callable[..., str], path: Path) -> None:
    described = [(name, [memoryview(data)]) for name, data in contents(path).items()]
    with open(path, "wb") as file, pytest.warns(UserWarning, match="Duplicate name"):
        write_archive(file, [*described, described[1]])
    assert "two members called" in read(path)


def weights(header: Any, data: int = 48) -> dict[str, bytes]:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return {WEIGHTS: struct.pack("<Q", len(text)) + text + bytes(data)}


@pytest.mark.parametrize("shape, offsets", [
    ([2**40, 2**40], [0, 48]), ([2**32, 2**32], [0, 0]), ([2**63 - 1, 2, 2**62], [0, 48]), ([0, 2**62, 2**62], [0, 0]),
    ([2**64 + 3, 4], [0, 48]), ([1 << 60, 0, 1 << 60], [0, 0]), ([3, 4], [0, 2**64 + 48]), ([3, 4], [-48, 0]),
    ([2**33], [0, 2**35]),
])  # fmt: skip
def test_sizes_that_overflow(read: Callable[..., str], path: Path, shape: list[int], offsets: list[int]) -> None:
    header = {"fc.weight": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}
    assert read(rewrite(path, members=weights(header))).startswith("refused")


def graph(body: str, result: str = "float32[N, 4]") -> dict[str, bytes]:
    head = '(%x: float32[N, 3], %fc.weight: float32[3, 4] {param = "fc.weight"})'
    return {"graphs/forward.gir": f"graph @linear{head} -> {result} {{\n{body}\n}}".encode()}


LINE = '%0 = matmul(%x, %fc.weight) : float32[N, 4]\n return %0 as "logits"'
POLYNOMIAL = " + ".join(f"a{i}" for i in range(30))


@pytest.mark.parametrize("body, problem", [
    (f"%1 = add(%1, %1) : float32[N, 4]\n{LINE}", "%1 is not defined"),
    (f"%1 = add(%2, %2) : float32[N, 4]\n%2 = add(%1, %1) : float32[N, 4]\n{LINE}", "%2 is not defined"),
    ("return %1\n%1 = neg(%x) : float32[N, 3]", "unexpected"),
    (f"%1 = os.system(%x) : float32[N, 3]\n{LINE}", "unknown op"),
    (f"%1 = __reduce__(%x) : float32[N, 3]\n{LINE}", "unknown op"),
    (f"%1 = constant() {{value = 1.0}} : float32[1000000000000]\n{LINE}", "not those of a constant"),
    (f'%1 = constant() {{value = dense<"AAAA">}} : uint8[9223372036854775807]\n{LINE}', "not those of the type"),
    (f'%1 = constant() {{value = []}} : float32[0, 9223372036854775807]\n{LINE}', "too large"),
    (f"%1 = broadcast_to(%x) {{shape = [{4 * '4294967296, '}3]}} : float32[{4 * '4294967296, '}3]\n{LINE}", "too large"),
    (f"%1 = broadcast_to(%x) {{shape = [{'1, ' * 20000}3]}} : float32[3]\n{LINE}", "not stretch"),
    (f"%1 = neg(%x) : float32[{'1, ' * 400_000}3]\n{LINE}", "dimensions"),
    (f"%1 = neg(%x) : float32[{', '.join(f'({POLYNOMIAL})' for _ in range(20))}]\n{LINE}", "refused"),
    (f"%1 = neg(%x) : float32[{', '.join(f'a{i} + b{i} + c{i}' for i in range(60))}]\n{LINE}", "too many parts"),
    (f"%1 = neg(%x) : float32[N{'*N' * 190}]\n{LINE}", "refused"),
    (f"%1 = neg(%x) {{a = {'[' * 20_000}{']' * 20_000}}} : float32[N, 3]\n{LINE}", "refused"),
    (f"%1 = neg(%x) {{a = {'[' * 3000}{']' * 3000}}} : float32[N, 3]\n{LINE}", "nested more than"),
    (f"%1 = neg(%x) {{a = {'graph @g() -> () {' * 1000}}} : float32[N, 3]\n{LINE}", "refused"),
    (f'%1 = contract(%x, %x) {{spec = "{"a" * 15_000_000}"}} : float32[N, 3]\n{LINE}', "not a contraction"),
    (f"%1 = neg(%x) {{a = {'9' * 5_000_000}}} : float32[N, 3]\n{LINE}", "more than 64 bits"),
    (f"%1 = neg(%x) {{a = {'9' * 10_000_000}.{'9' * 5_000_000}}} : float32[N, 3]\n{LINE}", "refused"),
    (f"%1 = neg(%x) {{a = 1{'+1' * 2_000_000}}} : float32[N, 3]\n{LINE}", "refused"),
    (f"%1 = neg(%{'y' * 15_000_000}) : float32[N, 3]\n{LINE}", "refused"),
    (f"%1 = neg(%x) : float32[N, 3]\n{'#' * 15_000_000}", "unexpected '}'"),
    (f"%1 = neg(%x) : float32[N, 3]\n{' ' * 15_000_000}", "unexpected '}'"),
    (f'%1 = neg(%x) {{a = "{chr(92) * 6_000_000}', "refused"),
], ids=range(25))  # fmt: skip
def test_graphs(read: Callable[..., str], path: Path, body: str, problem: str) -> None:
    answer = read(rewrite(path, members=graph(body)))
    assert answer.startswith("refused") and problem in answer


def test_ten_million_nodes(read: Callable[..., str], path: Path) -> None:
    rewrite(path, members={"graphs/forward.gir": b"%0=neg(%0):f\n" * 10_000_000})
    assert "more than 16777216" in read(path)
    rewrite(path, members={"graphs/forward.gir": b"%0=n(%0):f\n" * 1_500_000})
    assert "have more than 500000 items" in read(path)
    described = contents(path)
    members = {f"graphs/a{i}.gir": b"%0=n(%0):f\n" * 5_000 for i in range(40)}  # and so do forty graphs together

    def change(manifest: dict[str, Any]) -> None:
        manifest["entries"].update({f"a{i}": manifest["entries"]["other"] for i in range(40)})

    rewrite(path, change, members={**members, "graphs/forward.gir": described["graphs/other.gir"]})
    assert "have more than 500000 items" in read(path)


def branches(depth: int) -> bytes:
    """A graph of branches in branches: twice as many at each depth."""
    head = "graph @b(%p: bool[]) -> bool[] {"
    inner = f"{head} return %p }}"
    for _ in range(depth):
        inner = f"{head} %0 = cond(%p, %p) {{then = {inner}, otherwise = {inner}}} : bool[]\n return %0 }}"
    return inner.encode()


def test_graphs_in_graphs(read: Callable[..., str], path: Path) -> None:
    rewrite(path, members={"graphs/forward.gir": branches(15)})
    assert "have more than 500000 items" in read(path)
    rewrite(path, members={"graphs/forward.gir": branches(10)})
    assert "differ in inputs or outputs" in read(path)
    rewrite(path, members={"graphs/forward.gir": b"graph @f() -> () { %0 = constant() {value = [" + b"1.0," * 900_000})
    assert "have more than 500000 items" in read(path)


@pytest.mark.parametrize("manifest, problem", [
    (b'{"a": NaN}', "NaN"), (b'{"a": 1e9999}', "too large"), (b'{"a": Infinity}', "Infinity"),
    (b'{"a": ' + b"[" * 900_000 + b"]" * 900_000 + b"}", "nested too deep"),
    (b'{"a": [' + b"{}," * 5_000_000 + b"{}]}", "more than 1048576 items"),
    (b'{"a": [' + b"[]," * 400_000 + b"[]]}", "not one of graphc's"),
    (b'{"a": ' + b"9" * 16_000_000 + b"}", "not JSON"),
    (b'{"a": "' + b"\\ud83d\\ude00" * 1_300_000 + b'"}', "not one of graphc's"),
    (b'{"a": "' + b"x" * 16_000_000 + b'"}', "not one of graphc's"),
    (b" " * 20_000_000, "has 20000000 bytes, more than 16777216"),
    (b" " * 16_000_000, "not JSON"),
], ids=range(11))  # fmt: skip
def test_manifests(read: Callable[..., str], path: Path, manifest: bytes, problem: str) -> None:
    answer = read(rewrite(path, manifest=manifest))
    assert answer.startswith("refused") and problem in answer


def test_structures(read: Callable[..., str], path: Path) -> None:
    wide = {"tuple": [{"value": 1}] * 100_000}

    def change(manifest: dict[str, Any]) -> None:
        manifest["entries"]["forward"]["output_structure"] = {"tuple": [wide, "*", "*"]}

    assert "holds 2 arrays, and the graph has 1" in read(rewrite(path, change))


def test_many_weights(read: Callable[..., str], path: Path) -> None:
    described = {f"w{i}": {"dtype": "F32", "shape": [], "data_offsets": [0, 0]} for i in range(150_000)}
    assert "more than 1048576 items" in read(rewrite(path, members=weights(described)))
    described = {f"w{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(30_000)}
    assert read(rewrite(path, members=weights(described, 0))).startswith("refused")
    assert "damaged" in read(rewrite(path, lambda m: m["checksums"].update({WEIGHTS: "0"})))
    shared = {f"v{i}": "fc.weight" for i in range(100_000)}
    assert "there are 100001 weights" in read(rewrite(saved(path), lambda m: m.update(shared=shared)))


def test_loading_copies_no_weights(tmp_path: Path) -> None:
    """100 MB of weights, whose checksum is checked, add less than 30 MB to what the process has ever held in memory."""
    path = saved(tmp_path / "large.gcz", weights={"fc.weight": WEIGHT, "large": np.zeros(100 * 1000**2 // 8)})
    code = f"""
import re
from graphc import runtime
from graphc.parse import parse_graph
parse_graph("graph @f(%x: float32[2]) -> float32[2] {{ %0 = neg(%x) : float32[2] return %0 }}")

def most():
    with open("/proc/self/status") as file:
        return int(re.search("VmHWM:\\s*(\\d+)", file.read())[1])

before = most()
program = runtime.load({str(path)!r})
assert program.weights["large"].nbytes == 100 * 1000**2
print(most() - before)
"""
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert int(result.stdout) < 30_000, "in KB"
