"""Running StableHLO text through JAX's parser and compiler, where JAX is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

needs_jax = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="jax is not installed: pip install graphc[bench]"
)


def parsed(text: str) -> Any:
    """The verified module; jaxlib's own errors where it does not accept it."""
    from jax._src.interpreters import mlir
    from jaxlib.mlir import ir

    with mlir.make_ir_context():
        module = ir.Module.parse(text)
        assert module.operation.verify()
        return module


def run(text: str, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What the function `main` gives for arrays, by XLA on the CPU."""
    import jax
    from jax._src import compiler

    jax.config.update("jax_enable_x64", True)
    module = parsed(text)
    devices = np.asarray(jax.devices("cpu")[:1])
    options = compiler.get_compile_options(num_replicas=1, num_partitions=1)
    with module.context:
        loaded = compiler.backend_compile_and_load(
            jax.devices("cpu")[0].client, module, jax._src.lib.xla_client.DeviceList(tuple(devices)), options, [])
    given = [jax.device_put(np.asarray(array), devices[0]) for array in arrays]
    return [np.asarray(result) for result in loaded.execute(given)]
