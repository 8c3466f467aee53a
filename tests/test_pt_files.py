"""Files that PyTorch wrote: what is read, and what is refused without being run."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc

FILES = Path(__file__).parent / "torch_files"


class Global:
    """Pickled as a name of another library."""

    def __init__(self, name: str) -> None:
        self.name = name


class Call:
    """Pickled as a call of such a name, perhaps followed by the setting of attributes."""

    def __init__(self, name: str, *arguments: object, state: object = None) -> None:
        self.name, self.arguments, self.state = name, arguments, state


class Storage:
    """Pickled as a reference to a storage."""

    def __init__(self, *reference: object) -> None:
        self.reference = reference


class Pickler(pickle._Pickler):  # type: ignore[name-defined]  # the one in Python, which can be taught
    """Writes what PyTorch writes, without PyTorch."""

    def persistent_id(self, obj: object) -> object:
        return obj.reference if isinstance(obj, Storage) else None

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Global):
            module, _, name = obj.name.rpartition(".")
            self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
        elif isinstance(obj, Call):
            self.save(Global(obj.name))
            self.save(obj.arguments)
            self.write(pickle.REDUCE)
            if obj.state is not None:
                self.save(obj.state)
                self.write(pickle.BUILD)
        else:
            super().save(obj, save_persistent_id)


def archive(content: object, storages: dict[str, bytes] | None = None, members: dict[str, bytes] | None = None,
            compression: int = zipfile.ZIP_STORED) -> io.BytesIO:
    """A file as PyTorch writes it, of a pickle or of what it is made from."""
    if not isinstance(content, bytes):
        stream = io.BytesIO()
        Pickler(stream, 2).dump(content)
        content = stream.getvalue()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as zipped:
        zipped.writestr("a/data.pkl", content)
        for key, data in (storages or {}).items():
            zipped.writestr(f"a/data/{key}", data)
        for name, data in (members or {}).items():
            zipped.writestr(name, data)
    file.seek(0)
    return file


def tensor(shape: object = (2,), strides: object = (1,), offset: object = 0, kind: str = "torch.FloatStorage",
           length: object = 2, **more: Any) -> Call:
    storage = Storage("storage", Global(kind), "0", "cpu", length)
    return Call("torch._utils._rebuild_tensor_v2", storage, offset, shape, strides, False, OrderedDict(), **more)


FLOATS = {"0": struct.pack("<2f", 1.5, -2)}


# What PyTorch itself wrote


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, Any]:
    return graphc.load(FILES / "checkpoint.pt")


def test_weights_and_training_state(checkpoint: dict[str, Any]) -> None:
    model = graphc.nn.Sequential(graphc.nn.Linear(2, 3), graphc.nn.BatchNorm1d(3))
    assert isinstance(checkpoint["model"], OrderedDict) and not model.load_state_dict(checkpoint["model"]).missing_keys
    assert model[0].weight[1].tolist() == [-0.39074957370758057, -0.7640327215194702]
    assert model[1].num_batches_tracked.item() == 1 and model[1].num_batches_tracked.dtype is graphc.int64
    optimizer = graphc.optim.Adam(model.parameters())
    optimizer.load_state_dict(checkpoint["optimizer"])
    assert optimizer.param_groups[0]["lr"] == 0.25 and optimizer.param_groups[0]["betas"] == (0.9, 0.999)
    assert checkpoint["optimizer"]["state"][0]["exp_avg"].shape == (3, 2)
    model(graphc.ones(4, 2)).sum().backward()
    optimizer.step()
    scheduler = graphc.optim.lr_scheduler.MultiStepLR(optimizer, [5])
    scheduler.load_state_dict(checkpoint["scheduler"])
    assert scheduler.milestones == Counter([1, 2])


def test_every_dtype(checkpoint: dict[str, Any]) -> None:
    for name, x in checkpoint["dtypes"].items():
        assert x.dtype is getattr(graphc, name) and x.tolist() == [0, 1], name
    assert {"bool", "bfloat16", "uint64", "float16", "complex128"} <= set(checkpoint["dtypes"])


def test_memory_is_shared_as_it_was() -> None:
    whole, turned, row, parameter = graphc.load(FILES / "checkpoint.pt")["shared"]
    assert turned.tolist() == [[1, 4], [2, 5]] and turned.stride() == (1, 3)
    assert isinstance(parameter, graphc.nn.Parameter) and parameter.requires_grad
    row.fill_(7)
    assert whole.tolist() == parameter.tolist() == [[0, 1, 2], [7, 7, 7]] and turned.tolist() == [[1, 7], [2, 7]]


def test_plain_values(checkpoint: dict[str, Any]) -> None:
    assert checkpoint["size"] == (2, 3) and type(checkpoint["size"]) is graphc.Size
    assert checkpoint["dtype"] is graphc.float16 and checkpoint["device"] == graphc.device("cpu")
    assert checkpoint["bytes"] == b"ab\xff" and checkpoint["array"] == bytearray(b"x")
    assert checkpoint["set"] == {1, 2} and checkpoint["frozen"] == frozenset([3])
    assert checkpoint["tuple"] == (1, 2.5, None, True, 2**70, -3, "é") and checkpoint["complex"] == 1 + 2j
    assert checkpoint["counter"] == Counter([1]) and checkpoint["numpy"] == 1.5 and checkpoint["numpy_int"] == 7
    assert isinstance(checkpoint["numpy"], np.float64)


def test_tensors_of_all_kinds(checkpoint: dict[str, Any]) -> None:
    assert checkpoint["conj"].tolist() == [1 - 2j, 3 + 1j] and checkpoint["neg"].tolist() == [-2, 1]
    assert checkpoint["scalar"].shape == () and checkpoint["scalar"].item() == 3 and checkpoint["empty"].shape == (0, 3)
    assert checkpoint["expanded"].tolist() == [[1, 1], [1, 1]] and checkpoint["expanded"].stride() == (1, 0)
    assert checkpoint["leaf"].requires_grad and checkpoint["leaf"].is_leaf and checkpoint["attributes"].tolist() == [1]


@pytest.mark.parametrize("location", [None, "cpu", {"cuda:0": "cpu"}, lambda storage, location: storage])
def test_files_and_streams_and_locations(location: Any) -> None:
    with open(FILES / "checkpoint.pt", "rb") as file:
        assert graphc.load(file, map_location=location)["scalar"].item() == 3
    assert graphc.load(str(FILES / "checkpoint.pt"), location, weights_only=True)["scalar"].item() == 3


@pytest.mark.parametrize("name, told", [
    ("module.pt", r"module\.pt: it holds torch\.nn\.modules\.container\.Sequential, which is neither a tensor"),
    ("sparse.pt", r"sparse\.pt: it holds torch\._utils\._rebuild_sparse_tensor"),
    ("script.pt", r"script\.pt: a TorchScript program"),
    ("old.pt", r"(?s)old\.pt: not a file that graphc can read.*PyTorch before 1\.6"),
])  # fmt: skip
def test_other_things_are_refused_by_name(name: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        graphc.load(FILES / name)


# What others could write


def refused(file: io.BytesIO, told: str) -> None:
    with pytest.raises(graphc.errors.PackageError, match=told):
        graphc.load(file)


def test_the_helper_writes_what_can_be_read() -> None:
    assert graphc.load(archive({"x": tensor()}, FLOATS))["x"].tolist() == [1.5, -2]


@pytest.mark.parametrize("name", ["os.system", "os.mkdir", "builtins.eval", "builtins.getattr", "torch.nn.Linear", "torch.load",
                                  "graphc.load", "numpy.load", "collections.defaultdict"])
def test_names_are_refused_whether_called_or_not(name: str, tmp_path: Path) -> None:
    target = tmp_path / "made"
    for content in (Global(name), Call(name, str(target)), [1, {"x": Global(name)}]):
        refused(archive(content), f"it holds {name}".replace(".", r"\."))
    assert not target.exists()
    protocol_4 = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(p)]) + p.encode() for p in name.rsplit(".", 1)) + b"\x93."
    refused(archive(protocol_4), f"it holds {name}".replace(".", r"\."))


@pytest.mark.parametrize("content, told", [
    (tensor(length=3), r"storage 0 has 8 bytes where 12"), (tensor(length=1), r"data/0 has 8 bytes where 4"),
    (tensor(length=-2), "bytes where"), (tensor(length="2"), "which is no storage"),
    (tensor(shape=(3,)), "beyond its memory"), (tensor(offset=1), "beyond its memory"),
    (tensor(shape=(2, 2), strides=(2**62, 2**62)), "beyond its memory"), (tensor(shape=(2**62,), strides=(1,)), "beyond"),
    (tensor(offset=-1), "a tensor of shape"), (tensor(strides=(-1,)), "a tensor of shape"),
    (tensor(shape=(-1,)), "a tensor of shape"), (tensor(shape=(2, 1)), "a tensor of shape"),
    (tensor(shape=(2.0,)), "a tensor of shape"), (tensor(shape=[2]), "a list where a tuple is expected"),
    (tensor(kind="torch.QInt8Storage"), r"it holds torch\.QInt8Storage"),
    (tensor(kind="torch.storage.UntypedStorage", length=8), "a tensor without a dtype"),
    (tensor(state={"_data": 1}), "attributes of a Tensor"), (tensor(state=(None, {"_data": 1})), "attributes of a Tensor"),
    (Call("torch._utils._rebuild_tensor_v2", 3, 0, (2,), (1,), False), "a int where a _Storage is expected"),
    (Call("torch._utils._rebuild_parameter", 3, True, None), "a int where a Tensor is expected"),
    (Call("torch._tensor._rebuild_from_type_v2", Global("torch.Size"), Global("torch.Size"), (), {}), "a tensor of the class"),
    (Call("torch.Size", 3), "a int where a tuple"), (Call("torch.float32", 1), "a call of"),
    (Call("torch.device", "gpuu"), "device type"),
    (Call("collections.OrderedDict", state={"update": 1}), "attributes of a OrderedDict"),
    (Call("numpy.dtype", "O8", False, True), "NumPy's dtype"),
    (Call("numpy.core.multiarray.scalar", Call("numpy.dtype", "f8", False, True), b"abc"), "a number of 3 bytes"),
    (Storage("module", "x"), "not enough values"), (Storage("storage", Global("torch.Tensor"), "0", "cpu", 2), "a storage of"),
    (Storage("storage", Global("torch.FloatStorage"), "../data.pkl", "cpu", 2), "KeyError"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(content: object, told: str) -> None:
    with pytest.raises(RuntimeError, match=told):
        graphc.load(archive(content, FLOATS))


@pytest.mark.parametrize("program", [
    b"", b"\x80\x02", b"\x80\x02}", b"\x80\x02.", b"\x80\x02u.", b"\x80\x02h\x05.", b"\x80\x02]]s.", b"\x80\x02}]]s.",
    b"\x80\x02(K\x01e.", b"\x80\x02K\x01K\x02a.", b"\x80\x02)R.", b"\x80\x02I1\n.", b"\x80\x02(c", b"\xff\xff",
    b"\x80\x02\x85.", b"\x80\x02\x86.", b"\x80\x02K\x01\x87.",
    b"\x80\x02K\x01Q.", b"\x80\x02)\x81.", b"\x80\x02\x8a\xff.", b"\x80\x02X\xff\xff\xff\xff.", b"P1\n.",
])  # fmt: skip
def test_pickles_that_make_no_sense(program: bytes) -> None:
    refused(archive(program), "the stream: ")


def test_archives_that_make_no_sense() -> None:
    refused(archive({}, members={"b/data.pkl": b"\x80\x02}."}), "none of PyTorch")
    refused(archive({}, members={"a/constants.pkl": b""}), "TorchScript")
    refused(archive({"x": tensor()}, FLOATS, compression=zipfile.ZIP_DEFLATED), "compressed")
    whole = archive({"x": tensor()}, FLOATS).getvalue()
    refused(io.BytesIO(whole.replace(struct.pack("<f", 1.5), struct.pack("<f", 9.5))), "CRC")
    for end in (len(whole) // 2, len(whole) - 10):
        refused(io.BytesIO(whole[:end]), "damaged")


def test_storages_of_another_byte_order() -> None:
    big = {"0": struct.pack(">2f", 1.5, -2)}
    assert graphc.load(archive(tensor(), big, {"a/byteorder": b"big"})).tolist() == [1.5, -2]
    pair = archive(tensor((1,), (1,), kind="torch.ComplexFloatStorage", length=1), big, {"a/byteorder": b"big"})
    assert graphc.load(pair).tolist() == [1.5 - 2j]
    assert graphc.load(archive(tensor(), FLOATS, {"a/byteorder": b"little"})).tolist() == [1.5, -2]


def test_bools_are_zero_or_one() -> None:
    x = graphc.load(archive(tensor((4,), kind="torch.BoolStorage", length=4), {"0": b"\x00\x01\x02\xff"}))
    assert x.numpy().view(np.uint8).tolist() == [0, 1, 1, 1]


def test_deep_nesting_needs_no_stack() -> None:
    depth = 50_000
    value = graphc.load(archive(b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."))
    for _ in range(depth - 1):
        (value,) = value
    assert value == []


def test_damaged_files_are_errors_of_ours() -> None:
    """Bytes changed at random: read all the same, or refused; never anything else."""
    original = (FILES / "checkpoint.pt").read_bytes()
    pick = random.Random(0)
    outcomes = Counter()
    for _ in range(300):
        data = bytearray(original)
        for _ in range(pick.randint(1, 3)):
            data[pick.randrange(len(data))] = pick.randrange(256)
        try:
            graphc.load(io.BytesIO(data))
            outcomes["read"] += 1
        except graphc.errors.GraphcError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 50


def test_damaged_pickles_are_errors_of_ours() -> None:
    """The same for the pickle alone, with the checksum of the archive set right."""
    with zipfile.ZipFile(FILES / "checkpoint.pt") as zipped:
        members = {name: zipped.read(name) for name in zipped.namelist()}
    pick = random.Random(1)
    outcomes = Counter()
    for _ in range(300):
        program = bytearray(members["checkpoint/data.pkl"])
        for _ in range(pick.randint(1, 3)):
            program[pick.randrange(len(program))] = pick.randrange(256)
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as zipped:
            for name, data in members.items():
                zipped.writestr(name, bytes(program) if name.endswith("data.pkl") else data)
        file.seek(0)
        try:
            graphc.load(file)
            outcomes["read"] += 1
        except graphc.errors.GraphcError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 50 and outcomes["read"] > 5


def test_a_missing_file() -> None:
    with pytest.raises(FileNotFoundError):
        graphc.load(os.devnull + "x.pt")
