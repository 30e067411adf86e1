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
    refuse_heap(f"{holder.name}: attribute {name}", holder.attrs.get_id(name).dtype)
    value = holder.attrs[name]
    return value.decode() if isinstance(value, bytes) else value


def read_attributes(holder: Any) -> dict[str, Any]:
    """Read all attributes of an h5py object, as `read_attribute` does, in a third of the time; none may be an array.

    Raises:
        ValueError: one is an array or has no value, or reading it would lead through the global heap.
    """
    found = {}
    for index in range(h5py.h5a.get_num_attrs(holder.id)):
        stored = h5py.h5a.open(holder.id, index=index)
        name, kind = stored.name.decode(), stored.dtype
        refuse_heap(name, kind)
        if stored.shape != () or kind.subdtype is not None:
            raise ValueError(f"attribute {name}: not a single value")
        value = np.empty((), kind)
        stored.read(value)
        single = value.item()
        found[name] = single.decode() if isinstance(single, bytes) else single
    return found


def refuse_heap(what: str, stored: np.dtype[Any]) -> None:
    """Refuse types whose values are in the global heap.

    Raises:
        ValueError: they are in the global heap.
    """
    if stored.hasobject:
        raise ValueError(f"{what}: text of variable length, which this mmkd neither writes nor reads")
