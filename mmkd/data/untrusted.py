"""How files that others made are kept from taking the machine: a few bytes can ask for any amount of memory."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from mmkd.stored_text import refuse_heap

FILE_SIZES, BYTES = 8, 2**30
"""What reading a file may take besides what the process has: real ones need up to three times their size."""
DENSEST = 1100
"""Values in a byte of storage, at most: deflate packs a little over a thousand zeros into one."""


@contextmanager
def memory_for(path: Path) -> Iterator[None]:
    """Within, the process may grow by eight times the file and 1 GiB; what asks for more gets a MemoryError.

    Raises:
        OSError: the file's size cannot be told.
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
    """Make sure that an h5py.Dataset keeps its values in the file at `path`, in no fewer bytes than can hold them.

    Raises:
        ValueError: it would be read from other files, or from the global heap, or made up from nothing in any amount.
    """
    refuse_heap(dataset.name, dataset.dtype)
    stored, size = dataset.id.get_storage_size(), path.stat().st_size
    if dataset.external or dataset.is_virtual or dataset.file.filename != str(path):
        raise ValueError(f"{dataset.name}: its values lie in another file")
    if stored > size or dataset.nbytes > DENSEST * stored:
        raise ValueError(f"{dataset.name}: {dataset.nbytes} bytes of values, of which {stored} are stored")
