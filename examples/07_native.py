"""Tour, 7 of 8: a model for programs in C, without Python.

    python examples/07_native.py

`native.export` writes an object file, a header and a small program that calls it. The code needs no library but, for a few
ops, libm; it runs in memory of the caller's, on as many threads at once as the caller likes. It is made for this machine, or
for another one, without a compiler; where there is a C compiler, the small program is built and run here.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

import graphc
from graphc import native, nn

graphc.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).eval()
program = graphc.export(model, (graphc.zeros(1, 4),))

with tempfile.TemporaryDirectory() as folder:
    files = native.export(program, folder)
    for path in files.paths:
        print(f"{path.name}: {path.stat().st_size} bytes")
    print("\nthe header:", files.header.read_text(), sep="\n")

    compiler = shutil.which("cc")
    if compiler is None:
        print("no C compiler here: the small program is not built")
    else:
        binary = Path(folder) / "example"
        example = str(files.examples[0])
        subprocess.run([compiler, example, str(files.object_file), "-o", str(binary), "-lm"], check=True)
        output = subprocess.run([str(binary)], check=True, capture_output=True, text=True).stdout
        print("the small program says:", output, sep="\n")

    # For other machines: the same program, with their instructions.
    for target in ("x86-64-v3", "aarch64", "macos-arm64", "wasm32"):
        made = native.export(program, Path(folder) / target, target=target)
        print(f"{target}: {made.object_file.stat().st_size} bytes")
