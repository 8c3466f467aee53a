"""Programs written for PyTorch, run as they are: `python -m graphc.as_torch`."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PROGRAMS = sorted((Path(__file__).parent / "torch_programs").glob("*.py"))


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "graphc.as_torch", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)


def output(code: str, cwd: Path, *arguments: str, **environment: str) -> str:
    """What a program prints, which must not fail."""
    script = cwd / "program.py"
    script.write_text(textwrap.dedent(code))
    command = [sys.executable, "-m", "graphc.as_torch", str(script), *arguments]
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300,
                            env={**os.environ, **environment})
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_programs_run_unchanged(program: Path, tmp_path: Path) -> None:
    """Each checks at its end that it has learnt something."""
    assert "graphc" not in program.read_text()
    result = run(program, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("passed\n")


def test_there_are_programs() -> None:
    wanted = {"mnist_cnn", "vae", "gpt", "graph_network", "reinforce", "word_lstm", "regression", "translation"}
    assert wanted <= {p.stem for p in PROGRAMS}


def test_modules_are_those_of_graphc(tmp_path: Path) -> None:
    code = """
        import torch, torch.nn as nn, torch.nn.functional as F, torch.utils.data as data, torch.multiprocessing as mp
        import torch.optim.lr_scheduler, torch.autograd, torch.backends.cudnn as cudnn
        from torch.nn.modules.linear import Linear
        from torch.utils.data.dataset import Dataset
        from torch.autograd import Variable
        from torch.cuda.amp import autocast
        from torch import *
        import graphc
        assert nn.Module is graphc.nn.Module and nn.functional is F and F.relu is graphc.nn.functional.relu
        assert Linear is graphc.nn.Linear and Dataset is graphc.data.Dataset and mp.spawn is graphc.multiprocessing.spawn
        assert torch.Tensor is graphc.Tensor and torch.utils.data is data and data.DataLoader is graphc.data.DataLoader
        assert torch.optim.lr_scheduler.StepLR is graphc.optim.lr_scheduler.StepLR and zeros is graphc.zeros
        assert torch.cuda.is_available() is False and torch.cuda.device_count() == 0 and torch.version.cuda is None
        cudnn.benchmark = True
        assert torch.backends.cudnn.benchmark and int(torch.__version__.split(".")[0]) >= 2
        assert "Linear" in dir(torch.nn) and "zeros" in dir(torch)
        from torch.cuda import amp
        with amp.autocast(enabled=False):
            assert torch.mm(torch.ones(1, 1), torch.ones(1, 1)).dtype is torch.float32
        assert not amp.GradScaler(enabled=False).is_enabled()
        from torch.nn.attention import SDPBackend, sdpa_kernel
        with sdpa_kernel([SDPBackend.MATH]):
            assert F.scaled_dot_product_attention(*[torch.ones(1, 2, 2)] * 3).shape == (1, 2, 2)
        from torch.nn.parameter import UninitializedParameter, is_lazy
        assert is_lazy(UninitializedParameter()) and not torch.GradScaler("cpu", enabled=False).is_enabled()
        torch.testing.assert_close(torch.ones(2), torch.ones(2))
        from torch.nn.utils.stateless import functional_call
        assert functional_call is graphc.func.functional_call

        @torch.compile(mode="max-autotune", dynamic=False)
        def f(x):
            return torch.sin(x) + F.relu(x)

        print(f(torch.zeros(2)).tolist())
    """
    assert output(code, tmp_path) == "[0.0, 0.0]"


def test_what_is_not_there_fails_when_it_is_used(tmp_path: Path) -> None:
    code = """
        import torch
        import torch.distributed as dist
        import torch.foo.bar as bar
        from torch import no_such_function
        from torch.nn import NoSuchLayer
        from torch.utils.tensorboard import SummaryWriter

        assert not hasattr(torch, "no_such_thing") and not hasattr(torch.nn.functional, "no_such_thing")
        assert not dist.is_available() and not isinstance(3, NoSuchLayer)

        def subclass():
            class Mine(NoSuchLayer):
                pass

        for use in (lambda: SummaryWriter("logs"), lambda: no_such_function(1), subclass, lambda: bar.something,
                    lambda: dist.init_process_group("gloo"), lambda: torch.nothing, lambda: torch.linalg.nothing(3)):
            try:
                use()
            except (AttributeError, NotImplementedError) as error:
                print(str(error).splitlines()[0])
    """
    names = ("utils.tensorboard.SummaryWriter", "no_such_function", "nn.NoSuchLayer", "foo.bar.something",
             "distributed.init_process_group", "nothing", "linalg.nothing")
    assert output(code, tmp_path).splitlines() == [f"graphc has no torch.{name}" for name in names]


def test_the_script_sees_its_own_place(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("import torch\nvalue = torch.ones(1).item()\n")
    code = """
        import os, sys, beside
        print(sys.argv[1:], __name__, os.path.basename(__file__), beside.value, os.path.basename(sys.path[0]))
    """
    expected = f"['--lr', '0.1'] __main__ program.py 1.0 {tmp_path.name}"
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(code))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}
    result = subprocess.run([sys.executable, "-m", "graphc.as_torch", script, "--lr", "0.1"], cwd=Path.home(), env=environment,
                            capture_output=True, text=True, check=False)
    assert result.stdout.strip() == expected, result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="memory is shared by passing files between processes")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_that_it_starts(method: str, tmp_path: Path) -> None:
    code = """
        import sys
        import torch
        import torch.multiprocessing as mp
        from torch.utils.data import DataLoader, Dataset

        class Squares(Dataset):
            def __len__(self):
                return 4

            def __getitem__(self, i):
                return torch.tensor(i * i)

        def work(rank, shared):
            shared[rank] += rank + 1

        if __name__ == "__main__":
            shared = torch.zeros(2).share_memory_()
            mp.start_processes(work, (shared,), nprocs=2, start_method=sys.argv[1])
            loader = DataLoader(Squares(), batch_size=2, num_workers=1, multiprocessing_context=sys.argv[1])
            print(shared.tolist(), [batch.tolist() for batch in loader])
    """
    assert output(code, tmp_path, method) == "[1.0, 2.0] [[0, 1], [4, 9]]"


def test_the_command_line_is_checked(tmp_path: Path) -> None:
    for arguments, message in (((), "usage: python -m graphc.as_torch script.py"), (("nothing.py",), "no file 'nothing.py'")):
        result = run(*arguments, cwd=tmp_path)
        assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr
    (tmp_path / "failing.py").write_text("import torch, sys\nsys.exit(3)\n")
    assert run("failing.py", cwd=tmp_path).returncode == 3
    (tmp_path / "raising.py").write_text("import torch\ntorch.ones(2) @ torch.ones(3)\n")
    assert "raising.py" in run("raising.py", cwd=tmp_path).stderr.splitlines()[-1]


def test_a_session_that_is_running() -> None:
    code = "import graphc.as_torch as a; a.install(); a.install(); import torch; print(torch.ones(2).sum().item())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "2.0"
    code = "import sys; sys.modules['torch'] = sys; import graphc.as_torch; graphc.as_torch.install()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "torch has been imported already" in result.stderr
