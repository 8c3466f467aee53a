"""Arrays that begin on a line of the cache, and of which large ones use memory again.

What the C library gives begins anywhere at a multiple of 16 bytes. Then each vector of 64 bytes is a part of two lines, and
writing it takes twice as long.

Memory that comes fresh from the system is paid for page by page as it is first touched, which takes longer than most
computations on it; and beyond some size (32 MB with glibc) it goes back to the system whenever it is freed. So the blocks
of large results are kept when their arrays go, and given to the next arrays of their size.

The arrays are ordinary ones that own their data: NumPy lets each array say how its memory is to be freed, by a capsule
that holds a `PyDataMem_Handler`. All of this runs with the GIL held.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

from graphc import garbage
from graphc.backends.llvm import objects
from graphc.backends.llvm.builder import Function, Module
from graphc.backends.llvm.jit import NativeModule, compile_module
from graphc.backends.llvm.target import Target

SMALLEST = 1 << 12
"""Bytes from which on it matters where an array begins."""
KEPT = 1 << 20
"""Bytes from which on an array's memory is worth keeping."""
MOST_BYTES = 256 << 20
"""How much memory is kept at most for arrays to come, but for a block that is larger: that one is kept alone."""
LARGEST = 1 << 30
"""Bytes of the largest block that is kept."""
_MOST_BLOCKS = 16

# Those that are kept begin on a page: loads and stores of several arrays at the same index then never look to the CPU as if a
# load needed what an earlier store, at a multiple of 4096 bytes, has not yet brought to memory.
_PAGE = 4096
_LINE = 64
_RAW, _SIZE = -8, -16  # before a block stand the address that the system gave, and the block's size


class _Allocator(ctypes.Structure):
    """PyDataMemAllocator."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("context", "malloc", "calloc", "realloc", "free"))


class _Handler(ctypes.Structure):
    """PyDataMem_Handler, version 1."""

    _fields_ = (("name", ctypes.c_char * 127), ("version", ctypes.c_uint8), ("allocator", _Allocator))


class Blocks:
    """The kept blocks of this process, and NumPy's way to them."""

    def __init__(self) -> None:
        default = _handler_at(objects.default_handler())
        if default.allocator.context:
            raise objects.Unsupported("NumPy's own memory handler has a context")
        self.native: NativeModule = compile_module(
            str(_render()),
            Target.host(),
            imports={"system_malloc": default.allocator.malloc, "system_free": default.allocator.free},
        )
        functions = {name: self.native.address(f"block_{name}") for name in ("malloc", "calloc", "realloc", "free")}
        garbage.when_giving_back(ctypes.PYFUNCTYPE(None)(self.native.address("release_blocks")))
        self._handler = _Handler(b"graphc", 1, _Allocator(None, **functions))
        new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
            objects.address_of(ctypes.pythonapi.PyCapsule_New)
        )
        self.capsule: Any = new_capsule(ctypes.addressof(self._handler), b"mem_handler", None)
        """What an array with a block has as its handler."""

    @property
    def imports(self) -> dict[str, int]:
        """The addresses of `void *block_malloc(void *, size_t)`, a block or null, and `void block_free(void *, void *,
        size_t)`; the first argument is not used."""
        return {name: self.native.address(name) for name in ("block_malloc", "block_free")}


def _handler_at(capsule: int) -> _Handler:
    handler = _Handler.from_address(objects.capsule_pointer(capsule, b"mem_handler"))
    if handler.version != 1:
        raise objects.Unsupported(f"version {handler.version} of NumPy's memory handlers is not known")
    return handler


@functools.cache
def blocks() -> Blocks:
    """The one instance; objects.Unsupported where NumPy's handlers are not as expected."""
    return Blocks()


def _render() -> Module:
    module = Module("graphc blocks")
    module.variable("blocks", f"[{_MOST_BLOCKS} x ptr] zeroinitializer")  # the one freed last comes last
    module.variable("count", "i64 0")
    module.variable("held", "i64 0")  # bytes
    for name, result, parameters in (
        ("system_malloc", "ptr", ["ptr", "i64"]), ("system_free", "void", ["ptr", "ptr", "i64"]),
        ("llvm.memmove.p0.p0.i64", "void", ["ptr", "ptr", "i64", "i1"]),
        ("llvm.memcpy.p0.p0.i64", "void", ["ptr", "ptr", "i64", "i1"]),
        ("llvm.memset.p0.i64", "void", ["ptr", "i8", "i64", "i1"]),
    ):  # fmt: skip
        module.declare(name, result, parameters)
    _render_remove(module)
    _render_malloc(module)
    _render_free(module)
    _render_calloc(module)
    _render_realloc(module)
    return module


def _at(f: Function, base: str, index: str) -> str:
    return f.value(f"getelementptr i64, ptr {base}, i64 {index}")


def _size(f: Function, block: str) -> str:
    return f.value(f"load i64, ptr {f.value(f'getelementptr i8, ptr {block}, i64 {_SIZE}')}")


def _render_remove(module: Module) -> None:
    """`remove(k)`: take kept block number k out of the list."""
    f = module.function("remove", [("i64", "k")], "ptr", linkage="internal")
    place = _at(f, "@blocks", "%k")
    block = f.value(f"load ptr, ptr {place}")
    last = f.value(f"sub i64 {f.value('load i64, ptr @count')}, 1")
    behind = f.value(f"shl i64 {f.value(f'sub i64 {last}, %k')}, 3")
    following = f.value(f"getelementptr i64, ptr {place}, i64 1")
    f.do(f"call void @llvm.memmove.p0.p0.i64(ptr {place}, ptr {following}, i64 {behind}, i1 false)")
    f.do(f"store i64 {last}, ptr @count")
    held = f.value("load i64, ptr @held")
    f.do(f"store i64 {f.value(f'sub i64 {held}, {_size(f, block)}')}, ptr @held")
    f.do(f"ret ptr {block}")


def _render_malloc(module: Module) -> None:
    """`block_malloc(context, bytes)`: where it is worth keeping, the block of that size that was freed last; or a new one."""
    begin = module.function("begin", [("i64", "size"), ("i64", "alignment")], "ptr", linkage="internal")
    total = begin.value(f"add i64 %size, {begin.value('mul i64 %alignment, 2')}")
    raw = begin.call("ptr", "@system_malloc", ("ptr", "null"), ("i64", total))
    with begin.when(begin.value(f"icmp eq ptr {raw}, null")):
        begin.do("ret ptr null")
        begin.enter(begin.label("dead"))
    start = begin.value(f"ptrtoint ptr {raw} to i64")
    room = begin.value("add i64 %alignment, 15")  # for two words before the block
    mask = begin.value("sub i64 0, %alignment")
    first = begin.value(f"and i64 {begin.value(f'add i64 {start}, {room}')}, {mask}")
    block = begin.value(f"inttoptr i64 {first} to ptr")
    begin.do(f"store ptr {raw}, ptr {begin.value(f'getelementptr i8, ptr {block}, i64 {_RAW}')}")
    begin.do(f"store i64 %size, ptr {begin.value(f'getelementptr i8, ptr {block}, i64 {_SIZE}')}")
    begin.do(f"ret ptr {block}")

    f = module.function("block_malloc", [("ptr", "context"), ("i64", "bytes")], "ptr")
    with f.when(f.value(f"icmp ult i64 %bytes, {KEPT}")):
        f.do(f"ret ptr {f.call('ptr', '@begin', ('i64', '%bytes'), ('i64', str(_LINE)))}")
        f.enter(f.label("dead"))
    size = f.value(f"and i64 {f.value(f'add i64 %bytes, {_PAGE - 1}')}, {-_PAGE}")
    count = f.value("load i64, ptr @count")
    with f.loop("0", count) as k:
        number = f.value(f"sub i64 {f.value(f'sub i64 {count}, {k}')}, 1")
        block = f.value(f"load ptr, ptr {_at(f, '@blocks', number)}")
        with f.when(f.value(f"icmp eq i64 {_size(f, block)}, {size}")):
            f.do(f"ret ptr {f.call('ptr', '@remove', ('i64', number))}")
            f.enter(f.label("dead"))
    # a new block, before which all others go if they would be too much beside it, or if there is no memory for it
    release_blocks = module.declare("release_blocks", "void", [])
    held = f.value("load i64, ptr @held")
    with f.when(f.value(f"icmp ugt i64 {f.value(f'add i64 {held}, {size}')}, {MOST_BYTES}")):
        f.call("void", release_blocks)
    made = f.call("ptr", "@begin", ("i64", size), ("i64", str(_PAGE)))
    with f.when(f.value(f"icmp ne ptr {made}, null")):
        f.do(f"ret ptr {made}")
        f.enter(f.label("dead"))
    f.call("void", release_blocks)
    f.do(f"ret ptr {f.call('ptr', '@begin', ('i64', size), ('i64', str(_PAGE)))}")


def _render_free(module: Module) -> None:
    """`block_free(context, block, bytes)`: keep the block, in place of those that were freed first where there are too many."""
    release = module.function("release", [("ptr", "block")], linkage="internal")
    raw = release.value(f"load ptr, ptr {release.value(f'getelementptr i8, ptr %block, i64 {_RAW}')}")
    size = _size(release, "%block")
    is_kept = release.value(f"icmp uge i64 {size}, {KEPT}")
    room = release.value(f"select i1 {is_kept}, i64 {2 * _PAGE}, i64 {2 * _LINE}")
    total = release.value(f"add i64 {size}, {room}")
    release.call("void", "@system_free", ("ptr", "null"), ("ptr", raw), ("i64", total))
    release.do("ret void")

    f = module.function("block_free", [("ptr", "context"), ("ptr", "block"), ("i64", "bytes")])
    with f.when(f.value("icmp eq ptr %block, null")):
        f.do("ret void")
        f.enter(f.label("dead"))
    size = _size(f, "%block")
    too_much = f.value(f"icmp ugt i64 {size}, {LARGEST}")
    with f.when(f.value(f"or i1 {too_much}, {f.value(f'icmp ult i64 {size}, {KEPT}')}")):
        f.call("void", "@release", ("ptr", "%block"))
        f.do("ret void")
        f.enter(f.label("dead"))
    with f.repeat("room") as go_on_if:
        count, held = f.value("load i64, ptr @count"), f.value("load i64, ptr @held")
        after = f.value(f"add i64 {held}, {size}")
        full = f.value(f"icmp eq i64 {count}, {_MOST_BLOCKS}")
        others = f.value(f"icmp ne i64 {count}, 0")
        crowded = f.value(f"and i1 {others}, {f.value(f'icmp ugt i64 {after}, {MOST_BYTES}')}")
        go_on_if(f.value(f"or i1 {full}, {crowded}"))
        f.call("void", "@release", ("ptr", f.call("ptr", "@remove", ("i64", "0"))))
    f.do(f"store ptr %block, ptr {_at(f, '@blocks', count)}")
    f.do(f"store i64 {f.value(f'add i64 {count}, 1')}, ptr @count")
    f.do(f"store i64 {after}, ptr @held")
    f.do("ret void")

    f = module.function("release_blocks", [])  # all that are kept
    with f.loop("0", f.value("load i64, ptr @count")):
        f.call("void", "@release", ("ptr", f.call("ptr", "@remove", ("i64", "0"))))
    f.do("ret void")


def _render_calloc(module: Module) -> None:
    f = module.function("block_calloc", [("ptr", "context"), ("i64", "count"), ("i64", "each")], "ptr")
    product = f.call("{ i64, i1 }", module.declare("llvm.umul.with.overflow.i64", "{ i64, i1 }", ["i64", "i64"]),
                     ("i64", "%count"), ("i64", "%each"))
    with f.when(f.value(f"extractvalue {{ i64, i1 }} {product}, 1")):
        f.do("ret ptr null")
        f.enter(f.label("dead"))
    total = f.value(f"extractvalue {{ i64, i1 }} {product}, 0")
    block = f.call("ptr", "@block_malloc", ("ptr", "null"), ("i64", total))
    with f.when(f.value(f"icmp ne ptr {block}, null")):
        f.do(f"call void @llvm.memset.p0.i64(ptr {block}, i8 0, i64 {total}, i1 false)")
    f.do(f"ret ptr {block}")


def _render_realloc(module: Module) -> None:
    f = module.function("block_realloc", [("ptr", "context"), ("ptr", "block"), ("i64", "bytes")], "ptr")
    made = f.call("ptr", "@block_malloc", ("ptr", "null"), ("i64", "%bytes"))
    both = f.value(f"and i1 {f.value(f'icmp ne ptr {made}, null')}, {f.value('icmp ne ptr %block, null')}")
    with f.when(both):
        size = _size(f, "%block")
        common = f.call("i64", module.declare("llvm.umin.i64", "i64", ["i64", "i64"]), ("i64", size), ("i64", "%bytes"))
        f.do(f"call void @llvm.memcpy.p0.p0.i64(ptr {made}, ptr %block, i64 {common}, i1 false)")
        f.call("void", "@block_free", ("ptr", "null"), ("ptr", "%block"), ("i64", size))
    f.do(f"ret ptr {made}")
