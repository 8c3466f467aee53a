"""The saved file: what goes in comes out, equal contents make equal bytes, and a failed write changes nothing."""

from __future__ import annotations

import gc
import io
import json
import os
import signal
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from full_disk import needs_file_limits, without_room
from hypothesis import given
from hypothesis import strategies as st
from package_files import WEIGHT, linear, refused, rewrite, same, saved

import graphc
from graphc.errors import ArgumentError, ArgumentTypeError, VerifyError
from graphc.interpret import interpret
from graphc.ir import Builder, Graph
from graphc.package import Entry, read_package, write_package
from graphc.package import upgrade as upgrade_module
from graphc.package import write as write_module
from graphc.package.manifest import MANIFEST, WEIGHTS
from graphc.package.structure import arrays, describe, flatten, unflatten
from graphc.types import DTYPES, TensorType, float32

RNG = np.random.default_rng(7)
LARGE = np.arange(100, dtype=np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return saved(tmp_path / "model.gcz")


def with_constants() -> Graph:
    builder = Builder("constants", locations=False)
    x = builder.input(None, TensorType(float32, (100,)))
    small = builder.constant(np.arange(64, dtype=np.float32))
    return builder.finish([x + builder.constant(LARGE), small, builder.constant(LARGE) * x])


# What goes in comes out


def test_round_trip(path: Path) -> None:
    package = read_package(path)
    assert package.entries == {"forward": Entry(linear()), "other": Entry(linear(3.0))}
    assert package.metadata == {"epochs": [1, 2.5, None]}
    assert package.producer.startswith("graphc ") and (package.format_version, package.opset_version) == (2, 1)
    (weight,) = package.weights.values()
    np.testing.assert_array_equal(weight, WEIGHT)
    assert package.nbytes == path.stat().st_size


def test_streams(path: Path) -> None:
    stream = io.BytesIO()
    write_package(stream, {"forward": linear(), "other": linear(3.0)}, {"fc.weight": WEIGHT}, {"epochs": [1, 2.5, None]})
    assert stream.getvalue() == path.read_bytes()
    assert same(read_package(io.BytesIO(stream.getvalue())), read_package(path))


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (7,), (2, 3, 5)])
def test_weights_of_every_dtype(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    dtype = DTYPES[name].numpy
    bits = RNG.integers(0, 2 if name == "bool" else 256, (*shape, dtype.itemsize), np.uint8)
    array = np.asarray(bits.view(dtype)[..., 0])
    weights = {"fc.weight": WEIGHT, "a": array, "b": np.ones(3, np.int8)}
    read = read_package(saved(tmp_path / "m.gcz", weights=weights)).weights["a"]
    assert read.dtype == dtype and read.shape == shape and read.tobytes() == array.tobytes()
    assert not read.flags.writeable and read.flags.aligned


def test_weights_need_no_memory_of_their_own(path: Path) -> None:
    weight = read_package(path).weights["fc.weight"]
    owner: Any = weight
    while isinstance(owner, np.ndarray):
        owner = owner.base
    assert type(owner.obj).__name__ == "mmap"
    assert weight.ctypes.data % 64 == 0


def test_strided_and_swapped_weights(tmp_path: Path) -> None:
    weights = {"fc.weight": np.asfortranarray(WEIGHT), "a": np.arange(10)[::3], "b": np.arange(4, dtype=">i4"),
               "c": np.broadcast_to(np.float32(2), (3, 3))}  # fmt: skip
    read = read_package(saved(tmp_path / "m.gcz", weights=weights)).weights
    for name, array in weights.items():
        np.testing.assert_array_equal(read[name], array)


def test_equal_contents_make_equal_bytes(tmp_path: Path) -> None:
    weights = {"fc.weight": WEIGHT, "a": np.zeros(2), "b": np.zeros(3)}
    first = saved(tmp_path / "a.gcz", weights=weights, metadata={"x": 1, "y": 2})
    turned = dict(reversed(weights.items()))
    entries = {"other": linear(3.0), "forward": linear()}
    second = saved(tmp_path / "b.gcz", entries=entries, weights=turned, metadata={"y": 2, "x": 1})
    assert first.read_bytes() == second.read_bytes()


def test_other_tools_read_the_file(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [MANIFEST, "graphs/forward.gir", "graphs/other.gir", WEIGHTS]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        weights = safetensors.numpy.load(archive.read(WEIGHTS))
        manifest = json.loads(archive.read(MANIFEST))
    np.testing.assert_array_equal(weights["fc.weight"], WEIGHT)
    assert manifest["entries"]["forward"]["inputs"] == [
        {"name": "x", "type": "float32[N, 3]"},
        {"name": "fc.weight", "type": "float32[3, 4]", "weight": "fc.weight"},
    ]
    assert manifest["entries"]["forward"]["outputs"] == [{"name": "logits", "type": "float32[N, 4]"}]


def test_weights_written_by_the_safetensors_library_are_read(path: Path) -> None:
    weights = {"fc.weight": WEIGHT, "a": np.arange(5, dtype=np.int8), "b": np.arange(3.0), "c": np.array(True),
               "d": np.zeros((0, 2))}  # fmt: skip
    rewrite(path, members={WEIGHTS: safetensors.numpy.save(weights, {"format": "np"})})
    for name, array in read_package(path).weights.items():
        np.testing.assert_array_equal(array, weights[name])
        assert array.dtype == weights[name].dtype and array.flags.aligned


def test_large_constants_become_weights(tmp_path: Path) -> None:
    path = tmp_path / "m.gcz"
    write_package(path, {"forward": with_constants(), "again": with_constants()}, {})
    package = read_package(path)
    entry = package.entries["forward"]
    assert len(package.weights) == 1, "equal constants are kept once"
    ((position, name),) = entry.weights.items()
    np.testing.assert_array_equal(package.weights[name], LARGE)
    assert [node.op.name for node in entry.graph.nodes].count("constant") == 1, "the small one stays"
    x = RNG.standard_normal(100, np.float32)
    inputs = [package.weights[name] if i == position else x for i in range(2)]
    for got, expected in zip(interpret(entry.graph, inputs), interpret(with_constants(), [x])):
        np.testing.assert_array_equal(got, expected)


def test_everything_gets_a_name(tmp_path: Path) -> None:
    builder = Builder("f", locations=False)
    values = [builder.input(name, TensorType(float32, (2,))) for name in (None, "input_1", None)]
    values.append(builder.input(None, TensorType(float32, (3, 4)), param="fc.weight"))
    write_package(tmp_path / "m.gcz", {"forward": builder.finish(values)}, {"fc.weight": WEIGHT})
    graph = read_package(tmp_path / "m.gcz").entries["forward"].graph
    assert [v.name for v in graph.inputs] == ["input_0", "input_1", "input_2", "fc.weight"]
    assert graph.output_names == ("output_0", "output_1", "output_2", "output_3")


def test_names_of_results_are_kept(tmp_path: Path) -> None:
    graph = linear()
    graph.nodes[0].result.name = "hidden"
    write_package(tmp_path / "m.gcz", {"forward": graph}, {"fc.weight": WEIGHT})
    assert read_package(tmp_path / "m.gcz").entries["forward"].graph == graph


def test_equal_weights_are_stored_once(tmp_path: Path) -> None:
    """To the bit: 0.0 and -0.0 are two, and so are numbers of other types."""
    zeros, large = np.zeros(4000, np.float32), np.arange(4000.0)
    weights = {"fc.weight": WEIGHT, "b": large, "a": large.copy(), "c": large.reshape(2, 2000), "d": zeros, "e": -zeros,
               "f": large, "g": np.zeros(4000, np.int32), "h": large[::-1], "i": np.zeros((0, 3)), "j": np.zeros((0, 3)),
               "k": np.ones(()), "l": np.ones(())}  # fmt: skip
    path = saved(tmp_path / "m.gcz", weights=weights)
    read = read_package(path).weights
    for name, array in weights.items():
        assert read[name].tobytes() == np.asarray(array).tobytes() and read[name].shape == np.shape(array)
    assert read["a"] is read["b"] is read["f"] and len({id(array) for array in read.values()}) == len(weights) - 3
    with zipfile.ZipFile(path) as archive:
        manifest = json.loads(archive.read(MANIFEST))
    assert manifest["shared"] == {"b": "a", "f": "a", "l": "k"}


# What cannot be written is refused, and an old file stays


@pytest.mark.parametrize("changes, error, problem", [
    ({"entries": {}}, ArgumentError, "without entries"),
    ({"entries": {"../x": linear()}}, ArgumentError, "an entry called '../x'"),
    ({"entries": {"": linear()}}, ArgumentError, "an entry called ''"),
    ({"weights": {}}, ArgumentError, "bound to the weight 'fc.weight', which is not given"),
    ({"weights": {"fc.weight": WEIGHT.T}}, ArgumentError, r"does not fit the input 'fc.weight'(.|\n)*float32\[4, 3\]"),
    ({"weights": {"fc.weight": WEIGHT.astype(float)}}, ArgumentError, "does not fit the input"),
    ({"weights": {"fc.weight": [1.0]}}, ArgumentTypeError, "the weight 'fc.weight' is a list"),
    ({"weights": {"fc.weight": WEIGHT, "z": np.zeros(2, "U3")}}, RuntimeError, "<U3 is not supported"),
    ({"weights": {"fc.weight": WEIGHT, "__metadata__": WEIGHT}}, ArgumentError, "__metadata__"),
    ({"metadata": {"a": float("nan")}}, ArgumentError, "the metadata cannot be saved"),
    ({"metadata": {"a": (1, 2)}}, ArgumentError, "the metadata cannot be saved: what would be read is not what was given"),
    ({"metadata": {1: 2}}, ArgumentError, "the metadata cannot be saved"),
    ({"metadata": {"a": object()}}, ArgumentError, "the metadata cannot be saved"),
    ({"metadata": {"a": "\ud800"}}, ArgumentError, "the metadata cannot be saved"),
    ({"entries": {"f": Entry(linear(), {"tuple": [{"tuple": ["*", "*"]}, {"dict": []}]})}}, ArgumentError, "holds 2 arrays"),
    ({"entries": {"f": Entry(linear(), "*")}}, ArgumentError, "not that of a call"),
])  # fmt: skip
def test_what_cannot_be_written(path: Path, changes: dict[str, Any], error: type[Exception], problem: str) -> None:
    before = path.read_bytes()
    with pytest.raises(error, match=problem):
        saved(path, **changes)
    assert path.read_bytes() == before and os.listdir(path.parent) == ["model.gcz"]


def test_a_broken_graph_is_not_written(path: Path) -> None:
    graph = linear()
    with pytest.raises(VerifyError, match="is not defined in it"):
        saved(path, entries={"forward": Graph("f", graph.inputs, [], graph.outputs)})


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    before = path.read_bytes()

    def fail(file: Any, members: Any) -> None:
        file.write(b"the first half")
        raise error

    monkeypatch.setattr(write_module, "write_archive", fail)
    with pytest.raises(type(error)):
        saved(path, metadata={})
    assert path.read_bytes() == before and os.listdir(path.parent) == ["model.gcz"]


def test_a_path_that_cannot_be_written_is_named_as_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "none" / "model.gcz"
    with pytest.raises(FileNotFoundError) as caught:
        graphc.save(graphc.export(graphc.relu, (graphc.ones(2),)), path)
    assert caught.value.filename == str(path) and str(caught.value).endswith(repr(str(path)))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="timers that interrupt are POSIX's")
@pytest.mark.parametrize("delay", [0.001, 0.01, 0.03, 0.1])
def test_ctrl_c_while_writing(path: Path, delay: float) -> None:
    """Wherever the interrupt comes, there is one whole file: the old one, or one of the new ones."""
    large = np.zeros(1 << 22)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    gc.disable()  # Hypothesis is called at each collection, and what is raised there goes nowhere
    try:
        signal.setitimer(signal.ITIMER_REAL, delay)
        with pytest.raises(KeyboardInterrupt):
            for number in range(1000):
                saved(path, weights={"fc.weight": WEIGHT, "large": large}, metadata={"number": number})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()
    assert read_package(path).metadata.keys() in ({"epochs"}, {"number"}) and os.listdir(path.parent) == ["model.gcz"]


@needs_file_limits
@pytest.mark.parametrize("save", ["write_package(path, package.entries, weights)", "graphc.save(weights, path)"])
def test_a_disk_that_is_full(path: Path, save: str) -> None:
    """In a process that may write no file larger than a megabyte."""
    prepared = f"""
import numpy as np
from graphc.package import read_package, write_package
path = {str(path)!r}
package = read_package(path)
weights = {{"fc.weight": package.weights["fc.weight"].copy(), "large": np.zeros(1 << 20)}}
if "save(" in {save!r}:
    weights = {{name: graphc.tensor(array) for name, array in weights.items()}}
"""
    before = path.read_bytes()
    assert without_room(save, 1 << 20, before=prepared) == "File too large"
    assert path.read_bytes() == before and os.listdir(path.parent) == ["model.gcz"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are POSIX's")
@pytest.mark.parametrize("save", [saved, lambda path: graphc.save({"w": graphc.ones(3)}, path)])
def test_pipes_and_devices_are_written_to_and_not_replaced(tmp_path: Path, save: Callable[[Path], Any]) -> None:
    pipe, file = tmp_path / "pipe.gcz", tmp_path / "file.gcz"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # a pipe holds more than these files have
    save(pipe)
    save(file)
    assert os.read(reader, 1 << 16) == file.read_bytes()
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode) and sorted(os.listdir(tmp_path)) == ["file.gcz", "pipe.gcz"]


@pytest.mark.skipif(os.name == "nt", reason="links and permissions are POSIX's")
def test_links_and_permissions_stay(path: Path) -> None:
    os.chmod(path, 0o640)
    link = path.parent / "link.gcz"
    link.symlink_to(path)
    saved(link, metadata={"new": True})
    assert link.is_symlink() and read_package(path).metadata == {"new": True}
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_loaded_file_can_be_replaced(path: Path) -> None:
    package = read_package(path)
    write_package(path, package.entries, {"fc.weight": package.weights["fc.weight"] + 1}, package.metadata)
    np.testing.assert_array_equal(package.weights["fc.weight"], WEIGHT)
    np.testing.assert_array_equal(read_package(path).weights["fc.weight"], WEIGHT + 1)


# Versions


@pytest.mark.parametrize("key, what, ours", [("format_version", "format", 2), ("opset_version", "op set", 1)])
def test_newer_files_are_refused_with_a_sentence(path: Path, key: str, what: str, ours: int) -> None:
    rewrite(path, lambda m: m.update({key: ours + 1, "producer": "graphc 9.0"}))
    error = refused(path, f"by graphc 9.0 in {what} {ours + 1}, and this version of graphc reads up to {what} {ours}")
    assert "pip install -U graphc" in str(error)


def test_newer_files_may_look_quite_different(path: Path) -> None:
    rewrite(path, manifest=b'{"format": "graphc", "format_version": 7, "opset_version": 1}')
    refused(path, "in format 7")


def test_older_files_are_upgraded_step_by_step(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(old: str, new: str) -> Callable[[upgrade_module.Contents], upgrade_module.Contents]:
        def step(contents: upgrade_module.Contents) -> upgrade_module.Contents:
            text = contents.graphs["forward"].replace(f"= {old}(", f"= {new}(")
            return upgrade_module.Contents(contents.manifest, {**contents.graphs, "forward": text})

        return step

    text = str(linear()).replace("= matmul(", "= dot(")
    rewrite(path, members={"graphs/forward.gir": text.encode()})
    refused(path, "unknown op 'dot'")
    monkeypatch.setattr(upgrade_module, "FORMAT_VERSION", 4)
    monkeypatch.setattr(upgrade_module, "STEPS", {2: rename("dot", "mat_mul"), 3: rename("mat_mul", "matmul")})
    assert read_package(path).entries["forward"].graph == linear()


@pytest.mark.parametrize("version", [0, -1, True, 1.0, "1", None])
def test_versions_are_positive_integers(path: Path, version: Any) -> None:
    refused(rewrite(path, lambda m: m.update(format_version=version)), "format_version is missing in the manifest")


# Structures

leaves = st.builds(np.zeros, st.just(2))
trees = st.recursive(
    st.one_of(leaves, st.none(), st.booleans(), st.integers(-9, 9), st.floats(), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=3), st.integers(0, 3)), inner, max_size=3),
    ),
    max_leaves=8,
)  # fmt: skip


@given(trees)
def test_structures_take_trees_apart_and_together(tree: Any) -> None:
    structure = describe(tree, lambda x: isinstance(x, np.ndarray))
    assert json.loads(json.dumps(structure)) == structure
    parts = flatten(structure, tree)
    assert len(parts) == arrays(structure) and all(isinstance(part, np.ndarray) for part in parts)
    assert repr(unflatten(structure, parts)) == repr(tree)


@pytest.mark.parametrize("tree, problem", [
    (({"a": 1},), "a tuple of 2"),
    (([0, 0], {"b": 0}), r"at inputs\[1\](.|\n)*a dict with the keys \['a'\](.|\n)*the keys \['b'\]"),
    (([0], {"a": 2.5}), r"at inputs\[0\](.|\n)*a list of 2(.|\n)*a list of 1"),
    (([0, 0], {"a": 3.5}), r"at inputs\[1\]\['a'\](.|\n)*2.5, as the program was exported with(.|\n)*a float, 3.5"),
])  # fmt: skip
def test_other_trees_are_refused(tree: Any, problem: str) -> None:
    structure = describe(([np.zeros(1), np.zeros(1)], {"a": 2.5}), lambda x: isinstance(x, np.ndarray))
    with pytest.raises(ArgumentTypeError, match=problem):
        flatten(structure, tree)


def test_classes_are_described_by_what_they_hold() -> None:
    import collections
    import dataclasses

    @dataclasses.dataclass
    class Output:
        logits: Any
        loss: Any

    pair = collections.namedtuple("pair", "a b")(np.zeros(1), None)
    structure = describe(Output(np.zeros(1), pair), lambda x: isinstance(x, np.ndarray))
    assert unflatten(structure, [1, 2]) == {"logits": 1, "loss": (2, None)}
    with pytest.raises(ArgumentTypeError, match="a set cannot be part of a saved program"):
        describe({1, 2}, lambda x: False)
    with pytest.raises(ArgumentTypeError, match="a dict with the key None"):
        describe({None: 2}, lambda x: False)
