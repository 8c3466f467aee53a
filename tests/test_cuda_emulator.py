"""What the emulator of CUDA's execution model finds wrong in kernels."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from cuda_emulator import EmulatedDriver
from cuda_runs import driver, needs_compiler

__all__ = ["driver"]


def results(driver: EmulatedDriver, body: str) -> list[list[int]]:
    """What a kernel of two warps writes to its buffer, by the order in which they take turns."""
    symbol = f"kernel_{hashlib.sha256(body.encode()).hexdigest()[:12]}"
    head = f'extern "C" __global__ void __launch_bounds__(64) {symbol}(int* b0)'
    driver.load({symbol: f"{head} {{\n  __shared__ int tile[64]; const int thread = threadIdx.x; {body}\n}}\n"})
    found = []
    for driver.downwards in (False, True):
        out = np.full(64, -1, np.int32)
        driver.launch(driver, symbol, 1, 64, [out.ctypes.data])
        found.append(out.tolist())
    driver.downwards = False
    return found


@needs_compiler
@pytest.mark.parametrize("around", ["", "__syncwarp();"])
def test_a_barrier_between_warps_that_is_missing(driver: EmulatedDriver, around: str) -> None:
    """Written by one warp and read by the other: even where each warp waits for itself in between."""
    body = "tile[thread] = thread; {} b0[thread] = tile[thread ^ 32];"
    up, down = results(driver, body.format(around))
    assert up != down
    up, down = results(driver, body.format("__syncthreads();"))
    assert up == down == [thread ^ 32 for thread in range(64)]


@needs_compiler
def test_numbers_that_are_written_over_too_soon(driver: EmulatedDriver) -> None:
    body = "tile[thread] = 1; __syncthreads(); const int other = tile[thread ^ 32]; {} tile[thread] = 2; b0[thread] = other;"
    up, down = results(driver, body.format("__syncwarp();"))
    assert up != down
    assert results(driver, body.format("__syncthreads();")) == [[1] * 64] * 2


@needs_compiler
def test_a_barrier_that_waits_for_ever(driver: EmulatedDriver) -> None:
    with pytest.raises(AssertionError, match="never come"):
        results(driver, "if (thread % 32 == 0) __syncwarp(); b0[thread] = 0; ")
