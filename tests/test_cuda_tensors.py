"""Tensors on a GPU, which a stand-in for CuPy plays: its arrays refuse whatever would take them for NumPy's."""

from __future__ import annotations

import copy
import os
import pickle
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import cupy_stand_in
import numpy as np
import pytest

import graphc
from graphc import gpu, nn
from graphc.errors import BackendError, GraphcError, OutOfMemoryError
from graphc.frontend import device_arrays, device_code, eager
from graphc.types import DTYPES


@pytest.fixture(autouse=True)
def gpus() -> Iterator[Any]:
    while not eager.begun:  # native functions have to leave tensors on GPUs alone
        eager.begin()
    with cupy_stand_in.installed() as cupy:
        yield cupy


def same(here: graphc.Tensor, there: graphc.Tensor) -> None:
    """A tensor on the GPU has the numbers of one on the CPU, exactly."""
    assert there.device == graphc.device("cuda:0") and here.is_cpu
    assert (there.dtype, there.shape) == (here.dtype, here.shape)
    np.testing.assert_array_equal(np.asarray(there.tolist()), np.asarray(here.tolist()))


# To a GPU and back


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=list(DTYPES))
def test_every_dtype_goes_there_and_back(dtype: graphc.dtype) -> None:
    x = graphc.arange(12).reshape(3, 4).to(dtype)
    y = x.to("cuda")
    assert y.is_cuda and not y.is_cpu and y.get_device() == 0 and y.dtype is dtype and y.stride() == (4, 1)
    back = y.cpu()
    assert back.device == x.device and back.dtype is dtype and back.tolist() == x.tolist()
    assert y.t()[1:, ::2].contiguous().tolist() == x.t()[1:, ::2].tolist()
    assert y.to("cuda") is y and y.cuda(0) is y and x.cpu() is x and y.to("cuda", copy=True) is not y


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (7, 1, 5)])
def test_views_share_memory(shape: tuple[int, ...]) -> None:
    x = graphc.arange(max(1, int(np.prod(shape)))).float()[: int(np.prod(shape))].reshape(shape)
    y = x.clone().cuda()
    for view in (lambda t: t.reshape(-1), lambda t: t.transpose(0, -1) if t.dim() else t, lambda t: t.unsqueeze(-1),
                 lambda t: t.expand(2, *t.shape), lambda t: t.movedim(0, -1) if t.dim() else t[...], lambda t: t.flatten()):
        here, there = view(x), view(y)
        same(here, there)
        assert (here.stride() == there.stride() or not here.numel()) and here.storage_offset() == there.storage_offset()
        assert there.data_ptr() == y.data_ptr() or not y.numel()
    view = y.reshape(-1)
    view += 1
    same(x + 1, y)


def test_indexing_reads_and_writes_as_on_the_cpu() -> None:
    x = graphc.arange(24).float().reshape(2, 3, 4)
    mask, places = x > 11, graphc.tensor([1, 0, 1])
    indices: list[Any] = [0, (0, 1), (slice(None), 1), (..., slice(None, None, 2)), None, (slice(1, None), None, 0), mask,
                          places, ([1, 0], [2, 1]), (slice(None), graphc.tensor([2, 0])), (0, ..., -1), (mask[:, :, 0],)]
    for index in indices:
        y = x.cuda()
        same(x[index], y[index])
        here = x.clone()
        here[index] = 7
        y[index] = 7
        same(here, y)
    y = x.cuda()
    same(x[mask], y[mask.cuda()])
    y[1] = x[0]  # numbers of the CPU are copied over
    same(graphc.stack([x[0], x[0]]), y)
    y[:, 1:] = y[:, :-1]  # from and to memory that overlaps
    same(graphc.stack([x[0]] * 2)[:, [0, 0, 1]], y)


def test_in_place_ops_write_where_views_see_it() -> None:
    x = graphc.arange(12).float().reshape(3, 4)
    y = x.cuda()
    for change in (lambda t: t.add_(1), lambda t: t[::2].mul_(2), lambda t: t.t().sub_(t.t() * 0.5), lambda t: t[1].relu_(),
                   lambda t: t.fill_(3), lambda t: t[:, 0].zero_(), lambda t: t.copy_(graphc.ones(4)),
                   lambda t: t.add_(t[:, 1:2]), lambda t: t.clamp_(min=1.5), lambda t: t.add_(t, alpha=2),
                   lambda t: t.data.mul_(3)):
        change(x)
        change(y)
        same(x, y)
    version = y._version
    y.add_(1)
    assert y._version == version + 1
    with pytest.raises(RuntimeError, match="single memory location"):
        graphc.ones(1, device="cuda").expand(3).add_(1)


def test_native_functions_of_small_tensors_leave_gpus_alone() -> None:
    """Once a program has computed often, ops of the CPU run natively: those tell arrays apart by their class."""
    x = graphc.randn(5)
    y = x.cuda()
    for _ in range(3):
        same(x + x, y + y)
        same(x * 2.0, y * 2.0)
        same(x.abs(), y.abs())
        x.add_(1.0)
        y.add_(1.0)
        same(x, y)
        same(x[1:3], y[1:3])
        with pytest.raises(RuntimeError, match="cuda:0 and cpu"):
            x + y


def test_promotion_is_that_of_the_cpu() -> None:
    for name in ("float32", "float16", "bfloat16", "int32", "bool", "complex64"):
        x = graphc.tensor([1, 0, 1]).to(DTYPES[name])
        y = x.cuda()
        for other in (2, 2.5, True, 1j, graphc.tensor(2.0, dtype=graphc.float64), graphc.tensor([1, 2, 3])):
            there = other.cuda() if isinstance(other, graphc.Tensor) and other.dim() else other
            same(x + other, y + there)
    same(graphc.tensor([1]) / 0.0, graphc.tensor([1], device="cuda") / 0.0)
    same(graphc.tensor([0.0]) * -0.0, graphc.tensor([0.0], device="cuda") * -0.0)


def test_one_kernel_does_for_all_numbers() -> None:
    from graphc.frontend import device_ops

    y = graphc.ones(3, device="cuda")
    y * 2.0
    made = len(device_ops._codes)
    assert [(y * k)[0].item() for k in (3.0, 4.5, 5)] == [3.0, 4.5, 5.0]
    assert len([key for key in device_ops._codes if key[0].name == "mul"]) == 1 and len(device_ops._codes) <= made + 1


# Making tensors


def test_creation_on_a_device() -> None:
    made: list[Callable[..., graphc.Tensor]] = [
        lambda **d: graphc.zeros(2, 3, **d), lambda **d: graphc.ones(2, dtype=graphc.int8, **d),
        lambda **d: graphc.full((2,), -0.5, **d), lambda **d: graphc.arange(5, **d), lambda **d: graphc.eye(3, **d),
        lambda **d: graphc.linspace(0, 1, 5, **d), lambda **d: graphc.tensor([[1.0, 2.0]], **d),
        lambda **d: graphc.as_tensor(np.arange(3), **d), lambda **d: graphc.tril_indices(3, 3, **d),
        lambda **d: graphc.hann_window(4, **d), lambda **d: graphc.scalar_tensor(2.5, **d),
        lambda **d: graphc.zeros(0, **d), lambda **d: graphc.full((), True, **d), lambda **d: graphc.tensor([True, False], **d),
    ]  # fmt: skip
    for make in made:
        same(make(), make(device="cuda"))
        assert make(device="cuda:1").device == graphc.device("cuda:1")
        with graphc.device("cuda"):
            same(make(device="cpu"), make())
    x = graphc.ones(2, 3, device="cuda:1").t()
    for like in (x.new_zeros(2), graphc.zeros_like(x), graphc.rand_like(x), x.new_tensor([1]), graphc.full_like(x, 2)):
        assert like.device == x.device
    assert graphc.empty_like(x).stride() == x.stride() and graphc.zeros_like(x, device="cpu").is_cpu
    assert graphc.empty(2, 3, device="cuda").shape == (2, 3)
    assert graphc.empty_strided((2, 2), (1, 2), device="cuda").stride() == (1, 2)
    assert graphc.ones(2, device="cuda", requires_grad=True).is_leaf


def test_the_default_device() -> None:
    graphc.set_default_device("cuda:1")
    try:
        assert graphc.ones(2).device == graphc.get_default_device() == graphc.device("cuda:1")
        assert nn.Linear(2, 2).weight.device == graphc.device("cuda:1")
        with graphc.device("cpu"):
            assert graphc.randn(2).is_cpu
    finally:
        graphc.set_default_device(None)
    assert graphc.ones(2).is_cpu


def test_random_numbers_are_those_of_the_cpu() -> None:
    draws: list[Callable[[str], graphc.Tensor]] = [
        lambda d: graphc.rand(5, device=d), lambda d: graphc.randn(2, 3, device=d, dtype=graphc.float64),
        lambda d: graphc.randint(0, 9, (4,), device=d), lambda d: graphc.randperm(6, device=d),
        lambda d: graphc.empty(4, device=d).normal_(1, 2), lambda d: graphc.bernoulli(graphc.full((9,), 0.5, device=d)),
        lambda d: nn.functional.dropout(graphc.ones(20, device=d)), lambda d: graphc.rand_like(graphc.ones(3, device=d)),
        lambda d: graphc.multinomial(graphc.tensor([0.2, 0.8], device=d), 5, replacement=True),
        lambda d: graphc.poisson(graphc.full((4,), 3.0, device=d)), lambda d: graphc.normal(graphc.zeros(3, device=d), 1.0),
    ]  # fmt: skip
    for draw in draws:
        graphc.manual_seed(7)
        here = draw("cpu")
        graphc.manual_seed(7)
        same(here, draw("cuda"))
    generator = graphc.Generator("cuda").manual_seed(3)
    assert generator.device == graphc.device("cuda:0")
    same(graphc.rand(4, generator=graphc.Generator().manual_seed(3)), graphc.rand(4, generator=generator, device="cuda"))
    with pytest.raises(RuntimeError, match="device type for generator"):
        graphc.rand(3, generator=generator, device="cpu")
    state = graphc.cuda.get_rng_state()
    first = graphc.rand(3, device="cuda")
    graphc.cuda.set_rng_state(state)
    assert graphc.rand(3, device="cuda").tolist() == first.tolist()


# Devices


def test_what_is_asked_of_gpus() -> None:
    cuda = graphc.cuda
    assert cuda.is_available() and cuda.device_count() == 2 and cuda.current_device() == 0
    assert cuda.get_device_name(1) == "Stand-in" and cuda.get_device_capability() == (9, 0) and cuda.is_bf16_supported()
    assert cuda.get_device_properties("cuda:1").total_memory == 1 << 31
    with cuda.device(1):
        assert cuda.current_device() == 1 and graphc.ones(2, device="cuda").get_device() == 1
    cuda.set_device("cuda:1")
    assert graphc.ones(2).cuda().get_device() == 1
    cuda.set_device(0)
    with pytest.raises(BackendError, match="invalid device ordinal"):
        graphc.ones(2, device="cuda:2")
    with pytest.raises(ValueError, match="Expected a cuda device"):
        cuda.get_device_name("cpu")
    cuda.synchronize()
    start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
    start.record()
    with cuda.stream(cuda.Stream()) as none:
        end.record()
    end.synchronize()
    assert none is None and start.elapsed_time(end) >= 0 and end.query() and cuda.current_stream() == cuda.default_stream()
    with pytest.raises(RuntimeError, match="enable_timing"):
        cuda.Event().elapsed_time(end)


def test_events_belong_to_the_gpu_of_their_stream() -> None:
    cuda = graphc.cuda
    near, far = cuda.Stream(), cuda.Stream(1)
    event = cuda.Event()
    assert event.query()  # nothing has been recorded
    event.synchronize()
    near.wait_event(event)
    event.record(far)
    near.wait_event(event)
    near.wait_stream(far)
    far.wait_stream(near)
    far.record_event()
    assert [device for device, _ in cupy_stand_in.state.waited] == [0, 0, 1]
    default = cuda.default_stream(1)  # which CUDA tells from that of the first GPU by the current one
    default.wait_stream(near)
    cuda.Event().record(default)
    near.wait_stream(default)
    assert [(device, event.device_id) for device, event in cupy_stand_in.state.waited[3:]] == [(1, 0), (0, 1)]
    default.synchronize()
    assert cupy_stand_in.state.synchronized == 1 and default.query()
    before = cuda.current_stream(1)
    cuda.set_stream(far)
    assert cuda.current_stream(1) == far and cuda.current_stream() == cuda.default_stream() != far
    cuda.set_stream(before)
    with far:
        assert cuda.current_device() == 1 and cuda.current_stream() == far
    assert cuda.can_device_access_peer(0, 1)


def test_copies_to_another_gpu_keep_the_order_of_both_streams() -> None:
    x = graphc.arange(3.0, device="cuda:1")
    there, here = graphc.cuda.Stream(1), graphc.cuda.Stream(0)
    waits = cupy_stand_in.state.waits
    with there, here:
        y = x.to("cuda:0")
    assert y.tolist() == [0, 1, 2]
    assert cupy_stand_in.state.waits - waits == 1  # tolist's
    x.to("cuda:0")  # by the default streams
    # the copy waits for what used the memory before, and what comes after on the other GPU for the copy
    assert [(device, event.device_id) for device, event in cupy_stand_in.state.waited] == [(1, 0), (0, 1)] * 2


def test_page_locked_memory_is_kept_until_it_has_been_copied() -> None:
    """Whoever wants some next would else write to what is still to be read."""
    letters = device_code._Letters([graphc.types.TensorType(graphc.float32, (2,))], 0)
    cupy_stand_in.state.is_slow = True
    letters.sent([np.ones(2, np.float32)])
    kept, event = weakref.ref(letters._slots[-1][0]), letters._slots[-1][2]
    del letters
    gpu.look()
    assert kept() is not None
    event.done = True
    gpu.look()
    assert kept() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_forked_processes_are_told_that_there_is_no_gpu_for_them() -> None:
    x = graphc.ones(2, device="cuda")
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            said = f"{graphc.cuda.is_available()} {graphc.ones(2).sum().item()} "
            graphc.ones(2, device="cuda")
        except BackendError as error:
            said += str(error)
        finally:
            os.write(write, said.encode())
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    assert said.startswith("False 2.0 CUDA cannot be used in this process: it was forked") and "'spawn'" in said
    assert (x + 1).tolist() == [2, 2] and graphc.cuda.is_available()


def test_memory_is_counted_and_freed() -> None:
    before = graphc.cuda.memory_allocated()
    x = graphc.zeros(1000, device="cuda")
    assert graphc.cuda.memory_allocated() == before + 4000 and graphc.cuda.memory_allocated(1) == 0
    y = x[10:]
    del x
    assert graphc.cuda.memory_allocated() == before + 4000
    graphc.zeros(2, device="cuda:1")
    graphc.cuda.empty_cache()
    assert cupy_stand_in.state.emptied == cupy_stand_in.state.unplanned == [0, 1]
    del y
    assert graphc.cuda.memory_allocated() == before and graphc.cuda.max_memory_allocated() >= before + 4000
    graphc.cuda.reset_peak_memory_stats()
    assert graphc.cuda.max_memory_allocated() == before == graphc.cuda.memory_stats()["allocated_bytes.all.current"]
    graphc.cuda.empty_cache()


def test_out_of_memory_is_an_error_after_which_things_go_on() -> None:
    cupy_stand_in.state.memory = 1 << 20
    with pytest.raises(OutOfMemoryError, match="CUDA out of memory"):
        graphc.zeros(1 << 20, device="cuda")
    x = graphc.zeros(100, device="cuda")
    with pytest.raises(graphc.cuda.OutOfMemoryError):
        x.reshape(100, 1, 1).expand(100, 100, 100).contiguous()
    same(graphc.ones(100), x + 1)


def test_tensors_of_several_devices_do_not_mix() -> None:
    x, y, z = graphc.ones(3), graphc.ones(3, device="cuda:0"), graphc.ones(3, device="cuda:1")
    for wrong in (lambda: x + y, lambda: y + x, lambda: y + z, lambda: y @ x, lambda: graphc.cat([x, y]),
                  lambda: nn.Linear(3, 3)(y), lambda: graphc.where(x > 0, y, y), lambda: y.add_(x),
                  lambda: nn.functional.mse_loss(y, x[:]),
                  lambda: nn.BatchNorm1d(3, affine=False).eval()(y.reshape(1, 3))):
        with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device, but found at least two devices"):
            wrong()
    same(x + 2, y + graphc.tensor(2.0))  # what has no dimensions is a number
    assert (z.to("cuda:0") + y).tolist() == [2, 2, 2] and cupy_stand_in.state.peers == 1
    y.copy_(z * 5)
    same(x * 5, y)


def test_the_peak_of_memory_is_right_without_being_counted_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the pool goes through all memory that is in use to count it."""
    counts, count = [], cupy_stand_in.Pool.used_bytes
    monkeypatch.setattr(cupy_stand_in.Pool, "used_bytes", lambda self: counts.append(count(self)) or counts[-1])
    graphc.cuda.reset_peak_memory_stats()
    sizes = np.random.default_rng(0).integers(1, 3000, 2000).tolist()
    kept, peak = [], count(cupy_stand_in.Pool())
    for number, size in enumerate(sizes):
        kept.append(graphc.empty(size, device="cuda"))
        peak = max(peak, count(cupy_stand_in.Pool()))
        del kept[: max(0, len(kept) - 20 - number % 7)]
        if number % 500 == 499:
            assert device_arrays.peak(0) == peak
    assert len(counts) < len(sizes) / 4


def test_numbers_of_a_gpu_are_not_numpy_s() -> None:
    x = graphc.ones(2, device="cuda")
    for wrong in (x.numpy, lambda: np.asarray(x), lambda: np.add(x, 1), lambda: x.apply_(lambda v: v)):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(TypeError, match=r"can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu\(\)"):
        x.numpy()
    assert x.sum().item() == 2 and bool(x[0] > 0) and int(x[0]) == 1 and float(x[1]) == 1.0 and len(x) == 2
    assert x.numpy(force=True).tolist() == [1, 1]
    assert repr(x) == "tensor([1., 1.], device='cuda:0')" and "device='cuda:0'" in repr(x.requires_grad_())


def test_without_a_gpu_it_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy_stand_in.state, "devices", 0)
    monkeypatch.setattr(device_arrays, "_cupy", None)
    assert not graphc.cuda.is_available() and graphc.cuda.device_count() == 0
    for wrong in (lambda: graphc.ones(2).cuda(), lambda: graphc.ones(2, device="cuda"), lambda: nn.Linear(2, 2).to("cuda"),
                  graphc.cuda.current_device, lambda: graphc.cuda.Event(), lambda: graphc.Generator("cuda")):
        with pytest.raises(BackendError, match="is_available"):
            wrong()


# Sharing and saving


def test_the_interface_of_cuda_arrays() -> None:
    x = graphc.arange(6.0).reshape(2, 3).cuda().t()
    interface = x.__cuda_array_interface__
    assert interface["data"] == (x.data_ptr(), False) and interface["strides"] == (4, 12) and interface["shape"] == (3, 2)
    assert not hasattr(x.cpu(), "__cuda_array_interface__")
    with pytest.raises(GraphcError, match="requires gradient"):
        x.clone().requires_grad_().__cuda_array_interface__  # noqa: B018


def test_dlpack_shares_memory(gpus: Any) -> None:
    x = graphc.arange(6, device="cuda").float()
    capsule = x.__dlpack__()
    assert x.__dlpack_device__() == (2, 0) and capsule.data.ptr == x.data_ptr()
    y = graphc.from_dlpack(x._data)
    assert y.is_cuda and y.data_ptr() == x.data_ptr()
    y[0] = 9
    assert x[0].item() == 9


def test_copies_and_pickles_keep_the_device(tmp_path: Any) -> None:
    x = graphc.randn(3, 4, device="cuda:1").t().requires_grad_()
    for other in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert other.device == x.device and other.tolist() == x.tolist() and other.requires_grad
        assert other.data_ptr() != x.data_ptr()
    model = nn.Linear(3, 2).cuda()
    twin = copy.deepcopy(model)
    assert twin.weight.is_cuda and isinstance(twin.weight, nn.Parameter) and twin.weight.data_ptr() != model.weight.data_ptr()
    graphc.save(model.state_dict(), tmp_path / "weights")
    assert graphc.load(tmp_path / "weights")["weight"].is_cpu
    for where in ("cuda:1", graphc.device("cuda:1")):
        loaded = graphc.load(tmp_path / "weights", map_location=where)
        assert loaded["weight"].device == graphc.device("cuda:1") and loaded["weight"].tolist() == model.weight.tolist()
    model.load_state_dict(graphc.load(tmp_path / "weights"))
    assert model.weight.is_cuda


FUNCTIONS: dict[str, Callable[[graphc.Tensor], Any]] = {
    "nonzero": lambda x: x.nonzero(),
    "argwhere": lambda x: graphc.argwhere(x > 0),
    "unique": lambda x: x.round().unique(),
    "counts": lambda x: x.round().unique_consecutive(return_counts=True)[1],
    "bincount": lambda x: x.abs().int()[0].bincount(),
    "isreal": graphc.isreal,
    "matrix_power": lambda x: graphc.linalg.matrix_power(x[:, :3], 0),
    "sort": lambda x: x.sort().values,
    "lstsq": lambda x: graphc.linalg.lstsq(x, x[:, :1]).solution,
    "cumsum": lambda x: x.cumsum(1),
    "median": lambda x: x.median(),
    "topk": lambda x: x.topk(2).values,
    "quantile": lambda x: x.quantile(0.3),
    "histc": lambda x: graphc.histc(x, 4),
    "one_hot": lambda x: nn.functional.one_hot(x.abs().long()),
    "tril": lambda x: x.tril(),
    "einsum": lambda x: graphc.einsum("ij,kj->ik", x, x),
    "fft": lambda x: graphc.fft.rfft(x).abs(),
    "conv": lambda x: nn.functional.conv1d(x[None], x[:, :3, None]),
    "pool": lambda x: nn.functional.max_pool1d(x, 2),
    "interpolate": lambda x: nn.functional.interpolate(x[None], scale_factor=2.0),
    "attention": lambda x: nn.functional.scaled_dot_product_attention(x[None], x[None], x[None], is_causal=True),
    "logsumexp": lambda x: nn.functional.softmax(x, 0).logsumexp(1),
    "cdist": lambda x: graphc.cdist(x, x),
    "roll": lambda x: x.roll(1, 0),
    "masked": lambda x: x.masked_fill(x > 0, 0.0),
    "scatter": lambda x: x.scatter(1, x.abs().long() % 2, 1.0),
    "var": lambda x: x.var(1),
    "pad": lambda x: nn.functional.pad(x, (1, 1)),
    "cat": lambda x: graphc.cat([x, x[:1]]),
    "real": lambda x: x.to(graphc.complex64).real,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_give_tensors_of_their_device(name: str) -> None:
    function = FUNCTIONS[name]
    x = graphc.tensor([[0.5, -1.5, 2.0, 0.0], [1.0, 1.0, -0.5, 3.5], [2.5, 0.0, 0.5, -2.0]])
    here, there = function(x), function(x.cuda())
    assert there.device == graphc.device("cuda:0") and there.dtype is here.dtype
    np.testing.assert_allclose(np.asarray(there.tolist()), np.asarray(here.tolist()), rtol=1e-5, atol=1e-6)


def test_derivatives_that_are_zero_live_there_too() -> None:
    x = graphc.randn(3, device="cuda", requires_grad=True)
    (x.floor() + x.sign() + x.round()).sum().backward()
    assert x.grad.is_cuda and x.grad.tolist() == [0, 0, 0]


def test_mixed_precision_and_checkpoints() -> None:
    x = graphc.ones(2, 2, device="cuda")
    with graphc.autocast("cuda"):
        assert (x @ x).dtype is graphc.float16 and graphc.is_autocast_enabled("cuda")
    assert graphc.amp.GradScaler("cuda").is_enabled()
    w = graphc.ones(4, 4, device="cuda", requires_grad=True)
    graphc.manual_seed(0)
    out = graphc.utils.checkpoint.checkpoint(lambda w: nn.functional.dropout(w * 2), w, use_reentrant=False)
    out.sum().backward()
    assert w.grad.tolist() == (out > 0).float().mul(4).tolist()


# Gradients and training


def test_gradients_live_beside_their_tensors() -> None:
    def run(device: str) -> list[graphc.Tensor]:
        graphc.manual_seed(0)
        x = graphc.randn(4, 5, device=device, requires_grad=True)
        w = graphc.randn(5, 3, device=device, requires_grad=True)
        y = (x @ w).softmax(1).log() * x[:, :3]
        z = y.view(2, 6).amax(0).sum() + (x[1:] * x[:-1]).mean()
        (gx,) = graphc.autograd.grad(z, x, create_graph=True)
        (gx.square().sum() + z).backward()
        return [x.grad, w.grad, gx]

    for here, there in zip(run("cpu"), run("cuda")):
        assert there.is_cuda
        np.testing.assert_allclose(there.tolist(), here.tolist(), rtol=1e-4, atol=1e-5)
    x = graphc.ones(3, requires_grad=True)
    (x.cuda() * 2).to("cuda:1").cpu().sum().backward()
    assert x.grad.is_cpu and x.grad.tolist() == [2, 2, 2]
    assert type((x.cuda()).grad_fn).__name__ == "ToCopyBackward0"


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"])
def test_training_is_that_of_the_cpu(optimizer: str) -> None:
    def run(device: str) -> list[Any]:
        graphc.manual_seed(1)
        # without a bias before the norm, whose gradient is nothing but rounding errors
        model = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                              nn.Dropout(0.2), nn.Linear(36, 5), nn.LayerNorm(5)).to(device)
        assert all(t.device.type == device for t in (*model.parameters(), *model.buffers()))
        stepper = getattr(graphc.optim, optimizer)(model.parameters(), lr=0.01)
        x, y = graphc.randn(6, 1, 8, 8).to(device), graphc.arange(6).to(device) % 5
        graphc.manual_seed(2)  # the modules' first numbers were drawn on the CPU
        losses = []
        for _ in range(4):
            stepper.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            stepper.step()
            losses.append(loss.item())
        return [*losses, *model[1].running_mean.tolist(), *model[6].bias.tolist()]

    np.testing.assert_allclose(run("cuda"), run("cpu"), rtol=2e-4, atol=2e-5)


def test_modules_move_with_their_gradients() -> None:
    model = nn.Linear(2, 2)
    model(graphc.ones(1, 2)).sum().backward()
    weight = model.weight
    model.cuda()
    assert model.weight is weight and weight.is_cuda and weight.grad.is_cuda and weight.requires_grad
    assert model.to("cpu", graphc.float64).bias.dtype is graphc.float64 and weight.is_cpu
    assert model.to_empty(device="cuda").weight.is_cuda and model.cpu().weight.is_cpu


def test_loaders_take_what_is_said_of_gpus() -> None:
    loader = graphc.utils.data.DataLoader(graphc.utils.data.TensorDataset(graphc.arange(6)), batch_size=3, pin_memory=True)
    assert [batch.to("cuda", non_blocking=True).sum().item() for (batch,) in loader] == [3, 12]
    assert graphc.ones(2).pin_memory().is_cpu


# The real CuPy, as far as it goes without a driver


def test_views_of_cupy_itself() -> None:
    """Memory of the CPU plays that of the GPU: shapes, strides, dtypes and places are CuPy's own."""
    cupy_stand_in_module = device_arrays._cupy
    import sys

    stand_in = sys.modules.pop("cupy")
    try:
        cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    finally:
        sys.modules["cupy"] = stand_in
    assert cupy is not stand_in and cupy_stand_in_module is None
    for dtype in DTYPES.values():
        numbers = np.arange(24).astype(np.int8).view(np.uint8).repeat(dtype.itemsize).view(dtype.numpy).reshape(4, 6)
        memory = cupy.cuda.UnownedMemory(numbers.ctypes.data, numbers.nbytes, numbers, 0)
        array = cupy.ndarray(numbers.shape, dtype.numpy, memptr=cupy.cuda.MemoryPointer(memory, 0))
        assert array.dtype == dtype.numpy and device_arrays.index_of(array) == 0 and array.flags.c_contiguous
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(device_arrays, "_cupy", cupy)
            view = device_arrays.viewed(array, lambda a: a[1:, ::2].T)
        expected = numbers[1:, ::2].T
        assert (view.shape, view.strides, view.dtype) == (expected.shape, expected.strides, expected.dtype)
        assert view.data.ptr == expected.ctypes.data and not view.flags.c_contiguous
        with pytest.raises(TypeError, match="Implicit conversion"):
            np.asarray(view)
