"""Reading a saved file trusts nothing: whatever is wrong with it, a PackageError says so."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from package_files import WEIGHT, linear, refused, rewrite, same, saved

from graphc.errors import PackageError
from graphc.package import Limits, Package, read_package, write_package
from graphc.package.archive import read_directory, write_archive
from graphc.package.manifest import MANIFEST, WEIGHTS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return saved(tmp_path / "model.gcz")


def test_rewriting_is_neutral(path: Path) -> None:
    """A guard for the tests below: it is their change that is refused."""
    before = read_package(path)
    assert same(read_package(rewrite(path)), before)


# Files that are something else


@pytest.mark.parametrize("content", [b"", b"PK", b"hello", b"PK\x03\x04" + bytes(100), b"PK\x05\x06" + bytes(17), bytes(1000)])
def test_other_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.gcz"
    path.write_bytes(content)
    refused(path, "it is not a graphc file|it is truncated")


def test_an_empty_archive_and_a_foreign_one(tmp_path: Path) -> None:
    path = tmp_path / "other.gcz"
    with zipfile.ZipFile(path, "w"):
        pass
    refused(path, "it has no manifest.json")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"cos\nsystem\n")
    refused(path, "it has no manifest.json")


def test_missing_files_are_oserrors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_package(tmp_path / "nothing.gcz")
    with pytest.raises(OSError):
        read_package(tmp_path)


# Archives that zipfile would open


def test_compressed_members(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    refused(path, "is compressed or encrypted")


@pytest.mark.parametrize("name", [
    "/etc/passwd", "../up.gir", "graphs/../x.gir", "graphs/a/b.gir", "graphs/.gir", "graphs/a b.gir", "notes.txt", "C:\\x.gir",
])  # fmt: skip
def test_unknown_members(path: Path, name: str) -> None:
    refused(rewrite(path, members={name: b"x"}), "which no file of graphc's has")


def test_duplicate_members(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        content = [(name, [memoryview(archive.read(name))]) for name in archive.namelist()]
    with open(path, "wb") as file, pytest.warns(UserWarning, match="Duplicate name"):
        write_archive(file, [*content, content[1]])
    refused(path, "two members called 'graphs/forward.gir'")


def test_data_before_between_and_after(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(b"#!/bin/sh\n" + data)
    refused(path, "it is not a graphc file")
    path.write_bytes(data + b"\x00")
    refused(path, "it is truncated")
    path.write_bytes(data + data)
    refused(path, "the end of its directory is damaged")


def directory(data: bytes) -> tuple[int, int]:
    """Where the directory of an archive begins, and how many members it lists."""
    return struct.unpack_from("<L", data, len(data) - 6)[0], struct.unpack_from("<H", data, len(data) - 12)[0]


def patched(path: Path, place: int, form: str, *values: int) -> None:
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, place, *values)
    path.write_bytes(bytes(data))


def test_overlapping_members(path: Path) -> None:
    """Two directory entries for the same bytes."""
    data = path.read_bytes()
    start, count = directory(data)
    first = start + struct.unpack_from("<H", data, start + 28)[0] + struct.unpack_from("<H", data, start + 30)[0] + 46
    end = bytearray(data[-22:])
    struct.pack_into("<2HL", end, 8, count + 1, count + 1, len(data) - 22 - start + first - start)
    path.write_bytes(data[:-22] + data[start:first] + bytes(end))
    refused(path, "two members called")


def test_sizes_beyond_the_file(path: Path) -> None:
    start, _ = directory(path.read_bytes())
    for size in (10**6, 2**32 - 2):
        patched(path, start + 20, "<2L", size, size)
        patched(path, 18, "<2L", size, size)
        refused(path, "lies outside the file")


def test_offsets_beyond_the_file(path: Path) -> None:
    start, _ = directory(path.read_bytes())
    patched(path, start + 42, "<L", 2**32 - 2)
    refused(path, "lies outside the file")


def test_too_many_members(path: Path) -> None:
    refused(path, "it has 4 members, more than 3", limits=Limits(members=3))


def test_archives_of_more_than_2_gigabytes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same fields, written for a small file."""
    before = read_package(path)
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    saved(path)
    data = path.read_bytes()
    assert b"PK\x06\x06" in data and b"PK\x06\x07" in data
    package = read_package(path)
    assert same(package, before) and package.weights["fc.weight"].ctypes.data % 64 == 0
    for i in range(len(data) - 98, len(data)):
        damaged = data[:i] + bytes([data[i] ^ 0x41]) + data[i + 1 :]
        unharmed_or_refused(damaged, before)


# Manifests


@pytest.mark.parametrize("manifest, problem", [
    (b"", "the manifest is not JSON"), (b"[]", "not a JSON object"), (b"\xff", "not JSON"), (b"{}", "not one of graphc's"),
    (b'{"a": NaN}', "NaN is not a number of JSON's"), (b'{"a": -Infinity}', "-Infinity"), (b'{"a": 1e999}', "too large"),
    (b'{"a": 1, "a": 2}', "a key stands twice"), (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deep"),
    (b'{"a": ' + b"[" * 80 + b"]" * 80 + b"}", "nested more than 64 deep"), (b'{"a": "\\ud800"}', "not JSON"),
    (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"), (b'{"format": "zip"}', "not one of graphc's"),
])  # fmt: skip
def test_manifests_that_are_none(path: Path, manifest: bytes, problem: str) -> None:
    refused(rewrite(path, manifest=manifest), problem)


def remove(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda manifest: manifest.pop(key)


def entry_change(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda manifest: manifest["entries"]["forward"].update(changes)


@pytest.mark.parametrize("change, problem", [
    (remove("entries"), "entries is missing"), (remove("checksums"), "lists other members"),
    (remove("producer"), "producer is missing"),
    (remove("metadata"), "metadata is missing"), (lambda m: m.update(metadata=[]), "is not a dict"),
    (lambda m: m.update(entries={}), "not named descriptions"), (lambda m: m.update(entries={"forward": 1}), "not named desc"),
    (lambda m: m["entries"].pop("other"), "not those of its graphs"),
    (lambda m: m["entries"].update({"third": m["entries"]["other"]}), "not those of its graphs"),
    (lambda m: m["checksums"].pop(WEIGHTS), "lists other members"),
    (lambda m: m["checksums"].update({"graphs/x.gir": "0"}), "lists other members"),
    (lambda m: m["checksums"].update({WEIGHTS: "0" * 64}), "weights.safetensors is damaged: its checksum differs"),
    (lambda m: m["checksums"].update({"graphs/other.gir": None}), "graphs/other.gir is damaged"),
    (lambda m: m["entries"]["forward"]["inputs"][0].update(type="float32[N, 4]"), "the graph of forward differ in inputs"),
    (lambda m: m["entries"]["forward"]["inputs"][1].pop("weight"), "the graph of forward differ in inputs"),
    (lambda m: m["entries"]["forward"].pop("output_structure"), "the graph of forward differ"),
    (entry_change(input_structure="*"), "not that of a call"),
    (entry_change(input_structure={"tuple": [{"tuple": []}, {"dict": []}]}), "holds 0 arrays, and the graph has 1"),
    (entry_change(input_structure={"tuple": [{"tuple": ["*"]}, {"dict": [[1, {"value": 1}]]}]}), "not that of a call"),
    (entry_change(output_structure={"tuple": ["*", "*"]}), "holds 2 arrays, and the graph has 1"),
    (entry_change(output_structure={"set": ["*"]}), "is not a structure"),
    (entry_change(output_structure={"tuple": "*"}), "is not a structure"),
    (entry_change(output_structure={"dict": [["a", "*"], ["a", "*"]]}), "is not a structure"),
    (entry_change(output_structure={"dict": [[None, "*"]]}), "is not a structure"),
    (entry_change(output_structure={"float": "one"}), "is not a structure"),
    (entry_change(output_structure=3), "is not a structure"),
    (entry_change(output_structure={"value": [1]}), "is not a structure"),
])  # fmt: skip
def test_manifests_that_say_something_else(path: Path, change: Callable[[dict[str, Any]], Any], problem: str) -> None:
    refused(rewrite(path, change), problem)


@pytest.mark.parametrize("change, problem", [
    (remove("shared"), "shared is missing"), (lambda m: m.update(shared=[]), "shared is missing"),
    (lambda m: m.update(shared={"a": 1}), "not listed as names"), (lambda m: m.update(shared={"a": "b"}), "is not there"),
    (lambda m: m.update(shared={"fc.weight": "fc.weight"}), "has its own, too"),
    (lambda m: m.update(shared={"a": "b", "b": "fc.weight"}), "is not there"),
])  # fmt: skip
def test_shared_weights(path: Path, change: Callable[[dict[str, Any]], Any], problem: str) -> None:
    refused(rewrite(path, change), problem)


@pytest.mark.parametrize("info, problem", [
    ('param = "fc.weight", next = 0', "is float32\\[3, 4\\], and would become float32\\[N, 4\\]"),
    ('param = "fc.weight", next = 1', "has no weight, or no output"), ('param = "fc.weight", next = -1', "or no output"),
    ('param = "fc.weight", next = true', "or no output"), ('param = "fc.weight", next = "logits"', "or no output"),
    ('param = "fc.weight", next = N', "or no output"), ("next = 0", "has no weight"), ('state = 3, next = 0', "has no weight"),
])  # fmt: skip
def test_what_is_kept_for_the_next_call(path: Path, info: str, problem: str) -> None:
    text = str(linear()).replace('param = "fc.weight"', info).encode()
    refused(rewrite(path, members={"graphs/forward.gir": text}), problem)


def test_weights_that_are_changed_twice(path: Path) -> None:
    text = b"""graph @f(%a: float32[3, 4] {param = "fc.weight", next = 0}, %b: float32[3, 4] {state = "fc.weight", next = 1}) ->
    (float32[3, 4], float32[3, 4]) { return %b as "x", %a as "y" }"""
    refused(rewrite(path, members={"graphs/forward.gir": text}), "is changed twice")
    text = text.replace(b"next = 1", b"next = 0").replace(b'state = "fc.weight"', b'param = "other"')
    refused(rewrite(path, members={"graphs/forward.gir": text}), "is changed twice, or by another's output|which is not there")


def test_structures_nested_too_deep(path: Path) -> None:
    nested: Any = "*"
    for _ in range(30):
        nested = {"tuple": [nested]}
    refused(rewrite(path, entry_change(output_structure=nested)), "is not a structure|nested")


# Graphs


@pytest.mark.parametrize("text, problem", [
    (b"", "there is no graph in the text"), (b"\xff", "not UTF-8"),
    (b"graph @f(", "line 1, column 9: the text ends inside a graph"),
    (str(linear()).replace("matmul", "evil").encode(), "line 2, column 8: unknown op 'evil'"),
    (str(linear()).replace("float32[N, 4]", "float32[N, 5]").encode(), "the result's type is not what the operands give"),
    ((str(linear()) + str(linear())).encode(), "holds 2 graphs"),
    (str(linear()).replace('param = "fc.weight"', 'param = "fc.bias"').encode(), "differ in inputs|needs the weight 'fc.bias'"),
    (str(linear()).replace('param = "fc.weight"', "param = 3").encode(), "differ in inputs"),
])  # fmt: skip
def test_graphs_that_are_none(path: Path, text: bytes, problem: str) -> None:
    error = refused(rewrite(path, members={"graphs/forward.gir": text}), problem)
    assert "forward" in str(error)


def test_graphs_that_are_too_long(path: Path) -> None:
    refused(path, "have more than 1 nodes", limits=Limits(nodes=1))
    refused(path, "graphs/forward.gir has .* bytes, more than 100", limits=Limits(graph_bytes=100))
    refused(path, "have more than 10 items", limits=Limits(graph_items=10))
    for text in (b"exp()" * 1_500_000, b"[" * 2_000_000, b"%x," * 2_000_000):
        text = b"graph @f() -> () {" + text
        refused(rewrite(path, members={"graphs/forward.gir": text}), "have more than 500000 items")


# Weights


def header(weights: dict[str, Any], data: int = 48) -> bytes:
    text = json.dumps(weights).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data)


def tensor(dtype: Any = "F32", shape: Any = (3, 4), offsets: Any = (0, 48)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize("content, problem", [
    (b"", "the weights are truncated"), (struct.pack("<Q", 2**63), "has 9223372036854775808 bytes, more than there are"),
    (struct.pack("<Q", 3) + b"{}", "more than there are"), (struct.pack("<Q", 2) + b"[]", "not a JSON object"),
    (header({}), "the weights have 48 bytes, and their header describes 0"), (header({}, 0), "needs the weight 'fc.weight'"),
    (header({"fc.weight": 3}), "is not described by"), (header({"fc.weight": {"dtype": "F32"}}), "is not described by"),
    (header({"fc.weight": tensor("F8_E4M3")}), "of the dtype 'F8_E4M3', which this version does not know"),
    (header({"fc.weight": tensor(), "__metadata__": {"complex128": "[1]"}}), "the list of the weights that are complex128"),
    (header({"fc.weight": tensor(), "__metadata__": {"complex32": "["}}), "the list of the weights that are complex32"),
    (header({"fc.weight": tensor(), "__metadata__": {"complex128": '["fc.weight"]'}}), r"stored as float32\[3, 4\]"),
    (header({"fc.weight": tensor(["F32"])}), "which this version does not know"),
    (header({"fc.weight": tensor(shape=[3, -4])}), "the shape of the weight 'fc.weight' is not a list of sizes"),
    (header({"fc.weight": tensor(shape=[3.0, 4])}), "is not a list of sizes"),
    (header({"fc.weight": tensor(shape="3")}), "is not a list of sizes"),
    (header({"fc.weight": tensor(shape=[3, True])}), "is not a list of sizes"),
    (header({"fc.weight": tensor(shape=[3, 5])}), r"is float32\[3, 5\], and its bytes are not as many"),
    (header({"fc.weight": tensor(shape=[2**40, 2**40])}), "too large for any memory"),
    (header({"fc.weight": tensor(shape=[0, 2**80], offsets=[0, 0])}), "is not a size"),
    (header({"fc.weight": tensor(shape=[1] * 65)}), "a shape of 65 dimensions"),
    (header({"fc.weight": tensor(offsets=[48, 0])}), "its bytes are not as many"),
    (header({"fc.weight": tensor(offsets=[0])}), "its bytes are not as many"),
    (header({"fc.weight": tensor(offsets=[2**62, 2**62 + 48])}), "does not begin where the one before it ends"),
    (header({"a": tensor(), "fc.weight": tensor()}), "does not begin where the one before it ends"),
    (header({"fc.weight": tensor("I32")}), r"takes the weight 'fc.weight' as float32\[3, 4\], and it is int32\[3, 4\]"),
    (header({"fc.weight": tensor(), "b": tensor("BOOL", [1], [48, 49])}, 48) + b"\x02", "a bool among the weights"),
])  # fmt: skip
def test_weights_that_do_not_fit(path: Path, content: bytes, problem: str) -> None:
    refused(rewrite(path, members={WEIGHTS: content}), problem)


def test_too_many_weights(path: Path) -> None:
    refused(path, "there are 1 weights, more than 0", limits=Limits(weights=0))


def test_the_check_of_the_weights_can_be_spared(path: Path) -> None:
    data = bytearray(path.read_bytes())
    place = data.index(WEIGHT.tobytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))
    refused(path, "weights.safetensors is damaged: its checksum differs")
    assert read_package(path, check_weights=False).weights["fc.weight"].shape == (3, 4)


# Damage of any kind


def unharmed_or_refused(data: bytes, before: Package) -> bool:
    """Whether the bytes still are the file that they were; they must not be anything else."""
    try:
        package = read_package(io.BytesIO(data))
    except PackageError:
        return False
    assert same(package, before), "damage went unnoticed"
    return True


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Package]:
    path = tmp_path_factory.mktemp("package") / "m.gcz"
    write_package(path, {"forward": linear()}, {"fc.weight": WEIGHT})
    return path.read_bytes(), read_package(path)


def test_every_truncation_is_refused(small: tuple[bytes, Package]) -> None:
    data, before = small
    for length in range(len(data)):
        assert not unharmed_or_refused(data[:length], before)


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_no_damaged_byte_goes_unnoticed(small: tuple[bytes, Package], flip: int) -> None:
    data, before = small
    unharmed = [i for i in range(len(data)) if unharmed_or_refused(data[:i] + bytes([data[i] ^ flip]) + data[i + 1 :], before)]
    # what may change unnoticed lies in the archive's own headers: tool versions, attributes and padding
    members = read_directory(memoryview(data), 10).values()
    assert not [i for i in unharmed if any(m.offset <= i < m.offset + m.size for m in members)]


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 3), st.binary(max_size=6)), min_size=1, max_size=4))
def test_arbitrary_damage(small: tuple[bytes, Package], edits: list[tuple[int, int, bytes]]) -> None:
    data, before = small
    for at, removed, inserted in edits:
        at %= len(data) + 1
        data = data[:at] + inserted + data[at + removed :]
    unharmed_or_refused(data, before)


finite = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), finite, st.text(), st.just("*")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["tuple", "list", "dict", "value", "x"]), inner)
    ),
    max_leaves=6,
)


@settings(max_examples=100)
@given(st.data())
def test_hostile_manifests(data: st.DataObject) -> None:
    """With right checksums: any JSON in any place of the manifest."""
    stream = io.BytesIO()
    write_package(stream, {"forward": linear()}, {"fc.weight": WEIGHT})
    with zipfile.ZipFile(stream) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(content.pop(MANIFEST))
    container, key = manifest, data.draw(st.sampled_from(sorted(manifest)))
    while isinstance(container[key], (dict, list)) and container[key] and data.draw(st.booleans()):
        container = container[key]
        key = data.draw(st.sampled_from(sorted(container) if isinstance(container, dict) else range(len(container))))
    container[key] = data.draw(JSON)
    out = io.BytesIO()
    members = [(MANIFEST, [memoryview(json.dumps(manifest).encode())]), *((n, [memoryview(d)]) for n, d in content.items())]
    write_archive(out, members)
    with contextlib.suppress(PackageError):
        read_package(io.BytesIO(out.getvalue()))
