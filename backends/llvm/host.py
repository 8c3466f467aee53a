"""Ops that native code leaves to their own definition: it calls back into Python for them.

A program that has such ops gets one more pointer behind its constants: a number by which `host_call` finds what to run.
The symbol is the same for all programs, so that their object code can be kept.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.backends.llvm.builder import Function, literal
from graphc.backends.llvm.jit import NativeModule, compile_module
from graphc.backends.llvm.objects import address_of
from graphc.backends.llvm.target import Target
from graphc.errors import CompileError
from graphc.op import OpDef

if TYPE_CHECKING:
    from graphc.backends.llvm.context import Context
    from graphc.expression import Buffer
    from graphc.kernel import Block, Call

FAILED = -2
"""What a program returns where an op has raised an exception, which `take_error` then has."""

_OFTEN = 10_000_000
"""Nanoseconds between two looks for signals that are fewer than need be."""

_calls: weakref.WeakValueDictionary[int, HostCalls] = weakref.WeakValueDictionary()
_number = itertools.count(1).__next__


class _Raised(threading.local):
    error: BaseException | None = None


_raised = _Raised()


class HostCalls:
    """The ops of one program that are called back."""

    def __init__(self, kernels: Sequence[Call]) -> None:
        self.kernels = kernels
        self.arrays = [[_array(block) for block in (*kernel.operands, *kernel.results)] for kernel in kernels]
        self.key = _number()
        _calls[self.key] = self

    def run(self, number: int, addresses: Sequence[int]) -> None:
        """Run the op of that number on the blocks at the addresses: its operands, then its results."""
        kernel = self.kernels[number]
        arrays = [make(address) for make, address in zip(self.arrays[number], addresses, strict=True)]
        kernel.run(arrays[: len(kernel.operands)], arrays[len(kernel.operands) :])


def take_error() -> BaseException:
    """The exception by which this thread's last run has failed."""
    error, _raised.error = _raised.error, None
    # without one, a signal's handler has raised on the way into `_host_call`, where nothing can catch it
    return KeyboardInterrupt() if error is None else error


def render_call(context: Context, kernel: Call, name: str, number: int) -> None:
    """Add the kernel to the context's module as `i32 name(ptr context)`: it returns 0, or FAILED. `number` counts the
    program's calls."""
    f = context.module.function(name, [("ptr", "context")], "i32", linkage="internal")
    blocks = (*kernel.operands, *kernel.results)
    pointers = context.pointers(f, dict.fromkeys(block.buffer for block in blocks))
    if kernel.op.native is not None:
        _call_native(f, kernel, pointers)
        return
    table = f.slot(f"[{len(blocks) + 1} x ptr]")
    for i, block in enumerate(blocks):
        f.do(f"store ptr {pointers(block.buffer)}, ptr {f.value(f'getelementptr ptr, ptr {table}, i64 {i}')}")
    done = f.value(f"getelementptr ptr, ptr {table}, i64 {len(blocks)}")
    f.do(f"store ptr null, ptr {done}")
    callee = context.module.declare("host_call", "void", ["ptr", "i64", "i64", "ptr"])
    numbers = (("i64", str(number)), ("i64", str(len(blocks))))
    f.call("void", callee, ("ptr", context.host_key(f)), *numbers, ("ptr", table))
    failed = f.value(f"icmp eq ptr {f.value(f'load ptr, ptr {done}')}, null")
    f.do(f"ret i32 {f.value(f'select i1 {failed}, i32 {FAILED}, i32 0')}")


def _call_native(f: Function, kernel: Call, pointers: Callable[[Buffer], str]) -> None:
    """Call the op's own code: with its results, operands, their sizes, and attributes."""
    arguments: list[tuple[str, str]] = []
    for block in (*kernel.results, *kernel.operands):
        offset = block.offset * block.buffer.dtype.itemsize
        arguments.append(("ptr", f.value(f"getelementptr i8, ptr {pointers(block.buffer)}, i64 {offset}")))
    arguments += [("i64", str(size)) for block in kernel.operands for size in block.shape]
    for name in kernel.op.attrs:
        attribute = kernel.attrs[name]
        if isinstance(attribute, float):
            arguments.append(("double", literal(attribute, "double")))
        elif isinstance(attribute, int):
            arguments.append(("i64", str(int(attribute))))
        else:
            raise CompileError(f"{kernel.op.name}: its LLVM code cannot take the attribute {name!r}, a "
                               f"{type(attribute).__name__}", expected="numbers that are not complex")
    types = [type_ for type_, _ in arguments]
    f.call("void", f.module.declare(native_symbol(kernel.op), "void", types), *arguments)
    f.do("ret i32 0")


def native_symbol(op: OpDef) -> str:
    """What programs call the native code of an op."""
    return f"native.{op.name}"


@functools.cache
def native_code(op: OpDef, target: Target) -> NativeModule:
    """The native code of an op; it defines `kernel`."""
    assert op.native is not None
    module = compile_module(op.native, target, name=op.name)
    try:
        module.address("kernel")
    except KeyError as error:
        raise CompileError(f"{op.name}: its LLVM code has no function @kernel", got=error.args[0]) from None
    return module


def imports() -> dict[str, int]:
    """The addresses of what programs need from Python: to call ops back, and in loops, for what they keep and for signals."""
    names = ("PyMem_RawRealloc", "PyMem_RawFree", "PyGILState_Ensure", "PyGILState_Release",
             "PyErr_CheckSignals", "PyErr_Fetch", "PyErr_NormalizeException")  # fmt: skip
    addresses = {name: address_of(getattr(ctypes.pythonapi, name)) for name in names}
    return {**addresses, "host_call": host_call_address(), "poll": poll_address()}


def host_call_address() -> int:
    """The address of `void host_call(void *key, int64_t number, int64_t count, void **blocks)`, which puts something other
    than null behind the blocks when it is done."""
    address = ctypes.cast(_host_call, ctypes.c_void_p).value
    assert address is not None
    return address


@ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.POINTER(ctypes.c_size_t))
def _host_call(key: int, number: int, count: int, blocks: Any) -> None:
    try:
        _calls[key].run(number, [blocks[i] for i in range(count)])
        blocks[count] = 1  # no result: it would mean nothing where a signal's handler has raised before the `try`
    except BaseException as error:
        # it cannot pass through native code: raised again when the program has returned
        _raised.error = error


def poll_address() -> int:
    """The address of `void poll(int64_t words[6])`, which long loops call now and then, when they have looked for signals. It
    puts the number of steps up to the next call into the first word; 0 stays there where a signal's handler has raised what
    the last three words refer to: the type of the exception, the exception, the traceback."""
    address = ctypes.cast(_poll, ctypes.c_void_p).value
    assert address is not None
    return address


@ctypes.CFUNCTYPE(None, ctypes.POINTER(ctypes.c_int64))
def _poll(words: Any) -> None:
    try:
        raised = [ctypes.cast(words[k], ctypes.py_object) for k in (3, 4, 5) if words[k]]
        if raised:
            _raised.error = raised[1].value
            for reference in raised:
                ctypes.pythonapi.Py_DecRef(reference)
            return
        now, before, steps = time.monotonic_ns(), words[1], words[2]
        if before and now - before < _OFTEN:
            steps = min(16 * steps, 1 << 40)
        elif before and now - before > 10 * _OFTEN:
            steps = max(steps // 4, 1)
        words[1], words[2] = now, steps
        words[0] = steps
    except BaseException as error:
        _raised.error = error


def _array(block: Block) -> Callable[[int], np.ndarray]:
    """What makes of an address the array over the memory of a block."""
    dtype, shape = block.buffer.dtype.numpy, block.shape
    if 0 in shape:
        return lambda address: np.empty(shape, dtype)
    strides = tuple(stride * dtype.itemsize for stride in block.strides)
    reach = [(size - 1) * stride for size, stride in zip(shape, strides)]
    before, behind = -sum(min(0, n) for n in reach), sum(max(0, n) for n in reach) + dtype.itemsize
    memory: Any = ctypes.c_char * (before + behind)
    start = block.offset * dtype.itemsize - before
    return lambda address: np.ndarray(shape, dtype, memory.from_address(address + start), before, strides)
