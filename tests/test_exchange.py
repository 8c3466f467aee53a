"""Memory shared with NumPy and with libraries that speak DLPack; NumPy's functions on tensors; copies and pickles."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import graphc


@pytest.mark.parametrize("dtype", [
    "bool", "uint8", "int16", "int64", "uint16", "float16", "float32", "float64", "complex64", "complex128",
])  # fmt: skip
def test_arrays_share_memory_both_ways(dtype: str) -> None:
    array = np.zeros((2, 3), dtype)
    x = graphc.from_numpy(array.T)
    array[0, 1] = 1
    assert x.dtype is getattr(graphc, dtype) and x[1, 0].item() == 1 and x.stride() == (1, 3)
    x.numpy()[2, 1] = 1
    assert array[1, 2] == 1 and graphc.as_tensor(array).data_ptr() == array.ctypes.data
    assert graphc.tensor(array).data_ptr() != array.ctypes.data


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float32", "float64", "complex64"])
def test_dlpack_shares_memory_both_ways(dtype: str) -> None:
    array = np.ones((2, 3), dtype)
    x = graphc.from_dlpack(array)
    x[0, 0] = 0
    assert array[0, 0] == 0 and x.dtype is getattr(graphc, dtype)
    y = graphc.ones(4, dtype=x.dtype)
    np.from_dlpack(y[::2])[1] = 0
    assert y.tolist() == [1, 1, 0, 1] and y.__dlpack_device__() == (1, 0)
    z = graphc.from_dlpack(graphc.to_dlpack(y))
    z[3] = 0
    assert y.tolist() == [1, 1, 0, 0] and graphc.from_dlpack(y, copy=True).data_ptr() != y.data_ptr()


def test_what_cannot_be_exchanged() -> None:
    with pytest.raises(BufferError, match=r"use tensor.detach\(\)"):
        graphc.ones(2, requires_grad=True).__dlpack__()
    with pytest.raises(TypeError, match="DLPack protocol"):
        graphc.from_dlpack([1, 2])
    with pytest.raises(TypeError, match=r"expected np.ndarray \(got list\)"):
        graphc.from_numpy([1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="byte order"):
        graphc.from_numpy(np.ones(2, ">f4"))
    with pytest.raises(TypeError, match=r"can't convert np.ndarray of type numpy.str_"):
        graphc.from_numpy(np.array(["a"]))
    with pytest.raises(ValueError, match="can't alias"):
        graphc.asarray([1, 2], copy=False)
    with pytest.raises(RuntimeError, match="requires grad"):
        np.asarray(graphc.ones(1, requires_grad=True))


def test_buffers() -> None:
    memory = bytearray(range(8))
    x = graphc.frombuffer(memory, dtype=graphc.int16, offset=2, count=2)
    memory[2] = 7
    assert x.tolist() == [7 + 3 * 256, 4 + 5 * 256]
    with pytest.warns(UserWarning, match="not writable"):
        assert graphc.frombuffer(b"\0\0\x80?", dtype=graphc.float32).tolist() == [1.0]
    for arguments, words in (({"offset": 9}, "must be non-negative and no greater"), ({"count": 5}, "requested buffer length"),
                             ({"offset": 1}, "multiple of element size")):
        with pytest.raises(ValueError, match=words):
            graphc.frombuffer(memory, dtype=graphc.int16, **arguments)


def test_functions_of_numpy() -> None:
    x = graphc.tensor([1.0, 4.0, 9.0])
    for result in (np.sqrt(x), np.add(x, np.ones(3)), np.clip(x, 0, 2), np.reshape(x, (3, 1)), np.float64(2) * x,
                   np.ones(3) + x):
        assert isinstance(result, graphc.Tensor)
    assert np.sqrt(x).tolist() == [1.0, 2.0, 3.0] and np.isnan(x).tolist() == [False] * 3
    assert (np.sum(x), np.mean(x), np.max(x), np.prod(x), np.std(x)) == pytest.approx((14, 14 / 3, 9, 36, np.std([1, 4, 9])))
    assert np.all(x) and np.any(x) and np.allclose(x, [1, 4, 9]) and np.argmax(x) == 2
    assert np.concatenate([x, x]).tolist() == [1, 4, 9] * 2 and np.stack([x, x]).shape == (2, 3)
    assert np.array(x, dtype=np.int64).tolist() == [1, 4, 9] and np.asarray(x).ctypes.data == x.data_ptr()
    assert np.dot(x, x) == 98 and np.linalg.norm(x) == pytest.approx(98**0.5)


@pytest.mark.parametrize("dtype", [graphc.bool, graphc.uint16, graphc.bfloat16, graphc.complex32, graphc.complex128])
def test_copies_and_pickles(dtype: graphc.DType) -> None:
    x = graphc.tensor([[0, 1, 1], [1, 0, 1]]).to(dtype).t()
    for other in (copy.deepcopy(x), pickle.loads(pickle.dumps(x)), copy.copy(x)):
        assert other.dtype is dtype and other.tolist() == x.tolist() and other is not x
    assert copy.deepcopy(x).stride() == x.stride() and copy.deepcopy(x).data_ptr() != x.data_ptr()
    assert pickle.loads(pickle.dumps(dtype)) is dtype is copy.deepcopy(dtype)


def test_copies_of_leaves_keep_what_autograd_knows() -> None:
    x = graphc.ones(2, requires_grad=True)
    (x * 2).sum().backward()
    other = copy.deepcopy(x)
    assert other.requires_grad and other.grad.tolist() == [2.0, 2.0] and other.grad is not x.grad
    assert pickle.loads(pickle.dumps(x)).requires_grad
    with pytest.raises(RuntimeError, match="graph leaves"):
        copy.deepcopy(x * 2)


@pytest.mark.parametrize("ask, expected", [
    (lambda x: graphc.is_same_size(x, x), True), (lambda x: x.is_set_to(x[:]), True), (lambda x: x.is_set_to(x.clone()), False),
    (lambda x: 3.0 in x, True), (lambda x: x.get_device(), -1), (lambda x: list(reversed(x)), [3.0, 2.0, 1.0]),
    (lambda x: graphc.is_nonzero(x[0]), True), (lambda x: graphc.is_storage(x.storage()), True),
    (lambda x: repr(x.layout), "graphc.strided"), (lambda x: x.shape * 2, (3, 3)), (lambda x: f"{x[1]:.2f}", "2.00"),
    (lambda x: graphc.Size([graphc.tensor(2), 3]), (2, 3)), (lambda x: x.is_pinned() or x.is_sparse or x.is_meta, False),
])  # fmt: skip
def test_questions(ask: Any, expected: Any) -> None:
    assert ask(graphc.tensor([1.0, 2.0, 3.0])) == expected


def test_questions_that_have_no_answer() -> None:
    x = graphc.ones(2)
    with pytest.raises(RuntimeError, match="only supports Tensor or scalar"):
        _ = "a" in x
    with pytest.raises(TypeError, match="takes an iterable of 'int'"):
        graphc.Size([1.5])
    with pytest.raises(RuntimeError, match="ambiguous"):
        graphc.is_nonzero(x)
    with pytest.raises(RuntimeError, match="accelerator"):
        x.pin_memory()
