"""Ops on arrays of a GPU: each runs the kernels of its own graph, which are made once for each kind of call.

Operands that are Python numbers are inputs of the graph, so one kernel does for all of them. What the package's functions make
on their way without naming a device, such as a range of numbers, stands on the CPU, and is brought over here; tensors that a
user gives have to lie on one GPU, but for those without dimensions.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from inspect import CO_VARARGS, CO_VARKEYWORDS
from typing import Any

import numpy as np

import graphc.ops as ops
from graphc.backend import Executable, Layout
from graphc.compiler import VERIFIED, executable
from graphc.config import config
from graphc.errors import _INTERNAL, GraphcError
from graphc.frontend import device_arrays
from graphc.frontend.described import as_dtype
from graphc.frontend.device import gpu_of
from graphc.frontend.device_arrays import index_of, is_array, is_on_device
from graphc.frontend.device_code import DeviceCode
from graphc.frontend.native import strides_of
from graphc.frontend.tensor import Tensor
from graphc.ir import Builder, Graph, attribute_key
from graphc.numerics import divided
from graphc.op import OpDef, common_dtype, working_dtype
from graphc.types import DType, TensorType, convert, scalar_dtype

_MOST = 1 << 14
_NUMBERS = (bool, int, float, complex)
_codes: dict[Any, DeviceCode] = {}
_constants: dict[Any, Any] = {}


def backend_of(device: int, wanted: str | None = None) -> str:
    """The name of the back end for a GPU, with the numerics; GraphcError if another one is `wanted`."""
    name = f"cuda:{device}"
    numerics, wanted = divided(wanted)
    if wanted is not None and wanted.startswith(VERIFIED):
        raise GraphcError("verify=True compares numbers on the CPU, and cannot do so for those of a GPU",
                          hint="compile without it, or call the function with tensors of the CPU")
    if wanted not in (None, "cuda", name):
        raise GraphcError(f"backend={wanted!r} cannot compute on tensors of {name}", expected="backend='cuda', or none named",
                          hint="move the tensors with .cpu()")
    return f"{numerics} {name}"


def code_for(
    graph: Graph, arrays: Sequence[Any], backend: str | None = None, donated: tuple[tuple[int, int], ...] = (),
    steady: tuple[int, ...] = (), device: int | None = None,
) -> Executable:
    """A graph compiled for inputs that lie in memory as these arrays do: for the GPU that some of them are on, or the CPU."""
    if device is None:
        device = device_of(arrays, backend)
    if device < 0:
        return executable(graph, Layout(tuple(map(strides_of, arrays)), donated, steady), backend=backend)
    there = [is_on_device(array) for array in arrays]
    strides = [strides_of(array) if on_gpu else None for array, on_gpu in zip(arrays, there)]
    return code_on(device, graph, strides, donated, backend, [i for i, on_gpu in enumerate(there) if not on_gpu])


def code_on(
    device: int, graph: Graph, strides: Sequence[tuple[int, ...] | None], donated: Sequence[tuple[int, int]],
    backend: str | None = None, on_cpu: Collection[int] = (), to_cpu: Collection[int] | None = None,
) -> DeviceCode:
    """A graph compiled for a GPU. The inputs `on_cpu` are not there, and have None as their strides; neither are the outputs
    `to_cpu`: if nothing is said, those that are written over such inputs."""
    results = {j for j, i in donated if i in on_cpu} if to_cpu is None else to_cpu
    with device_arrays.on(device):
        return DeviceCode.make(graph, device, Layout(tuple(strides), tuple(donated)), on_cpu, results,
                               backend_of(device, backend))


def device_of(arrays: Iterable[Any], backend: str | None = None) -> int:
    """The GPU of some arrays, or of a back end's name if there is none among them, or -1; GraphcError if there are two."""
    found = {index_of(array) for array in arrays if is_on_device(array)}
    if len(found) > 1:
        first, second = sorted(found)[:2]
        raise several_devices(f"cuda:{first}", f"cuda:{second}")
    return found.pop() if found else gpu_of_backend(backend)


def gpu_of_backend(name: str | None) -> int:
    """The GPU that a back end computes on; -1 for those of the CPU."""
    _, kind = divided(name)
    return gpu_of(kind) if kind is not None and kind.partition(":")[0] == "cuda" else -1


def several_devices(first: str, second: str) -> GraphcError:
    """The error of tensors that do not lie together."""
    return GraphcError(f"Expected all tensors to be on the same device, but found at least two devices, {first} and {second}!",
                       hint="move one of them: x.to(y.device)")


def outputs_for(code: Executable) -> list[Any]:
    """Memory for the outputs of an executable, where it runs."""
    if isinstance(code, DeviceCode):
        return code.empty_outputs()
    return [np.empty(t.shape, t.dtype.numpy) for t in code.outputs]


# Ops


def run(record: OpDef, args: Sequence[Any], attrs: dict[str, Any]) -> Any:
    """The result of an op, an array or a tuple of several, some operand of which is on a GPU."""
    device = _common_device(args)
    arrays = _operands(record, args, device)
    code = _code(record, arrays, attrs, device)
    outputs = code.empty_outputs()
    code.run(arrays, outputs)
    several = record.kernel == "control" or len(outputs) > 1
    return tuple(outputs) if several else outputs[0]


def run_over(record: OpDef, args: Sequence[Any]) -> None:
    """Compute an elementwise op of one type over its first operand."""
    device = _common_device(args)
    arrays = _operands(record, args, device)
    _code(record, arrays, {}, device, donated=((0, 0),)).run(arrays, arrays[:1])


def copy_into(target: Any, new: Any) -> None:
    """Write an array of the same shape and dtype over another one, from wherever it is."""
    device = index_of(target)
    if not target.size:
        return
    if isinstance(target, np.ndarray):
        np.copyto(target, device_arrays.download(row_major(new)))
        return
    if isinstance(new, np.ndarray):
        if target.flags.c_contiguous:
            device_arrays.overwrite(target, new)
            return
        new = device_arrays.upload(new, device)
    elif index_of(new) != device:
        new = device_arrays.to_device(row_major(new), device)
    elif device_arrays.may_overlap(target, new):
        new = copied(new)
    _code(_COPY, [target, new], {}, device, donated=((0, 0),)).run([target, new], [target])


def copied(array: Any) -> Any:
    """A row-major copy, on the same device."""
    if isinstance(array, np.ndarray):
        return np.array(array, order="C")
    device = index_of(array)
    made = device_arrays.empty(array.shape, array.dtype, device)
    if array.size:
        _code(_COPY, [array], {}, device).run([array], [made])
    return made


def write(target: Any, array: Any) -> None:
    """Write the numbers of an array over another one of its shape and dtype, wherever the two are."""
    if isinstance(target, np.ndarray) and isinstance(array, np.ndarray):
        target[...] = array
    else:
        copy_into(target, array)


def is_writable(array: Any) -> bool:
    """Whether each element has a place of its own that may be written to."""
    if isinstance(array, np.ndarray):
        return array.flags.writeable
    return all(step or size <= 1 for size, step in zip(array.shape, array.strides))


def row_major(array: Any) -> Any:
    """The array itself if it lies in row-major order without gaps, else a copy that does."""
    return array if array.flags.c_contiguous else copied(array)


def moved(array: Any, device: int) -> Any:
    """A copy on another device, a GPU by its number or -1 for the CPU; the array itself if it is there."""
    own = index_of(array)
    if own == device:
        return array
    if own < 0:
        return device_arrays.upload(array, device)
    array = row_major(array)
    return device_arrays.download(array) if device < 0 else device_arrays.to_device(array, device)


def filled(shape: tuple[int, ...], value: np.ndarray, device: int) -> Any:
    """A new array with one number, an array without dimensions, everywhere."""
    made = device_arrays.empty(shape, value.dtype, device)
    fill(made, value)
    return made


def fill(array: Any, value: np.ndarray) -> None:
    """Write one number, an array without dimensions, to all places."""
    if array.flags.c_contiguous and not any(value.tobytes()):
        device_arrays.clear(array)
    elif array.size:
        number = constant(value, index_of(array))
        copy_into(array, device_arrays.view(number, array.shape, (0,) * array.ndim))


_COPY = ops.cast


def _code(
    record: OpDef, arrays: Sequence[Any], attrs: dict[str, Any], device: int, donated: tuple[tuple[int, int], ...] = ()
) -> DeviceCode:
    """The kernels of an op on arrays like these; of `_COPY` without attributes, those that copy the last one."""
    key = (record, device, donated, config.numerics, *[(name, attribute_key(item)) for name, item in attrs.items()],
           *[part for array in arrays for part in (array.dtype, array.shape, array.strides)])
    found = _codes.get(key)
    if found is None:
        if len(_codes) > _MOST:
            _codes.clear()
        code = code_for(_graph(record, arrays, attrs), arrays, None, donated, device=device)
        assert isinstance(code, DeviceCode)
        found = _codes[key] = code
    return found


def _graph(record: OpDef, arrays: Sequence[Any], attrs: dict[str, Any]) -> Graph:
    builder = Builder(record.name, locations=False)
    values = [builder.input(None, TensorType(as_dtype(array.dtype), array.shape)) for array in arrays]
    if record is _COPY and not attrs:
        return builder.finish([values[-1]])
    made = builder.emit(record, tuple(values), attrs)
    return builder.finish(list(made) if isinstance(made, tuple) else [made])


def _operands(record: OpDef, args: Sequence[Any], device: int) -> list[Any]:
    """All operands as arrays on the GPU; numbers in the dtype that promotion gives them."""
    plain = [arg._data if isinstance(arg, Tensor) else arg for arg in args]
    dtype: DType | None = None
    if record.elementwise and any(type(arg) in _NUMBERS for arg in plain):
        described = [TensorType(as_dtype(a.dtype), a.shape) if is_array(a) else a for a in plain]
        dtype = working_dtype(record, described, common_dtype(record, described))
    arrays = []
    for arg, name in zip(plain, [*record.operands, *record.operands[-1:] * len(plain)]):
        if is_on_device(arg):
            arrays.append(arg)
            continue
        if type(arg) in _NUMBERS:
            wanted = scalar_dtype(arg) if dtype is None or name in record.keeps else dtype
            arg = _number(arg, wanted)
        arrays.append(constant(np.asarray(arg), device))
    return arrays


def _number(value: Any, dtype: DType) -> np.ndarray:
    with np.errstate(all="ignore"):
        if dtype.is_complex:
            return convert(np.asarray(value, np.complex128), dtype)
        try:
            return np.asarray(value, dtype.numpy)
        except OverflowError:
            return np.asarray(int(value) & 0xFFFFFFFFFFFFFFFF, np.uint64).astype(dtype.numpy)


_LARGEST_CONSTANT = 1 << 10


def constant(array: np.ndarray, device: int) -> Any:
    """A copy of an array of the CPU; small ones are kept, for they come again. Nothing may write to it."""
    if array.nbytes > _LARGEST_CONSTANT:
        return device_arrays.upload(array, device)
    key = device, array.dtype, array.shape, array.tobytes()
    found = _constants.get(key)
    if found is None:
        if len(_constants) > _MOST:
            _constants.clear()
        found = _constants[key] = device_arrays.upload(array, device)
    return found


def _common_device(args: Sequence[Any]) -> int:
    """The GPU that the op runs on; GraphcError where the user's tensors lie on several devices."""
    device = device_of([arg._data for arg in args if isinstance(arg, Tensor)])
    for arg in args:
        if isinstance(arg, Tensor) and arg._data.shape and isinstance(arg._data, np.ndarray) and _is_given(arg):
            raise several_devices(f"cuda:{device}", "cpu")
    return device


def _is_given(tensor: Tensor) -> bool:
    """Whether a tensor comes from the user's code, and has not been made on the way by the function that runs: it, or what it
    is a view of, requires grad, is a parameter or a buffer, or was an argument of what the user's code has called."""
    own = [x for x in (tensor, tensor._base) if x is not None]
    if any(x.requires_grad or type(x) is not Tensor for x in own):
        return True
    names = set(map(id, own))
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_back.f_code.co_filename.startswith(_INTERNAL):
        buffers = getattr(frame.f_locals.get("self"), "_buffers", None)
        if buffers is not None and any(id(value) in names for value in buffers.values()):
            return True
        frame = frame.f_back
    code = frame.f_code
    count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & CO_VARARGS) + bool(code.co_flags & CO_VARKEYWORDS)
    return any(id(value) in names for value in _unpacked(map(frame.f_locals.get, code.co_varnames[:count])))


def _unpacked(values: Iterable[Any], depth: int = 3) -> Iterator[Any]:
    for value in values:
        yield value
        if depth and isinstance(value, (tuple, list)):
            yield from _unpacked(value, depth - 1)
        elif depth and isinstance(value, dict):
            yield from _unpacked(value.values(), depth - 1)
