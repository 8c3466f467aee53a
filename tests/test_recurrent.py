"""Recurrent layers and cells, against loops in NumPy; packed and padded sequences."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.nn.utils import rnn

Array = np.ndarray


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def reference_step(mode: str, x: Array, state: tuple[Array, ...], w: dict[str, Array]) -> tuple[Array, ...]:
    from_input = x @ w["weight_ih"].T + w.get("bias_ih", 0)
    from_state = state[0] @ w["weight_hh"].T + w.get("bias_hh", 0)
    if mode == "GRU":
        (xr, xz, xn), (hr, hz, hn) = np.split(from_input, 3, -1), np.split(from_state, 3, -1)
        z, n = sigmoid(xz + hz), np.tanh(xn + sigmoid(xr + hr) * hn)
        return ((1 - z) * n + z * state[0],)
    if mode == "LSTM":
        i, f, g, o = np.split(from_input + from_state, 4, -1)
        c = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        return (h @ w["weight_hr"].T if "weight_hr" in w else h), c
    total = from_input + from_state
    return (np.tanh(total) if mode == "RNN_TANH" else np.maximum(total, 0),)


def reference(module: nn.RNNBase, x: Array, state: tuple[Array, ...]) -> tuple[Array, list[Array]]:
    """Outputs and last states of one sequence [T, input] from states [layers * directions, hidden]."""
    weights = {name: p.detach().numpy() for name, p in module.named_parameters()}
    lasts: list[tuple[Array, ...]] = []
    for layer in range(module.num_layers):
        outputs = []
        for suffix in (f"_l{layer}", f"_l{layer}_reverse")[: 1 + module.bidirectional]:
            w = {name[: -len(suffix)]: value for name, value in weights.items() if name.endswith(suffix)}
            now = tuple(s[len(lasts)] for s in state)
            hidden = []
            for row in x[::-1] if suffix.endswith("reverse") else x:
                now = reference_step(module.mode, row, now, w)
                hidden.append(now[0])
            outputs.append(np.stack(hidden[::-1] if suffix.endswith("reverse") else hidden))
            lasts.append(now)
        x = np.concatenate(outputs, -1)
    return x, [np.stack(s) for s in zip(*lasts)]


def make(kind: str, layers: int, bidirectional: bool, **options: object) -> nn.RNNBase:
    graphc.manual_seed(0)
    return getattr(nn, kind)(3, 4, layers, bidirectional=bidirectional, dtype=graphc.float64, **options)


def starts(module: nn.RNNBase, batch: int) -> tuple[graphc.Tensor, ...]:
    rows = module.num_layers * (1 + module.bidirectional)
    sizes = [module.proj_size or module.hidden_size, module.hidden_size][: 1 + (module.mode == "LSTM")]
    return tuple(graphc.randn(rows, batch, size, dtype=graphc.float64) for size in sizes)


CASES = [(kind, layers, two, options) for kind, layers, two in itertools.product(("RNN", "LSTM", "GRU"), (1, 2), (False, True))
         for options in ({}, {"bias": False})]
CASES += [("RNN", 2, True, {"nonlinearity": "relu"}), ("LSTM", 2, True, {"proj_size": 2}), ("LSTM", 1, False, {"proj_size": 3})]


@pytest.mark.parametrize("kind, layers, two, options", CASES)
def test_layers_follow_the_recurrence(kind: str, layers: int, two: bool, options: dict[str, object]) -> None:
    module = make(kind, layers, two, **options)
    x, state = graphc.randn(5, 2, 3, dtype=graphc.float64), starts(module, 2)
    out, last = module(x, state if kind == "LSTM" else state[0])
    last = last if kind == "LSTM" else (last,)
    for n in range(2):
        wanted, wanted_last = reference(module, x.numpy()[:, n], tuple(s.numpy()[:, n] for s in state))
        np.testing.assert_allclose(out.detach().numpy()[:, n], wanted, rtol=1e-10, atol=1e-12)
        for got, want in zip(last, wanted_last):
            np.testing.assert_allclose(got.detach().numpy()[:, n], want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_batch_first_no_batch_and_zero_states(kind: str) -> None:
    module = make(kind, 2, True, batch_first=True)
    x = graphc.randn(2, 5, 3, dtype=graphc.float64)
    out, last = module(x)
    assert tuple(out.shape) == (2, 5, 8)
    alone, alone_last = module(x[1])
    np.testing.assert_allclose(alone.detach().numpy(), out[1].detach().numpy(), rtol=1e-12)
    h, alone_h = (last[0], alone_last[0]) if kind == "LSTM" else (last, alone_last)
    assert tuple(h.shape) == (4, 2, 4) and tuple(alone_h.shape) == (4, 4)
    np.testing.assert_allclose(alone_h.detach().numpy(), h[:, 1].detach().numpy(), rtol=1e-12)
    zeros = starts(module, 2)
    for s in zeros:
        s.zero_()
    again = module(x, zeros if kind == "LSTM" else zeros[0])[0]
    np.testing.assert_allclose(again.detach().numpy(), out.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("enforce_sorted", [True, False])
def test_packed_sequences_are_run_one_by_one(kind: str, enforce_sorted: bool) -> None:
    module = make(kind, 2, True)
    lengths = [5, 3, 3, 1] if enforce_sorted else [3, 1, 5, 3]
    x, state = graphc.randn(5, 4, 3, dtype=graphc.float64), starts(module, 4)
    packed = rnn.pack_padded_sequence(x, graphc.tensor(lengths), enforce_sorted=enforce_sorted)
    out, last = module(packed, state if kind == "LSTM" else state[0])
    padded, got_lengths = rnn.pad_packed_sequence(out)
    assert got_lengths.tolist() == lengths
    last = last if kind == "LSTM" else (last,)
    for n, length in enumerate(lengths):
        wanted, wanted_last = reference(module, x.numpy()[:length, n], tuple(s.numpy()[:, n] for s in state))
        np.testing.assert_allclose(padded.detach().numpy()[:length, n], wanted, rtol=1e-10, atol=1e-12)
        assert not padded.detach().numpy()[length:, n].any()
        for got, want in zip(last, wanted_last):
            np.testing.assert_allclose(got.detach().numpy()[:, n], want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind, states", [("RNNCell", 1), ("LSTMCell", 2), ("GRUCell", 1)])
def test_cells(kind: str, states: int) -> None:
    cell = getattr(nn, kind)(3, 4, dtype=graphc.float64)
    x = graphc.randn(2, 3, dtype=graphc.float64)
    state = tuple(graphc.randn(2, 4, dtype=graphc.float64) for _ in range(states))
    got = cell(x, state if states == 2 else state[0])
    got = got if states == 2 else (got,)
    weights = {name: p.detach().numpy() for name, p in cell.named_parameters()}
    mode = {"RNNCell": "RNN_TANH", "LSTMCell": "LSTM", "GRUCell": "GRU"}[kind]
    for a, b in zip(got, reference_step(mode, x.numpy(), tuple(s.numpy() for s in state), weights)):
        np.testing.assert_allclose(a.detach().numpy(), b, rtol=1e-10)
    one = cell(x[0], (state[0][0], state[1][0]) if states == 2 else state[0][0])
    np.testing.assert_allclose((one[0] if states == 2 else one).detach().numpy(), got[0][0].detach().numpy(), rtol=1e-12)
    from_zeros = cell(x)
    assert tuple((from_zeros[0] if states == 2 else from_zeros).shape) == (2, 4)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_gradients_are_the_slopes(kind: str) -> None:
    module = make(kind, 1, True)
    x = graphc.randn(3, 2, 3, dtype=graphc.float64)

    def loss() -> graphc.Tensor:
        out, last = module(x)
        return (out * out).sum() + (last[1] if kind == "LSTM" else last).sum()

    loss().backward()
    for p in module.parameters():
        flat, grad = p.detach().view(-1), p.grad.view(-1)
        for i in (0, p.numel() - 1):
            before = flat[i].item()
            values = []
            for h in (1e-6, -1e-6):
                flat[i] = before + h
                values.append(loss().item())
            flat[i] = before
            assert (values[0] - values[1]) / 2e-6 == pytest.approx(grad[i].item(), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_compiled_training_steps_agree_with_eager_ones(kind: str) -> None:
    losses = []
    for wrap in (lambda f: f, graphc.compile):
        module = make(kind, 2, True)
        optimizer = graphc.optim.SGD(module.parameters(), 0.01)
        x = graphc.ones(4, 2, 3, dtype=graphc.float64)

        def step(module: nn.RNNBase = module, optimizer: graphc.optim.SGD = optimizer, x: graphc.Tensor = x) -> graphc.Tensor:
            optimizer.zero_grad()
            loss = module(x)[0].pow(2).sum()
            loss.backward()
            optimizer.step()
            return loss

        run = wrap(step)
        losses.append([run().item() for _ in range(4)])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-9)
    assert losses[0][-1] < losses[0][0]


def test_dropout_lies_between_the_layers_in_training() -> None:
    module = make("GRU", 2, False, dropout=1.0)
    x = graphc.randn(3, 2, 3, dtype=graphc.float64)
    out = module(x)[0]
    silent = make("GRU", 2, False)
    with graphc.no_grad():
        silent.weight_ih_l1.zero_()  # the second layer hears nothing of the first
    np.testing.assert_allclose(out.detach().numpy(), silent(x)[0].detach().numpy(), rtol=1e-12)
    module.eval()
    assert not np.allclose(module(x)[0].detach().numpy(), out.detach().numpy())


def test_names_shapes_and_printing() -> None:
    module = nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2)
    assert [(n, tuple(p.shape)) for n, p in list(module.named_parameters())[:5]] == [
        ("weight_ih_l0", (16, 3)), ("weight_hh_l0", (16, 2)), ("bias_ih_l0", (16,)), ("bias_hh_l0", (16,)),
        ("weight_hr_l0", (2, 4))]
    assert list(module.state_dict())[-1] == "weight_hr_l1_reverse" and tuple(module.weight_ih_l1.shape) == (16, 4)
    assert [len(w) for w in module.all_weights] == [5, 5, 5, 5] and module.all_weights[0][1] is module.weight_hh_l0
    assert all(abs(p).max().item() <= 0.5 for p in module.parameters())
    with pytest.warns(UserWarning, match="num_layers greater than 1"):
        assert repr(nn.GRU(3, 4, bias=False, dropout=0.5)) == "GRU(3, 4, bias=False, dropout=0.5)"
    assert repr(module) == "LSTM(3, 4, proj_size=2, num_layers=2, bidirectional=True)"
    assert repr(nn.RNNCell(3, 4, nonlinearity="relu")) == "RNNCell(3, 4, nonlinearity=relu)"


ONES = graphc.ones


@pytest.mark.parametrize("call, kind, message", [
    (lambda: nn.LSTM(3, 4)(ONES(2, 2, 2, 3)), ValueError, "Expected input to be 2D or 3D, got 4D"),
    (lambda: nn.LSTM(3, 4)(ONES(2, 2, 5)), RuntimeError, "Expected 3, got 5"),
    (lambda: nn.LSTM(3, 4)(ONES(2, 2, 3), (ONES(1, 3, 4), ONES(1, 2, 4))), RuntimeError, r"hidden\[0\] size \(1, 2, 4\)"),
    (lambda: nn.GRU(3, 4)(ONES(2, 3), ONES(1, 3, 4)), RuntimeError, "hx should also be 2-D but got 3-D tensor"),
    (lambda: nn.GRU(3, 4)(ONES(0, 2, 3)), RuntimeError, "sequence length to be larger than 0"),
    (lambda: nn.GRU(3, 4)(ONES(1, 2, 3).double()), ValueError, "input dtype"),
    (lambda: nn.GRU(3, 4, proj_size=2), ValueError, "only supported for LSTM"),
    (lambda: nn.LSTM(3, 4, proj_size=4), ValueError, "smaller than hidden_size"),
    (lambda: nn.RNN(3, 4, nonlinearity="x"), ValueError, "Unknown nonlinearity 'x'"),
    (lambda: nn.GRU(3, 0), ValueError, "hidden_size must be greater than zero"),
    (lambda: nn.GRU(3, 4.5), TypeError, "hidden_size should be of type int"),
    (lambda: nn.GRU(3, 4, dropout=1.5), ValueError, "number in range"),
    (lambda: nn.LSTMCell(3, 4)(ONES(2, 2)), RuntimeError, "got 2 expected 3"),
    (lambda: nn.GRUCell(3, 4)(ONES(2, 3), ONES(3, 4)), RuntimeError, "hidden0 batch size 3"),
])
def test_misuse(call, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


# Sequences


def test_packing_keeps_step_after_step() -> None:
    a, b, c = (graphc.arange(n, dtype=graphc.float32) + 10 * n for n in (3, 2, 1))
    packed = rnn.pack_sequence([a, b, c])
    assert packed.data.tolist() == [30, 20, 10, 31, 21, 32] and packed.batch_sizes.tolist() == [3, 2, 1]
    assert packed.sorted_indices is None
    loose = rnn.pack_sequence([c, a, b], enforce_sorted=False)
    assert loose.data.tolist() == packed.data.tolist() and loose.sorted_indices.tolist() == [1, 2, 0]
    assert loose.unsorted_indices.tolist() == [2, 0, 1]
    for got, want in zip(rnn.unpack_sequence(loose), (c, a, b)):
        assert got.tolist() == want.tolist()
    padded, lengths = rnn.pad_packed_sequence(loose, batch_first=True, padding_value=-1.0, total_length=4)
    assert padded.tolist() == [[10, -1, -1, -1], [30, 31, 32, -1], [20, 21, -1, -1]] and lengths.tolist() == [1, 3, 2]


@pytest.mark.parametrize("enforce_sorted", [True, False])
def test_packing_compiles_where_the_lengths_are_known(enforce_sorted: bool) -> None:
    module, x = make("LSTM", 1, True), graphc.randn(4, 3, 3, dtype=graphc.float64)
    lengths = [4, 3, 1] if enforce_sorted else [1, 4, 3]

    def run(x: graphc.Tensor) -> tuple[graphc.Tensor, graphc.Tensor]:
        out, (h, _) = module(rnn.pack_padded_sequence(x, lengths, enforce_sorted=enforce_sorted))
        return rnn.pad_packed_sequence(out)[0], h

    for got, want in zip(graphc.compile(run)(x), run(x)):
        np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), rtol=1e-10)


def test_padding() -> None:
    rows = [graphc.ones(2, 2), graphc.ones(1, 2) * 2]
    assert rnn.pad_sequence(rows, batch_first=True).tolist() == [[[1, 1], [1, 1]], [[2, 2], [0, 0]]]
    assert rnn.pad_sequence(rows, padding_value=7, padding_side="left")[:, 1].tolist() == [[7, 7], [2, 2]]
    with pytest.raises(RuntimeError, match="empty list"):
        rnn.pad_sequence([])


@pytest.mark.parametrize("lengths, message", [
    ([2, 3], "sorted in decreasing order"), ([3, 0], "greater than 0"), ([3, 2, 1], "batch_size=2"), ([4, 2], "exceeds"),
])
def test_lengths_that_do_not_fit(lengths: list[int], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        rnn.pack_padded_sequence(graphc.ones(3, 2, 4), lengths)
