"""Targets: what is known of a CPU, and what GRAPHC_CPU does."""

import dataclasses
import platform
from pathlib import Path

import pytest

from graphc.backends.llvm import target as target_module
from graphc.backends.llvm.jit import emit_assembly
from graphc.backends.llvm.target import Target
from graphc.config import override
from graphc.errors import ArgumentError, BackendError

X86 = "x86_64-unknown-linux-gnu"
on_x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="about x86-64 hosts")

ADD = """
define void @add(ptr %x) {{
  %v = load <{n} x float>, ptr %x, align 4
  %s = fadd <{n} x float> %v, %v
  store <{n} x float> %s, ptr %x, align 4
  ret void
}}
"""


@pytest.mark.parametrize(
    ("cpu", "vector_bytes", "registers", "fma", "f16c", "fp16", "bf16", "amx"),
    [
        ("x86-64", 16, 16, False, False, False, False, False),
        ("x86-64-v2", 16, 16, False, False, False, False, False),
        ("sandybridge", 16, 16, False, False, False, False, False),
        ("haswell", 32, 16, True, True, False, False, False),
        ("x86-64-v4", 64, 32, True, True, False, False, False),
        ("skylake-avx512", 64, 32, True, True, False, False, False),
        ("znver4", 64, 32, True, True, False, True, False),
        ("sapphirerapids", 64, 32, True, True, True, True, True),
    ],
)
def test_x86_cpus(
    cpu: str, vector_bytes: int, registers: int, fma: bool, f16c: bool, fp16: bool, bf16: bool, amx: bool
) -> None:
    target = Target.named(X86, cpu)
    assert target.architecture == "x86_64"
    assert (target.vector_bytes, target.vector_registers) == (vector_bytes, registers)
    assert (target.has_fma, target.has_f16c, target.has_fp16, target.has_bf16) == (fma, f16c, fp16, bf16)
    assert (target.has_amx_bf16, target.has_amx_int8) == (amx, amx)


@pytest.mark.parametrize("triple", ["aarch64-linux-gnu", "arm64-apple-darwin23"])
def test_arm_cpus(triple: str) -> None:
    least = Target.named(triple)
    assert (least.architecture, least.cpu) == ("aarch64", "generic")
    assert (least.vector_bytes, least.vector_registers) == (16, 32)
    assert (least.has_fma, least.has_f16c, least.has_fp16, least.has_bf16) == (True, True, False, False)
    assert Target.named(triple, "neoverse-v1").has_bf16
    assert Target.named(triple, "apple-m1").has_fp16


def test_an_architecture_without_a_table_is_plain() -> None:
    target = Target.named("s390x-linux-gnu")
    assert (target.cpu, target.vector_bytes, target.has_amx_bf16) == ("", 16, False)
    assert emit_assembly(ADD.format(n=4), target)


def test_an_unknown_cpu_names_the_known_ones() -> None:
    with pytest.raises(ArgumentError, match="unknown CPU 'haswel'") as caught:
        Target.named(X86, "haswel")
    assert isinstance(caught.value, ValueError)
    for name in ("x86-64", "haswell", "skylake-avx512", "native"):
        assert name in str(caught.value)
    with pytest.raises(ArgumentError, match="neoverse-n1"):
        Target.named("aarch64-linux-gnu", "haswell")


def test_an_unknown_triple_is_refused() -> None:
    with pytest.raises(BackendError, match="'moon-base'"):
        Target.named("moon-base")


def test_targets_are_hashable_values() -> None:
    one, same, other = (Target.named(X86, cpu) for cpu in ("haswell", "haswell", "znver2"))
    assert one == same
    assert hash(one) == hash(same)
    assert one.key == same.key
    assert one != other
    assert len({one.key, other.key, Target.named(X86).key, Target.named("aarch64-linux-gnu").key}) == 4
    assert dataclasses.replace(one, l2_bytes=1) == one, "cache sizes do not change what code may be used"
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.cpu = "znver2"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("cpu", "register", "wider"),
    [("x86-64", "xmm", "ymm"), ("haswell", "ymm", "zmm"), ("skylake-avx512", "zmm", None)],
)
def test_vectors_of_vector_bytes_take_one_register(cpu: str, register: str, wider: str | None) -> None:
    target = Target.named(X86, cpu)
    assembly = emit_assembly(ADD.format(n=target.vector_bytes // 4), target)
    assert assembly.count("addps") == 1
    assert register in assembly
    assert wider is None or wider not in assembly


def test_the_host_runs_its_own_code() -> None:
    host = Target.host()
    assert host.runs_here
    assert host is Target.host()
    assert host.vector_bytes in (16, 32, 64)
    assert 8 << 10 <= host.l1_bytes <= 1 << 20
    assert 64 << 10 <= host.l2_bytes <= 1 << 28


def test_code_for_elsewhere_does_not_run_here() -> None:
    assert not Target.named("aarch64-unknown-freebsd").runs_here
    assert not Target.named("x86_64-unknown-freebsd").runs_here


@on_x86
def test_the_environment_restricts_the_host() -> None:
    with override(cpu="native"):
        native = Target.host()
    with override(cpu="x86-64"):
        least = Target.host()
    assert (least.cpu, least.vector_bytes, least.has_fma) == ("x86-64", 16, False)
    assert least.triple == native.triple
    assert least.runs_here
    assert least.key != native.key
    assert (least.l1_bytes, least.l2_bytes) == (native.l1_bytes, native.l2_bytes)
    with override(cpu="native"):
        assert Target.host() == native


@on_x86
def test_an_unknown_cpu_in_the_environment_is_refused() -> None:
    with override(cpu="pentium-9000"), pytest.raises(ArgumentError, match=r"(?s)pentium-9000.*GRAPHC_CPU"):
        Target.host()


@on_x86
def test_a_cpu_beyond_this_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    features = {"sse2": True, "avx": True, "avx2": False, "avx512f": False}
    monkeypatch.setattr(target_module.llvm, "get_host_cpu_features", lambda: features)
    monkeypatch.setattr(target_module, "_host", target_module._host.__wrapped__)
    with override(cpu="haswell"), pytest.raises(BackendError, match=r"(?s)haswell also has .*avx2.*GRAPHC_CPU"):
        Target.host()
    with override(cpu="x86-64"):
        assert Target.host().features.split(",")[:2] == ["-avx2", "-avx512f"]


def test_cache_sizes_are_read_from_linux(tmp_path: Path) -> None:
    caches = [("1", "Data", "48K"), ("1", "Instruction", "32K"), ("2", "Unified", "2M"), ("3", "Unified", "480000K")]
    for index, (level, kind, size) in enumerate(caches):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(text + "\n")
    (tmp_path / "index9").mkdir()  # a sandbox that hides the files
    assert target_module._linux_caches(tmp_path) == {1: 48 << 10, 2: 2 << 20, 3: 480000 << 10}
    assert target_module._linux_caches(tmp_path / "absent") == {}
