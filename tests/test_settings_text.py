"""Objects that consist of settings print them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_public_docstrings import public_names

import graphc
from graphc import data, nn
from graphc.nn.utils import prune
from graphc.optim import lr_scheduler


class Scaled(data.Dataset):
    """A dataset of a user's."""

    def __init__(self) -> None:
        self.scale, self.table, self.names, self._settings = 0.1 + 0.2, np.zeros((1000, 3)), ["a"] * 100, {}


def optimizer() -> graphc.optim.SGD:
    return graphc.optim.SGD([graphc.ones(1, requires_grad=True)], lr=0.5)


def in_sequence() -> lr_scheduler.SequentialLR:
    sgd = optimizer()
    first, second = lr_scheduler.StepLR(sgd, 2, gamma=0.5), lr_scheduler.MultiStepLR(sgd, [3, 4])
    return lr_scheduler.SequentialLR(sgd, [first, second], [2])


LOADER = data.DataLoader(data.TensorDataset(graphc.ones(2, 3), graphc.arange(2)), batch_size=2)
SHOWN: dict[str, Any] = {
    "StepLR(step_size=30, gamma=0.1, last_epoch=0, lr=[0.5])": lr_scheduler.StepLR(optimizer(), 30),
    "SequentialLR(schedulers=[StepLR(step_size=2, gamma=0.5, last_epoch=0, lr=[0.5]), MultiStepLR(milestones={3: 1, 4: 1}, "
    "gamma=0.1, last_epoch=-1, lr=[0.5])], milestones=[2], last_epoch=0, lr=[0.5])": in_sequence(),
    "LambdaLR(lr_lambdas=[<lambda>], last_epoch=0, lr=[0.333333])": lr_scheduler.LambdaLR(optimizer(), lambda epoch: 2 / 3),
    "DataLoader(dataset=TensorDataset(tensors=(float32[2, 3], int64[2])), batch_sampler=BatchSampler("
    "sampler=SequentialSampler(data_source=TensorDataset(tensors=(float32[2, 3], int64[2]))), batch_size=2, drop_last=False), "
    "num_workers=0)": LOADER,
    "RandomSampler(data_source=<range of 9>, replacement=False, generator=Generator(device='cpu'))":
        data.RandomSampler(range(9), generator=graphc.Generator()),
    "Subset(dataset={'a': 1}, indices=(0,))": data.Subset({"a": 1}, (0,)),
    "Scaled(scale=0.3, table=float64[1000, 3], names=<list of 100>)": Scaled(),
    "GradScaler(device='cpu', scale=65536.0, growth_factor=2.0, backoff_factor=0.5, growth_interval=2000, enabled=True)":
        graphc.amp.GradScaler("cpu"),
    "autocast(device_type='cpu', dtype=graphc.float16, enabled=True)": graphc.autocast("cpu", graphc.float16),
    "no_grad()": graphc.no_grad(),
    "inference_mode(mode=False)": graphc.inference_mode(False),
    "saved_tensors_hooks(pack_hook=int, unpack_hook=float)": graphc.autograd.graph.saved_tensors_hooks(int, float),
    "record_function(name='" + "a" * 57 + "...')": graphc.profiler.record_function("a" * 100),
    "LnStructured(amount=0.5, n=2, dim=1)": prune.LnStructured(0.5, 2, 1),
    "<storage of 24 bytes>": graphc.ones(2, 3).untyped_storage(),
}


@pytest.mark.parametrize("text", SHOWN)
def test_settings_are_shown(text: str) -> None:
    assert repr(SHOWN[text]) == text


def test_what_holds_itself() -> None:
    dataset = Scaled()
    dataset.names = [dataset]
    assert repr(dataset) == "Scaled(scale=0.3, table=float64[1000, 3], names=[...])"


def test_a_generator_prints_while_it_is_traced() -> None:
    generator, seen = graphc.Generator(), []

    def noise() -> graphc.Tensor:
        seen.append(repr(generator))
        return graphc.rand(2, generator=generator)

    graphc.compile(noise)()
    assert set(seen) == {"Generator(device='cpu')"}


def test_no_public_class_prints_as_an_address() -> None:
    """But for `Function`, which is never made: its methods are static."""
    classes = {value for _, _, _, value in public_names() if isinstance(value, type) and value.__module__.startswith("graphc.")}
    assert nn.Linear in classes
    assert {kind for kind in classes if kind.__repr__ is object.__repr__} == {graphc.autograd.Function}
