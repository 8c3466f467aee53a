"""Optimizers: their rules step by step, groups, state and its round trip."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import graphc
from graphc import optim

GRADS = [np.array([0.5, -2.0]), np.array([1.5, 0.25]), np.array([-1.0, 0.125]), np.array([0.0, 3.0])]
START = np.array([1.0, -1.0])


def run(make, grads=GRADS) -> np.ndarray:
    p = graphc.nn.Parameter(graphc.from_numpy(START.copy()))
    opt = make([p])
    for g in grads:
        p.grad = graphc.from_numpy(g.copy())
        opt.step()
    return p.detach().numpy()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("dampening", [0.0, 0.5])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("maximize", [False, True])
def test_sgd(momentum: float, dampening: float, decay: float, nesterov: bool, maximize: bool) -> None:
    if nesterov and (not momentum or dampening):
        with pytest.raises(ValueError, match="Nesterov"):
            optim.SGD([graphc.nn.Parameter(graphc.ones(1))], momentum=momentum, dampening=dampening, nesterov=True)
        return
    theta, v = START.copy(), None
    for g in GRADS:
        g = (-g if maximize else g) + decay * theta
        if momentum:
            v = g if v is None else momentum * v + (1 - dampening) * g
            g = g + momentum * v if nesterov else v
        theta = theta - 0.1 * g
    got = run(lambda ps: optim.SGD(ps, 0.1, momentum, dampening, decay, nesterov, maximize=maximize))
    np.testing.assert_allclose(got, theta, rtol=1e-12)


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("cls", [optim.Adam, optim.AdamW])
@pytest.mark.parametrize("maximize", [False, True])
def test_adam(amsgrad: bool, decay: float, cls: type, maximize: bool) -> None:
    theta, m, v, top = START.copy(), 0.0, 0.0, 0.0
    for t, g in enumerate(GRADS, 1):
        g = -g if maximize else g
        if cls is optim.AdamW:
            theta = theta * (1 - 0.05 * decay)
        else:
            g = g + decay * theta
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g
        top = np.maximum(top, v)
        root = np.sqrt((top if amsgrad else v) / (1 - 0.95**t)) + 1e-6
        theta = theta - 0.05 * m / (1 - 0.8**t) / root
    got = run(lambda ps: cls(ps, 0.05, (0.8, 0.95), 1e-6, decay, amsgrad, maximize=maximize))
    np.testing.assert_allclose(got, theta, rtol=1e-12)


@pytest.mark.parametrize("make", [lambda ps: optim.SGD(ps, 0.01, momentum=0.9), lambda ps: optim.Adam(ps, 0.1, amsgrad=True)])
def test_training_resumes_from_a_saved_state(make) -> None:
    p = graphc.nn.Parameter(graphc.tensor([3.0, -2.0]))
    opt = make([p])

    def step(p, opt) -> None:
        opt.zero_grad()
        ((p - 1) ** 4).sum().backward()
        opt.step()

    for _ in range(3):
        step(p, opt)
    q = graphc.nn.Parameter(p.detach().clone())
    other = make([q])
    state = copy.deepcopy(opt.state_dict())
    other.load_state_dict(state)
    for _ in range(3):
        step(p, opt)
        step(q, other)
    assert p.tolist() == q.tolist() and p.isfinite().all()
    assert {k: type(v).__name__ for k, v in state["state"][0].items()}.keys() == opt.state_dict()["state"][0].keys()


RULES = {
    "SGD": {"lr": 0.02, "momentum": 0.9}, "Adam": {"lr": 0.1}, "AdamW": {"lr": 0.1}, "Adagrad": {"lr": 0.5, "lr_decay": 0.01},
    "Adadelta": {"lr": 10.0}, "RMSprop": {"lr": 0.05, "centered": True, "momentum": 0.5}, "Adamax": {"lr": 0.1},
    "NAdam": {"lr": 0.1}, "RAdam": {"lr": 0.1}, "ASGD": {"lr": 0.05, "t0": 5}, "Rprop": {"lr": 0.05}, "Adafactor": {"lr": 0.1},
}


def train(name: str, wrap) -> tuple[list[float], list[float], dict]:
    p = graphc.nn.Parameter(graphc.tensor([[3.0, -2.0], [0.5, 1.0]]))
    q = graphc.nn.Parameter(graphc.tensor([2.0]))
    opt = getattr(optim, name)([p, q], **RULES[name])

    def step() -> graphc.Tensor:
        opt.zero_grad()
        loss = ((p - 1) ** 2).sum() + (q * p.mean() - 1).pow(2).sum()
        loss.backward()
        opt.step()
        return loss

    run, losses = wrap(step), []
    for i in range(12):
        losses.append(run().item())
        opt.param_groups[0]["lr"] *= 0.9 if i % 4 == 3 else 1.0
    return losses, p.tolist(), {key: value.tolist() for key, value in opt.state[p].items()}


@pytest.mark.parametrize("name", RULES)
def test_every_rule_descends_alike_when_it_is_compiled(name: str) -> None:
    """The state is made in the first call, and a rate that changes between calls needs no other graph."""
    eager, p_eager, state_eager = train(name, lambda f: f)
    compiled, p_compiled, state_compiled = train(name, graphc.compile)
    np.testing.assert_allclose(compiled, eager, rtol=1e-5)
    np.testing.assert_allclose(p_compiled, p_eager, rtol=1e-5)
    assert state_eager.keys() == state_compiled.keys()
    for key in state_eager:
        np.testing.assert_allclose(state_compiled[key], state_eager[key], rtol=1e-4, atol=1e-6, err_msg=key)
    assert eager[-1] < eager[0]


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_lbfgs_finds_the_bottom_of_a_valley(search: str | None) -> None:
    p = graphc.nn.Parameter(graphc.tensor([-1.5, 2.0], dtype=graphc.float64))
    opt = optim.LBFGS([p], lr=1.0 if search else 0.2, max_iter=100, line_search_fn=search, history_size=10)

    def closure() -> graphc.Tensor:
        opt.zero_grad()
        loss = (1 - p[0]) ** 2 + (100 if search else 2) * (p[1] - p[0] ** 2) ** 2  # Rosenbrock's
        loss.backward()
        return loss

    for _ in range(3):
        opt.step(closure)
    np.testing.assert_allclose(p.detach().numpy(), [1, 1], atol=1e-3)


@pytest.mark.parametrize(("search", "lr", "most", "losses"), [
    ("strong_wolfe", 1, None, [24.2, 112.4481, 4.146927, 4.125587, 4.121127, 4.111816, 4.084955, 4.022282, 3.909144, 3.758912,
                               3.758912, 3.423165, 2.859759, 2.456258, 1.820463, 18.34778, 1.718208, 1.657963, 1.496865]),
    ("strong_wolfe", 1.0, 4, [24.2, 112.4481, 4.146927, 4.125587, 4.125587, 4.121127, 4.111816, 4.084955, 4.084955, 4.022282,
                              3.909144, 3.758912]),
    ("strong_wolfe", 10.0, 2, [24.2, 95681.56, 372.8192, 24.2, 2.155078e+15, 2.660574e+13, 24.2, 2.155078e+15]),
    (None, 1.0, 7, [24.2, 112.4481, 18.77376, 91.47825, 6.412443, 4.323629, 3.979498, 3.979498, 3.973124, 3.966617, 3.934371,
                    3.848658, 2.781853, 17.65945, 17.65945, 2.698257, 2.631114, 2.884763]),
])  # fmt: skip
def test_lbfgs_asks_for_the_losses_that_pytorch_asks_for(
    search: str | None, lr: float, most: int | None, losses: list[float]
) -> None:
    p = graphc.nn.Parameter(graphc.tensor([-1.2, 1.0], dtype=graphc.float64))
    opt = optim.LBFGS([p], lr=lr, max_iter=8, max_eval=most, line_search_fn=search)
    seen = []

    def closure() -> graphc.Tensor:
        opt.zero_grad()
        loss = 100 * (p[1] - p[0] ** 2) ** 2 + (1 - p[0]) ** 2
        loss.backward()
        seen.append(loss.item())
        return loss

    for _ in range(3):
        opt.step(closure)
    np.testing.assert_allclose(seen[: len(losses)], losses, rtol=1e-6)


def test_lbfgs_comes_back_from_where_the_loss_is_infinite() -> None:
    p = graphc.nn.Parameter(graphc.tensor([0.75]))
    opt = optim.LBFGS([p], lr=1e3, line_search_fn="strong_wolfe")

    def closure() -> graphc.Tensor:
        opt.zero_grad()
        loss = (p**2).exp().sum()
        loss.backward()
        return loss

    for _ in range(5):
        opt.step(closure)
    assert abs(p.item()) < 1e-3


def test_sparse_adam_leaves_unused_rows_alone() -> None:
    start = np.arange(12.0).reshape(6, 2) / 7
    p = graphc.nn.Parameter(graphc.tensor(start))
    opt = optim.SparseAdam([p], lr=0.1, betas=(0.8, 0.95))
    for rows in ([0, 2, 2], [2, 5], [1], [0, 1, 2]):
        opt.zero_grad()
        scale = graphc.tensor([[1.0, -2.0]], dtype=graphc.float64) * (1 + p.detach()[rows])
        (graphc.nn.functional.embedding(graphc.tensor(rows), p, sparse=True) * scale).square().sum().backward()
        opt.step()
    expected = [[0.0, -0.025219], [0.135268, 0.277009], [0.310498, 0.450637], *start[3:5], [1.350992, 1.493849]]  # PyTorch's
    np.testing.assert_allclose(p.detach(), expected, atol=1e-6)


@pytest.mark.parametrize(("options", "message"), [
    ({"lr": 0.0}, "learning rate"), ({"eps": 0.0}, "epsilon"), ({"betas": (1.0, 0.9)}, "beta parameter at index 0"),
])
def test_sparse_adam_refuses_options_without_sense(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optim.SparseAdam([graphc.nn.Parameter(graphc.ones(2))], **options)


def test_schedules_that_restart_and_combine() -> None:
    def rates(make, n: int) -> list[float]:
        opt = optim.SGD([graphc.nn.Parameter(graphc.ones(1))], lr=1.0, momentum=0.9)
        schedule, seen = make(opt), []
        for _ in range(n):
            seen.append(opt.param_groups[0]["lr"])
            opt.step()
            schedule.step()
        return seen

    s = optim.lr_scheduler
    warm = rates(lambda o: s.CosineAnnealingWarmRestarts(o, 2, 2), 7)
    np.testing.assert_allclose(warm, [1, 0.5, 1, (2 + 2**0.5) / 4, 0.5, (2 - 2**0.5) / 4, 1])
    both = rates(lambda o: s.SequentialLR(o, [s.ConstantLR(o, 0.5, 10), s.ExponentialLR(o, 0.1)], [2]), 4)
    np.testing.assert_allclose(both, [0.5, 0.5, 1, 0.1])
    np.testing.assert_allclose(rates(lambda o: s.CosineAnnealingLR(o, 2), 6), [1, 0.5, 0, 0.5, 1, 0.5], atol=1e-12)
    one = rates(lambda o: s.OneCycleLR(o, 1.0, total_steps=5, pct_start=0.5, anneal_strategy="linear"), 5)
    assert one.index(max(one)) in (1, 2) and one[-1] < one[0]
    with pytest.raises(ValueError, match="same optimizer"):
        rates(lambda o: s.ChainedScheduler([s.StepLR(o, 1), s.StepLR(optim.SGD([graphc.ones(1)], 0.1), 1)]), 1)


def test_groups() -> None:
    a, b, c = (graphc.nn.Parameter(graphc.zeros(1)) for _ in range(3))
    opt = optim.SGD([{"params": [a], "lr": 1.0}, {"params": b}], lr=0.5)
    opt.add_param_group({"params": [c], "lr": 0.25, "mine": "x"})
    for p in (a, b, c):
        p.grad = graphc.ones(1)
    opt.step()
    assert [p.item() for p in (a, b, c)] == [-1, -0.5, -0.25]
    assert [g["params"] for g in opt.state_dict()["param_groups"]] == [[0], [1], [2]]
    with pytest.raises(ValueError, match="more than one parameter group"):
        opt.add_param_group({"params": [a]})


@pytest.mark.parametrize("make, kind, message", [
    (lambda: optim.SGD([], 0.1), ValueError, "empty parameter list"),
    (lambda: optim.SGD(graphc.ones(1), 0.1), TypeError, "iterable"),
    (lambda: optim.SGD([1], 0.1), TypeError, "can only optimize Tensors"),
    (lambda: optim.SGD([graphc.ones(1)], -1), ValueError, "Invalid learning rate: -1"),
    (lambda: optim.Adam([graphc.ones(1)], betas=(1.0, 0.9)), ValueError, "beta parameter at index 0"),
    (lambda: optim.SGD([graphc.ones(1, requires_grad=True) * 2], 0.1), ValueError, "non-leaf"),
    (lambda: optim.SGD([x := graphc.ones(1), x], 0.1), ValueError, "duplicate"),
])
def test_misuse(make, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()


def test_closures_hooks_and_gradients_that_are_missing() -> None:
    p, q = graphc.nn.Parameter(graphc.tensor([2.0])), graphc.nn.Parameter(graphc.ones(1))
    opt, order = optim.SGD([p, q], 0.1, weight_decay=1.0), []
    opt.register_step_pre_hook(lambda o, a, k: order.append("pre"))
    opt.register_step_post_hook(lambda o, a, k: order.append("post"))

    def closure():
        assert graphc.is_grad_enabled()
        opt.zero_grad()
        loss = (p * 3).sum()
        loss.backward()
        return loss

    with graphc.no_grad():
        assert opt.step(closure).item() == 6
    assert order == ["pre", "post"]
    np.testing.assert_allclose(p.detach().numpy(), [2 - 0.1 * (3 + 2)], rtol=1e-6)
    assert q.item() == 1


def test_zeroed_gradients_are_detached() -> None:
    p = graphc.nn.Parameter(graphc.ones(1))
    (p**2).backward(create_graph=True)
    grad = p.grad
    optim.SGD([p], 0.1).zero_grad(set_to_none=False)
    assert p.grad is grad and grad.item() == 0 and grad.grad_fn is None


def test_optimizers_print_their_groups() -> None:
    text = repr(optim.SGD([graphc.nn.Parameter(graphc.ones(1))], lr=0.5))
    assert text.startswith("SGD (\nParameter Group 0\n    dampening: 0\n") and "    lr: 0.5\n" in text and text.endswith("\n)")
