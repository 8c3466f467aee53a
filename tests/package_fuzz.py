"""Damages real saved files in many ways, most of them with checksums that are right again, and reads them.

`python tests/package_fuzz.py --runs 100000` reports every input whose reading ends in anything but a package or a PackageError,
or takes more than `SECONDS` of the processor's time or `MEGABYTES` of memory; `--seed` repeats one. With `--run`, what is good
is compiled and run on random numbers, in a process of its own: it may fail, but not crash.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import os
import random
import re
import resource
import signal
import struct
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from golden_packages import FOLDER

from graphc.dims import Dim
from graphc.errors import PackageError
from graphc.package import read_package
from graphc.package.archive import write_archive
from graphc.package.manifest import MANIFEST, WEIGHTS, checksum
from graphc.runtime import Function, Program

SECONDS, MEGABYTES = 1, 200
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[%@]?[\w.]+|\s+|->|.', re.DOTALL)
_WORDS = (
    "-1", "0", "1", "2", "3", "64", "2147483648", "4294967296", "9223372036854775807", "18446744073709551616", "1e400", "nan",
    "-inf", "N", "N*N", "2*N + 1", "N - 5", "size(N)", "true", "none", '"', "[", "]", "{", "}", "(", ")", ",", "=", ":", "->",
    "%0", "%x", "return", "graph", "float32", "int8", "bfloat16", "complex32", "float32[]", "float32[N]", "float32[0]",
    'dense<"AAAA">', "\x00", "\ud7ff", "é", '"where"', "where", "next", "state", "param",
)  # fmt: skip
_VALUES = (
    None, True, -1, 0, 1, 2**31, 2**63, 2**64, 10**30, 0.5, -0.0, "", "*", "x", "float32[3]", [], {}, [[]], {"tuple": []},
    {"tuple": ["*"]}, {"dict": [["a", "*"]]}, {"value": 1}, {"float": "nan"}, "../x", "\x00", "fc.weight",
)  # fmt: skip


def corpus() -> list[bytes]:
    """The saved files of all versions."""
    return [path.read_bytes() for path in sorted(FOLDER.glob("*/*.gcz"))]


def mutated(rng: random.Random, files: list[bytes]) -> bytes:
    """One of the files, damaged."""
    data = rng.choice(files)
    if rng.random() < 0.2:
        return _bytes(rng, data, rng.choice(files))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members.pop(MANIFEST))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        kind = rng.random()
        if kind < 0.6:
            name = rng.choice([name for name in members if name != WEIGHTS] or [WEIGHTS])
            members[name] = _text(rng, members[name].decode("utf-8", "replace")).encode("utf-8", "replace")
        elif kind < 0.75 and WEIGHTS in members:
            members[WEIGHTS] = _weights(rng, members[WEIGHTS])
        elif kind < 0.95:
            manifest = _json(rng, manifest)
        else:
            members = _members(rng, members)
    if isinstance(manifest, dict) and isinstance(manifest.get("checksums"), dict) and rng.random() < 0.95:
        manifest["checksums"] = {name: checksum([memoryview(content)]) for name, content in members.items()}
    out = io.BytesIO()
    content = {MANIFEST: json.dumps(manifest).encode("utf-8", "replace"), **members}
    write_archive(out, [(name, [memoryview(part)]) for name, part in content.items()])
    return out.getvalue()


def _bytes(rng: random.Random, data: bytes, other: bytes) -> bytes:
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0:
                data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
            case 1:
                data = data[:at] + data[at + rng.randint(1, 40) :]
            case 2:
                data = data[:at] + rng.randbytes(rng.randint(1, 8)) + data[at:]
            case 3:
                start = rng.randrange(len(other))
                data = data[:at] + other[start : start + rng.randint(1, 400)] + data[at:]
            case 4:
                data = data[:at] + struct.pack("<L", rng.choice((0, 1, 2**31, 2**32 - 1))) + data[at + 4 :]
    return data


def _text(rng: random.Random, text: str) -> str:
    if rng.random() < 0.2 and len(text) < 1 << 16:
        lines = text.split("\n")
        i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
        lines[i] = lines[j] if rng.random() < 0.5 else lines[i] + "\n" + lines[j]
        return "\n".join(lines)
    tokens = _TOKEN.findall(text)
    if not tokens:
        return rng.choice(_WORDS)
    i = rng.randrange(len(tokens))
    match rng.randrange(5):
        case 0:
            tokens[i] = rng.choice(tokens)
        case 1:
            tokens[i] = rng.choice(_WORDS)
        case 2:
            del tokens[i : i + rng.randint(1, 5)]
        case 3:
            tokens.insert(i, rng.choice((*_WORDS, rng.choice(tokens))))
        case 4:
            piece = tokens[i : i + rng.randint(1, 12)]
            tokens[i:i] = piece * rng.choice((1, 2, 30, 2000))
    return "".join(tokens)


def _json(rng: random.Random, value: Any) -> Any:
    """The value with something in it replaced, removed, added or doubled."""
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.1:
        return copy.deepcopy(rng.choice(_VALUES))
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = rng.choice(keys)
    other = copy.deepcopy(rng.choice((*_VALUES, value[key])))
    match rng.randrange(8):
        case 0:
            del value[key]
        case 1 if isinstance(value, dict):
            value[rng.choice(("x", "forward", "next", "tuple", "", *map(str, keys)))] = other
        case 1:
            value.insert(key, other)
        case _:
            value[key] = _json(rng, value[key])
    return value


def _weights(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.2 or len(data) < 10:
        return _bytes(rng, data, data) if data else b"\x00"
    (length,) = struct.unpack_from("<Q", data)
    try:
        header = json.loads(data[8 : 8 + length])
    except ValueError:
        return data[:-1]
    text = json.dumps(_json(rng, header)).encode("utf-8", "replace")
    return struct.pack("<Q", len(text) + rng.choice((0, 0, 0, 1, -1, 2**40))) + text + data[8 + length :]


def _members(rng: random.Random, members: dict[str, bytes]) -> dict[str, bytes]:
    name = rng.choice(list(members))
    new = rng.choice(("graphs/x.gir", "graphs/../x.gir", "/x", "", "weights.safetensors", "graphs/forward.gir"))
    kept = {key: content for key, content in members.items() if key != name or rng.random() < 0.5}
    return {**kept, new: members[name]} if rng.random() < 0.8 or not kept else kept


def read(data: bytes) -> bool:
    """Whether the bytes are a good file; anything but a PackageError where they are not comes out."""
    try:
        package = read_package(io.BytesIO(data))
    except PackageError as error:
        assert len(str(error)) < 10_000, "a message that nobody reads"
        return False
    again = io.BytesIO()
    program = Program(package.entries, package.weights, package.metadata)
    assert program.signature
    program.save(again)
    return True


def run(data: bytes) -> None:
    """Run all entries of a good file in a child process; an AssertionError where it crashes. Loops may have no end."""
    child = os.fork()
    if not child:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (20, 30))
        most = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (most, most))  # compiling takes more than reading may
        for function in Program(*_contents(data)).functions.values():
            with contextlib.suppress(Exception):
                _call(function)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert not os.WIFSIGNALED(status) or os.WTERMSIG(status) == signal.SIGXCPU, f"ended by signal {os.WTERMSIG(status)}"


def _contents(data: bytes) -> tuple[Any, ...]:
    package = read_package(io.BytesIO(data))
    return package.entries, package.weights


def _call(function: Function) -> None:
    rng = np.random.default_rng(0)
    types = [type_.bind({name: 5 for size in type_.shape if isinstance(size, Dim) for name in size.symbols()})
             for type_ in function.inputs.values()]  # fmt: skip
    if sum(value.type.nbytes for value in function.graph.values() if value.type.is_static) < 1 << 26:
        function.compute([rng.integers(0, 3, type_.shape).astype(type_.dtype.numpy) for type_ in types])


@contextmanager
def limited() -> Iterator[Callable[[], None]]:
    """Limits of memory for the process, and of time for each input, whose begin the caller tells."""

    def too_long(*_: Any) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    with open("/proc/self/statm") as file:
        room = int(file.read().split()[0]) * resource.getpagesize() + MEGABYTES * 1000**2
    resource.setrlimit(resource.RLIMIT_AS, (room, resource.getrlimit(resource.RLIMIT_AS)[1]))
    signal.signal(signal.SIGVTALRM, too_long)
    try:
        yield lambda: signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS) and None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", action="store_true", help="run what is good")
    parser.add_argument("--keep", type=Path, help="a folder for the inputs that failed")
    chosen = parser.parse_args()
    files = corpus()
    good, failures, slowest, start = 0, 0, (0.0, 0), time.perf_counter()
    for data in files:
        assert read(data)
    with limited() as begin:
        for seed in range(chosen.seed, chosen.seed + chosen.runs):
            data = mutated(random.Random(seed), files)
            begin()
            before = time.process_time()
            try:
                if read(data):
                    good += 1
                    if chosen.run:
                        run(data)
            except Exception as error:
                failures += 1
                print(f"seed {seed}: {type(error).__name__}: {str(error)[:300]}", flush=True)
                if chosen.keep is not None:
                    (chosen.keep / f"{seed}.gcz").write_bytes(data)
            slowest = max(slowest, (time.process_time() - before, seed))
            if (seed - chosen.seed + 1) % 5000 == 0:
                print(f"{seed - chosen.seed + 1} inputs, {good} good, {failures} failures, slowest {slowest[0]:.2f} s (seed "
                      f"{slowest[1]}), {time.perf_counter() - start:.0f} s", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{chosen.runs} inputs, {good} good, {failures} failures, slowest {slowest[0]:.2f} s (seed {slowest[1]}), {peak} MB")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
