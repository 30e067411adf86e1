"""Limits on reading untrusted files: a few bytes can ask for any amount of memory."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from mmkd.stored_text import refuse_heap

FILE_SIZES, BYTES = 8, 2**30
"""Memory that reading a file may add to the process: real files need up to three times their size."""
DENSEST = 1100
"""Largest number of values per byte of storage: deflate packs a little over a thousand zeros into one."""


@contextmanager
def memory_for(path: Path) -> Iterator[None]:
    """Let the process grow by at most eight times the file and 1 GiB in the block; beyond that, a MemoryError.

    Raises:
        OSError: the file's size cannot be read.
    """
    allowed = psutil.Process().memory_info().vms + FILE_SIZES * path.stat().st_size + BYTES
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    known = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([allowed, *known]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def check_stored(dataset: Any, path: Path) -> None:
    """Refuse an h5py.Dataset whose values are not in the file at `path`, or in fewer bytes than can hold them.

    Raises:
        ValueError: they would be read from other files or from the global heap, or made up in any amount.
    """
    refuse_heap(dataset.name, dataset.dtype)
    stored, size = dataset.id.get_storage_size(), path.stat().st_size
    if dataset.external or dataset.is_virtual or dataset.file.filename != str(path):
        raise ValueError(f"{dataset.name}: its values are in another file")
    if stored > size or dataset.nbytes > DENSEST * stored:
        raise ValueError(f"{dataset.name}: {dataset.nbytes} bytes of values, of which {stored} are stored")
