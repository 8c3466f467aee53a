"""The JIT: text to code, kept on disk, whole whatever interrupts."""

import ctypes
import gc
import os
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from graphc.backends.llvm import jit
from graphc.backends.llvm.builder import Module
from graphc.backends.llvm.jit import compile_module, emit_assembly, emit_object
from graphc.backends.llvm.target import Target
from graphc.config import override
from graphc.disk_cache import DiskCache
from graphc.errors import CompileError

NO_CACHE = DiskCache(None, 0)
TWICE = """; doubling
@bias = internal global i64 0
@public = global i64 41
define i64 @twice(i64 %x) {
  %y = call i64 @helper(i64 %x)
  %b = load i64, ptr @bias
  %z = add i64 %y, %b
  %b.next = add i64 %b, 1000
  store i64 %b.next, ptr @bias
  ret i64 %z
}
define internal i64 @helper(i64 %x) {
  %y = add i64 %x, %x
  ret i64 %y
}
"""


def integer_function(module: jit.NativeModule, name: str):
    return module.function(name, ctypes.c_int64, ctypes.c_int64)


def large_module(functions: int) -> str:
    """A text that takes LLVM some milliseconds a function."""
    module = Module("large")
    for number in range(functions):
        f = module.function(f"f{number}", [("ptr", "x"), ("i64", "n")])
        slot = f.slot("<16 x float>")
        f.do(f"store <16 x float> zeroinitializer, ptr {slot}")
        with f.loop("0", "%n", "16") as i:
            value = f.value(f"load <16 x float>, ptr {f.value(f'getelementptr float, ptr %x, i64 {i}')}, align 4")
            for step in range(60):
                value = f.value(f"{('fadd', 'fmul', 'fsub')[step % 3]} <16 x float> {value}, {value}")
            f.do(f"store <16 x float> {value}, ptr {slot}")
        f.do(f"store <16 x float> {f.value(f'load <16 x float>, ptr {slot}')}, ptr %x, align 4")
        f.do("ret void")
    return str(module)


@pytest.mark.parametrize("kept", [False, True])
def test_compile_and_run(tmp_path: Path, kept: bool) -> None:
    cache = DiskCache(tmp_path, 1 << 20)
    if kept:
        compile_module(TWICE, Target.host(), cache=cache)
    module = compile_module(TWICE, Target.host(), cache=cache)
    twice = integer_function(module, "twice")
    assert [twice(4), twice(4), twice(-5)] == [8, 1008, 1990]
    assert ctypes.c_int64.from_address(module.address("public")).value == 41


def test_each_load_has_variables_of_its_own() -> None:
    one, two = (compile_module(TWICE, Target.host()) for _ in range(2))
    assert integer_function(one, "twice")(1) == 2
    assert integer_function(one, "twice")(1) == 1002
    assert integer_function(two, "twice")(1) == 2


def test_a_kept_module_is_not_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = DiskCache(tmp_path, 1 << 20)
    compile_module(TWICE, Target.host(), cache=cache)

    def refuse(*arguments: object) -> None:
        raise AssertionError("compiled")

    monkeypatch.setattr(jit, "generate_all", refuse)
    module = compile_module(TWICE, Target.host(), cache=cache)
    assert integer_function(module, "twice")(21) == 42
    with pytest.raises(AssertionError):
        compile_module(TWICE + "\n", Target.host(), cache=cache)
    with pytest.raises(AssertionError):
        compile_module(TWICE, Target.host(), cache=NO_CACHE)
    with override(cpu="x86-64" if Target.host().architecture == "x86_64" else "generic"):
        least = Target.host()
    if least != Target.host():
        with pytest.raises(AssertionError):
            compile_module(TWICE, least, cache=cache)


def test_a_damaged_entry_is_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = DiskCache(tmp_path, 1 << 20)
    compile_module(TWICE, Target.host(), cache=cache)
    (entry,) = (path for path in tmp_path.rglob("*") if path.is_file())
    data = bytearray(entry.read_bytes())
    data[len(data) // 2] ^= 0xFF
    entry.write_bytes(data)
    monkeypatch.setattr("graphc.disk_cache._reported", set())
    with pytest.warns(RuntimeWarning, match="damaged entry"):
        module = compile_module(TWICE, Target.host(), cache=cache)
    assert integer_function(module, "twice")(21) == 42
    assert entry.exists()


def test_code_restricted_to_a_lesser_cpu_runs() -> None:
    for cpu in ("x86-64", "haswell") if Target.host().architecture == "x86_64" else ("generic",):
        with override(cpu=cpu):
            module = compile_module(TWICE, Target.host(), cache=NO_CACHE)
        assert integer_function(module, "twice")(4) == 8


def test_imports_are_called_and_come_before_the_c_library() -> None:
    text = """
    declare i64 @ours(i64)
    declare double @cos(double)
    define i64 @f(i64 %x) {
      %y = call i64 @ours(i64 %x)
      ret i64 %y
    }
    define double @g(double %x) {
      %y = call double @cos(double %x)
      ret double %y
    }
    """
    ours = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(lambda x: x * 10)
    cosine = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(lambda x: 7.0)
    imports = {"ours": ctypes.cast(ours, ctypes.c_void_p).value}
    module = compile_module(text, Target.host(), imports=imports)
    assert integer_function(module, "f")(4) == 40
    assert module.function("g", ctypes.c_double, ctypes.c_double)(0.0) == 1.0
    imports["cos"] = ctypes.cast(cosine, ctypes.c_void_p).value
    module = compile_module(text, Target.host(), imports=imports)
    assert module.function("g", ctypes.c_double, ctypes.c_double)(0.0) == 7.0


def test_functions_of_one_module_are_imports_of_another() -> None:
    library = compile_module(TWICE, Target.host())
    text = """
    declare i64 @twice(i64)
    define i64 @fourfold(i64 %x) {
      %y = call i64 @twice(i64 %x)
      %z = add i64 %y, %y
      ret i64 %z
    }
    """
    module = compile_module(text, Target.host(), imports={"twice": library.address("twice")})
    assert integer_function(module, "fourfold")(3) == 12


def test_what_the_code_generator_calls_by_itself_is_found() -> None:
    text = """
    declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
    declare double @llvm.pow.f64(double, double)
    define void @copy(ptr %to, ptr %from, i64 %n) {
      call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %from, i64 %n, i1 false)
      ret void
    }
    define double @power(double %x) {
      %y = call double @llvm.pow.f64(double %x, double %x)
      ret double %y
    }
    """
    module = compile_module(text, Target.host())
    to, source = ctypes.create_string_buffer(9), ctypes.create_string_buffer(b"graphc..")
    module.function("copy", None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(to, source, 9)
    assert to.value == b"graphc.."
    assert module.function("power", ctypes.c_double, ctypes.c_double)(3.0) == 27.0


def test_constants_of_any_size_are_in_reach() -> None:
    numbers = ", ".join(f"i64 {n}" for n in range(100_000))
    text = f"""
    @table = private unnamed_addr constant [100000 x i64] [{numbers}]
    define i64 @at(i64 %i) {{
      %p = getelementptr i64, ptr @table, i64 %i
      %v = load i64, ptr %p
      ret i64 %v
    }}
    """
    at = compile_module(text, Target.host(), cache=NO_CACHE)
    assert integer_function(at, "at")(99_999) == 99_999


def test_vector_constants_and_all_vector_registers() -> None:
    lanes = Target.host().vector_bytes // 4
    type_ = f"<{lanes} x float>"
    ones = ", ".join(["float 1.5"] * lanes)
    loads = "\n".join(
        f"%p{i} = getelementptr {type_}, ptr %x, i64 {i}\n%v{i} = load {type_}, ptr %p{i}, align 4" for i in range(40)
    )
    stores = "\n".join(f"%s{i} = fadd {type_} %v{i}, <{ones}>\nstore {type_} %s{i}, ptr %p{39 - i}, align 4" for i in range(40))
    module = compile_module(f"define void @f(ptr %x) {{\n{loads}\n{stores}\nret void\n}}", Target.host())
    values = (ctypes.c_float * (40 * lanes))(*range(40 * lanes))
    module.function("f", None, ctypes.c_void_p)(ctypes.addressof(values))
    expected = [(39 - i // lanes) * lanes + i % lanes + 1.5 for i in range(40 * lanes)]
    assert list(values) == expected


def test_only_what_is_not_internal_has_an_address() -> None:
    module = compile_module(TWICE, Target.host())
    for name in ("helper", "bias", "absent"):
        with pytest.raises(KeyError, match=rf"doubling defines no '{name}'; it has public, twice"):
            module.address(name)
    assert repr(module) == "<NativeModule doubling: public, twice>"


def test_text_that_does_not_parse() -> None:
    text = "; demo\ndefine void @f() {\n  %x = frobnicate i32 3\n  ret void\n}"
    with pytest.raises(CompileError) as caught:
        compile_module(text, Target.host())
    assert "demo: LLVM refuses the module: expected instruction opcode" in str(caught.value)
    assert "line 3: %x = frobnicate i32 3" in str(caught.value)
    assert "at test_jit.py:" in str(caught.value)


def test_text_that_does_not_verify() -> None:
    text = """
    define i32 @f(i1 %c) {
      br i1 %c, label %a, label %b
    a:
      %x = add i32 1, 2
      br label %b
    b:
      ret i32 %x
    }
    """
    with pytest.raises(CompileError, match=r"named: LLVM refuses the module: .*dominate.*%x"):
        compile_module(text, Target.host(), name="named")
    with pytest.raises(CompileError, match="dominate"):
        emit_assembly(text, Target.host())
    gc.collect()


@pytest.mark.parametrize("kept", [False, True])
def test_undefined_symbols_are_named(tmp_path: Path, kept: bool) -> None:
    text = """
    declare void @nowhere_to_be_found()
    declare void @never_called()
    define void @f() {
      call void @nowhere_to_be_found()
      ret void
    }
    """
    cache = DiskCache(tmp_path, 1 << 20)
    if kept:
        address = compile_module(TWICE, Target.host()).address("twice")
        compile_module(text, Target.host(), cache=cache, imports={"nowhere_to_be_found": address})
    with pytest.raises(CompileError, match="undefined symbols: nowhere_to_be_found\n"):
        compile_module(text, Target.host(), cache=cache, imports={"elsewhere": 1})


def test_code_for_another_machine_is_not_loaded() -> None:
    with pytest.raises(CompileError, match=r"(?s)cannot run here.*emit_object"):
        compile_module(TWICE, Target.named("aarch64-unknown-freebsd"))


def test_debug_shows_the_text_and_the_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = DiskCache(tmp_path, 1 << 20)
    with override(debug=4):
        compile_module(TWICE, Target.host(), cache=cache)
        first = capsys.readouterr().err
        compile_module(TWICE, Target.host(), cache=cache)
        second = capsys.readouterr().err
    assert TWICE in first
    assert TWICE in second
    assert ("compiled doubling in" in first, "compiled doubling in" in second) == (True, False)
    with override(debug=0):
        compile_module(TWICE, Target.host(), cache=NO_CACHE)
    assert capsys.readouterr().err == ""


def test_compiling_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    caller, start = threading.current_thread(), threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if threading.current_thread() is not caller:  # the test runner's own threads go on
            return start(thread)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert integer_function(compile_module(TWICE, Target.host(), cache=NO_CACHE), "twice")(4) == 8
    with pytest.raises(CompileError, match="expected"):
        compile_module("nonsense", Target.host())


def sections(data: bytes) -> dict[str, bytes]:
    reader = llvm.ObjectFileRef.from_data(data)
    return {(section.name() or b"").decode(): section.data() for section in reader.sections()}


def test_object_code_for_aarch64() -> None:
    data = emit_object(TWICE, Target.named("aarch64-linux-gnu"))
    assert data[:4] == b"\x7fELF"
    assert struct.unpack_from("<HH", data, 16) == (1, 183)  # relocatable, AArch64
    found = sections(data)
    names = found[".strtab"].split(b"\0")
    assert {b"twice", b"public"} <= set(names)
    assert len(found[".text"]) % 4 == 0
    assert len(found[".text"]) > 0


@pytest.mark.parametrize(
    ("triple", "magic"),
    [
        ("x86_64-linux-gnu", b"\x7fELF"),
        ("arm64-apple-darwin23", b"\xcf\xfa\xed\xfe"),
        ("x86_64-pc-windows-msvc", b"\x64\x86"),
    ],
)
def test_object_code_for_other_systems(triple: str, magic: bytes) -> None:
    assert emit_object(TWICE, Target.named(triple)).startswith(magic)


def test_assembly() -> None:
    assert "fmla" in emit_assembly(
        """
        declare <4 x float> @llvm.fma.v4f32(<4 x float>, <4 x float>, <4 x float>)
        define <4 x float> @f(<4 x float> %a, <4 x float> %b, <4 x float> %c) {
          %r = call <4 x float> @llvm.fma.v4f32(<4 x float> %a, <4 x float> %b, <4 x float> %c)
          ret <4 x float> %r
        }
        """,
        Target.named("aarch64-linux-gnu"),
    )


def test_strict_arithmetic_is_kept() -> None:
    text = """
    define float @f(float %a, float %b, float %c) {
      %p = fmul float %a, %b
      %s = fadd float %p, %c
      ret float %s
    }
    """
    assembly = emit_assembly(text, Target.named("x86_64-linux-gnu", "haswell"))
    assert "vmulss" in assembly
    assert "vfmadd" not in assembly


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_code_is_unloaded_with_its_module() -> None:
    def mapped(address: int) -> bool:
        for line in Path("/proc/self/maps").read_text().splitlines():
            start, end = (int(number, 16) for number in line.split()[0].split("-"))
            if start <= address < end:
                return True
        return False

    module = compile_module(TWICE, Target.host())
    address = module.address("twice")
    assert mapped(address)
    del module
    gc.collect()
    assert not mapped(address)


def test_a_function_keeps_its_module() -> None:
    twice = integer_function(compile_module(TWICE, Target.host()), "twice")
    gc.collect()
    assert twice(4) == 8


def test_many_threads_compile_at_once() -> None:
    results: dict[int, int] = {}

    def work(number: int) -> None:
        for turn in range(5):
            text = f"define i64 @f(i64 %x) {{\n %y = add i64 %x, {number * 100 + turn}\n ret i64 %y\n}}"
            module = compile_module(text, Target.host(), cache=NO_CACHE)
            results[number * 100 + turn] = integer_function(module, "f")(1)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number * 100 + turn: number * 100 + turn + 1 for number in range(6) for turn in range(5)}


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to threads on this system")
def test_an_interrupt_leaves_nothing_half_done() -> None:
    text = large_module(60)
    started = time.perf_counter()
    compile_module(text, Target.host(), cache=NO_CACHE)
    whole = time.perf_counter() - started
    main = threading.main_thread().ident
    interrupted = 0
    for share in (0.02, 0.1, 0.3, 0.5, 0.7):
        timer = threading.Timer(whole * share, lambda: signal.pthread_kill(main, signal.SIGINT))
        timer.start()
        try:
            compile_module(text, Target.host(), cache=NO_CACHE)
            timer.join()
            time.sleep(0.01)
        except KeyboardInterrupt:
            interrupted += 1
    assert interrupted == 5
    assert integer_function(compile_module(TWICE, Target.host(), cache=NO_CACHE), "twice")(4) == 8
    elsewhere: list[int] = []
    thread = threading.Thread(
        target=lambda: elsewhere.append(integer_function(compile_module(TWICE, Target.host(), cache=NO_CACHE), "twice")(4))
    )
    thread.start()
    thread.join(30)
    assert elsewhere == [8]


def run_script(script: str) -> subprocess.CompletedProcess[str]:
    setup = f"""
import os, sys, threading, time
sys.path.insert(0, {os.path.dirname(__file__)!r})
from test_jit import *
"""
    return subprocess.run(
        [sys.executable, "-c", setup + textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_fork_while_another_thread_compiles() -> None:
    done = run_script(
        """
        text = large_module(20)
        going = True
        def work():
            while going:
                compile_module(text, Target.host(), cache=NO_CACHE)
        thread = threading.Thread(target=work)
        thread.start()
        for _ in range(5):
            time.sleep(0.02)
            child = os.fork()
            if child == 0:
                module = compile_module(TWICE, Target.host(), cache=NO_CACHE)
                os._exit(integer_function(module, "twice")(4) - 8)
            assert os.waitpid(child, 0)[1] == 0
        going = False
        thread.join()
        print("done")
        """
    )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


def test_a_clean_exit_after_errors() -> None:
    """LLVM's objects depend on each other: the garbage collector must not be the one to order their end."""
    done = run_script(
        """
        kept = compile_module(TWICE, Target.host(), cache=NO_CACHE)
        for text in ("define void @f() { ret i32 1 }", "define i32 @f() { ret i32 %x }", "nonsense",
                     "define i32 @f(i1 %c) {\\n br i1 %c, label %a, label %b\\na:\\n %x = add i32 1, 2\\n br label %b\\n"
                     "b:\\n ret i32 %x\\n}"):
            for _ in range(20):
                try:
                    compile_module(text, Target.host(), cache=NO_CACHE)
                except CompileError as error:
                    last = error
        gc.collect()
        print("done")
        """
    )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


def test_compiling_in_an_exit_handler() -> None:
    done = run_script(
        """
        import atexit
        atexit.register(lambda: print(integer_function(compile_module(TWICE, Target.host()), "twice")(4)))
        """
    )
    assert (done.stdout, done.returncode) == ("8\n", 0), done.stderr
