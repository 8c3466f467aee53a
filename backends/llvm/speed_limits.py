"""Loops that do nothing but what the CPU is fastest at: what measured speeds are compared with."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

from graphc.backends.llvm.builder import Module, vector
from graphc.backends.llvm.jit import NativeModule, compile_module
from graphc.backends.llvm.target import Target

_CHAINS = 12
"""Multiply-adds that do not wait for each other: enough for two units with a latency of five cycles."""
_COPIED = 4
"""Vectors that a step of the copying loop moves."""
_COPIES = {"copy": "", "copy_past_caches": ", !nontemporal !{i32 1}"}
"""How they store."""


def multiply_adds() -> tuple[Callable[[int], float], int]:
    """A function of a number of steps that multiplies and adds float32 numbers in registers, and how many floating-point
    operations a step is. Calls release the GIL."""
    target = Target.host()
    operations = 2 if target.has_fma else 1
    return _module().function("multiply_adds", ctypes.c_float, ctypes.c_int64), operations * _CHAINS * target.vector_bytes // 4


def copies() -> tuple[list[Callable[[int, int, int, int], None]], int]:
    """Functions of the addresses of a destination and a source, a number of bytes and how often they are copied, one of which
    writes past the caches; and what the number of bytes has to be a multiple of. Calls release the GIL."""
    arguments = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    functions = [_module().function(name, None, *arguments) for name in _COPIES]
    return functions, _COPIED * Target.host().vector_bytes


@functools.cache
def _module() -> NativeModule:
    return compile_module(str(_render(Target.host())), Target.host())


def _render(target: Target) -> Module:
    module = Module("graphc speed limits", target.has_fma, target.vector_bytes)
    lanes = target.vector_bytes // 4
    type_ = vector("float", lanes)
    attributes = f'nounwind "prefer-vector-width"="{8 * target.vector_bytes}"'
    f = module.function("multiply_adds", [("i64", "steps")], "float", attributes=attributes)
    slots = [f.slot(type_) for _ in range(_CHAINS)]
    for slot in slots:
        f.do(f"store {type_} splat (float 1.0), ptr {slot}")
    with f.loop("0", "%steps"):
        for number, slot in enumerate(slots):
            value = f.value(f"load {type_}, ptr {slot}")
            if target.has_fma:
                value = f.intrinsic("llvm.fma", type_, value, "splat (float 0.5)", "splat (float 0.25)")
            else:  # half of the instructions multiply, half of them add, as in products
                operation = "fmul" if number % 2 else "fadd"
                value = f.value(f"{operation} {type_} {value}, splat (float 1.0)")
            f.do(f"store {type_} {value}, ptr {slot}")
    total = f.value(f"load {type_}, ptr {slots[0]}")
    for slot in slots[1:]:
        total = f.value(f"fadd {type_} {total}, {f.value(f'load {type_}, ptr {slot}')}")
    f.do(f"ret float {f.value(f'extractelement {type_} {total}, i64 0')}")

    for name, how in _COPIES.items():
        _render_copy(module, name, how, type_, attributes)
    return module


def _render_copy(module: Module, name: str, how: str, type_: str, attributes: str) -> None:
    parameters = [("ptr noalias", "to"), ("ptr noalias", "from"), ("i64", "bytes"), ("i64", "times")]
    f = module.function(name, parameters, attributes=attributes)
    with f.loop("0", "%times"):
        with f.loop("0", "%bytes", str(_COPIED * module.vector_bytes)) as i:
            values = []
            for number in range(_COPIED):
                at = f.value(f"add i64 {i}, {number * module.vector_bytes}")
                place = f.value(f"getelementptr i8, ptr %from, i64 {at}")
                values.append((at, f.value(f"load {type_}, ptr {place}, align 64")))
            for at, value in values:
                f.do(f"store {type_} {value}, ptr {f.value(f'getelementptr i8, ptr %to, i64 {at}')}, align 64{how}")
        # or the copies but for the last would be left out
        f.do('call void asm sideeffect "", "~{memory}"()')
    f.do("ret void")
