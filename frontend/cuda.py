"""GPUs: there is no CUDA back end for eager tensors, and these functions say so."""

from __future__ import annotations


def is_available() -> bool:
    """Whether tensors can live on a GPU here."""
    return False


def device_count() -> int:
    """How many GPUs there are to use."""
    return 0


def manual_seed(seed: int) -> None:
    """Seed the generator of the current GPU: without one there is nothing to seed."""


def manual_seed_all(seed: int) -> None:
    """Seed the generators of all GPUs: without one there is nothing to seed."""


def empty_cache() -> None:
    """Give unused GPU memory back: without a GPU there is none."""


def synchronize(device: object = None) -> None:
    """Wait for the GPU: without one there is nothing to wait for."""
