"""Datasets, samplers and loaders; public as `graphc.data` and, as in PyTorch, as `graphc.utils.data`."""

from __future__ import annotations

from graphc.frontend.data.collate import default_collate, default_convert
from graphc.frontend.data.dataloader import DataLoader
from graphc.frontend.data.dataset import (
    ChainDataset,
    ConcatDataset,
    Dataset,
    IterableDataset,
    StackDataset,
    Subset,
    TensorDataset,
    random_split,
)
from graphc.frontend.data.distributed import DistributedSampler
from graphc.frontend.data.sampler import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from graphc.frontend.data.worker import get_worker_info

__all__ = [
    "BatchSampler", "ChainDataset", "ConcatDataset", "DataLoader", "Dataset", "DistributedSampler", "IterableDataset",
    "RandomSampler", "Sampler", "SequentialSampler", "StackDataset", "Subset", "SubsetRandomSampler", "TensorDataset",
    "WeightedRandomSampler", "default_collate", "default_convert", "get_worker_info", "random_split",
]
