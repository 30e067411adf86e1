"""Text of fixed length in HDF5 files.

Text of variable length, which h5py writes by default, is stored in HDF5's global heap. A damaged size there makes
libhdf5 loop forever, beyond the reach of exceptions and Ctrl-C.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray


def fixed(text: str) -> NDArray[np.bytes_]:
    """A text as h5py stores it: UTF-8 of fixed length."""
    return fixed_column([text]).reshape(())


def fixed_column(texts: Sequence[str]) -> NDArray[np.bytes_]:
    """Several texts as h5py stores them, all as long as the longest."""
    contents = [text.encode() for text in texts]
    return np.array(contents, h5py.string_dtype(length=max([1, *map(len, contents)])))


def read_attribute(holder: Any, name: str) -> Any:
    """Read an attribute of an h5py object; text as str.

    Raises:
        KeyError: there is none.
        ValueError: reading it would lead through the global heap.
    """
    attributes = holder.attrs
    stored = attributes.get_id(name)
    if stored.dtype.hasobject:
        refuse_heap(f"{holder.name}: attribute {name}", stored.dtype)
    value = _read_scalar(stored) if stored.shape == () and stored.dtype.subdtype is None else attributes[name]
    return value.decode() if isinstance(value, bytes) else value


def _read_scalar(stored: h5py.h5a.AttrID) -> Any:
    """What h5py's `attrs[name]` returns, in half the time: a table reads twenty attributes of each trial."""
    value = np.zeros((), stored.dtype)
    stored.read(value)
    return value[()]


def refuse_heap(what: str, stored: np.dtype[Any]) -> None:
    """Refuse types whose values are in the global heap.

    Raises:
        ValueError: they are in the global heap.
    """
    if stored.hasobject:
        raise ValueError(f"{what}: text of variable length, which this mmkd neither writes nor reads")
