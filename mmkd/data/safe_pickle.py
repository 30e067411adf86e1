"""Read numpy arrays and plain containers from a pickle without running any other code in it.

A pickle is a program: it names functions, calls them and sets states. Here every name that numpy's own pickles use is
bound to a stand-in of this module, and no other name is known. The stand-ins matter: numpy's functions trust their
arguments (the state of a dtype alone can make numpy take bytes for object pointers), these check them first.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mmkd.data.identify import identify
from mmkd.data.untrusted import memory_for
from mmkd.errors import UserError

Array = np.ndarray[Any, Any]

PIECE = 2**26
"""Bytes that are read at once."""


class Refused(Exception):
    """The pickle asks for something that an array or a plain container does not need."""


class _Reporting(io.FileIO):
    """A file that reports how much of it has been read, and is read in pieces, so that it can report."""

    def __init__(self, path: Path, progress: Callable[[str], object]) -> None:
        super().__init__(path)
        self.path, self.progress, self.size, self.seen = path, progress, path.stat().st_size, 0

    def readinto(self, buffer: Any) -> int | None:
        """Read at most `PIECE` bytes into the buffer."""
        read = super().readinto(memoryview(buffer)[:PIECE])
        self.seen += read or 0
        if self.size > PIECE:
            self.progress(f"reading {self.path.name}: {self.seen / max(self.size, 1):.0%} of {self.size / 1e9:.1f} GB")
        return read


def load_arrays(path: str | Path, progress: Callable[[str], object] = lambda what: None) -> Any:
    """Read the value in the pickle at `path`: dicts, lists, tuples, texts, numbers and (subclassed) numpy arrays.

    Pickles of Python 2 and 3, of protocols 0 to 5 and of numpy 1 and 2 are read. Texts that Python 2 wrote, and bytes
    that it held as texts, become `str` in Latin-1. `progress` is called with each next step of a large file.

    Raises:
        UserError: the file cannot be read, is no pickle, or asks for anything else; none of its code was run.
    """
    path = Path(path)
    try:
        with io.BufferedReader(_Reporting(path, progress), 2**20) as file, memory_for(path), _silent_hook():
            return _Unpickler(file, encoding="latin1").load()
    except Refused as refusal:
        known = _remedy(str(refusal), path)
        raise UserError(
            f"{path}: refused, {refusal}; only numpy arrays and plain containers are read{known and '; '}{known}"
        ) from refusal
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # the unpickler may meet any mistake in the arguments that a file gives it
        known = "" if path.suffix in (".pkl", ".pickle") and path.stat().st_size else identify(path)
        said = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: not a readable pickle ({said}){known and '; '}{known}") from error


@contextmanager
def _silent_hook() -> Iterator[None]:
    """Print nothing where a bytearray cannot be allocated: CPython then prints a SystemError beside the MemoryError."""
    before, sys.excepthook = sys.excepthook, lambda *_: None
    try:
        yield
    finally:
        sys.excepthook = before


def _remedy(refusal: str, path: Path) -> str:
    """Advice about a pickle that asks for classes of a known package."""
    known = identify(path)
    if "PyTorch" in known:
        return known
    if "torch" in refusal:
        return "convert its tensors with .numpy() and pickle it again"
    if "pandas" in refusal:
        return "convert its tables with .to_numpy() and pickle it again"
    return ""


class _DType:
    """Stand-in for `numpy.dtype`: numbers, texts and objects, with a byte order."""

    def __init__(self, code: Any, align: Any = False, copy: Any = False) -> None:
        if isinstance(code, bytes):
            code = code.decode("ascii")
        if not isinstance(code, str) or not re.fullmatch(r"[<>|=]?(b1|[iuf][1248]|[SU]\d{1,6}|O[48]?)", code):
            raise Refused(f"it holds an array of dtype {code!r}")
        self.dtype = np.dtype("O") if "O" in code else np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        """Take the byte order; all else follows from the code, or is a structure, which no plain array has."""
        order, *structure = state[1:5]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in structure):
            raise Refused("it holds an array with a structured dtype")
        self.dtype = self.dtype.newbyteorder(order)


class _Array(Array):
    """Stand-in for `numpy.ndarray`: made by `_reconstruct` only, and takes a state only if its parts fit."""

    def __new__(cls, *_: Any) -> _Array:
        """Refuse: the pickle would choose the memory under the array."""
        raise Refused("it makes an array by itself")

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, _DType) or not _is_shape(shape):
            raise Refused("it holds an array whose shape or dtype is none")
        content = _as_bytes(content) if not isinstance(content, list) else content
        unit = 1 if dtype.dtype.hasobject else dtype.dtype.itemsize
        if isinstance(content, list) != dtype.dtype.hasobject or len(content) != unit * math.prod(shape):
            raise Refused(f"it holds an array of shape {shape} with content of another size or kind")
        if not isinstance(content, list):
            _check_text(dtype.dtype, content)
        super().__setstate__((1, shape, dtype.dtype, bool(fortran), content))  # type: ignore[arg-type]  # stub: np.bool


def _check_text(dtype: np.dtype[Any], content: bytes | bytearray) -> None:
    """Refuse texts with characters that do not exist: numpy makes strings of them that Python cannot decode again."""
    if dtype.kind == "U" and (np.frombuffer(content, np.dtype("u4").newbyteorder(dtype.byteorder)) > 0x10FFFF).any():
        raise Refused("it holds a text with characters beyond Unicode")


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)


def _as_bytes(content: Any) -> bytes | bytearray:
    """`content`, which Python 2 may have written as a text. Arrays are refused: their memory can be changed later."""
    if isinstance(content, str):
        return content.encode("latin1")
    if isinstance(content, (bytes, bytearray)):
        return content
    raise Refused(f"it holds an array made from a {type(content).__name__}")


def _reconstruct(subtype: Any, shape: Any, typecode: Any) -> Array:
    """Stand-in for numpy's: an empty array, whose state follows."""
    if subtype is not _Array:
        raise Refused("it holds a subclass of numpy.ndarray")
    return np.ndarray.__new__(_Array, (0,), np.int8)


def _frombuffer(content: Any, dtype: Any, shape: Any, order: Any) -> Array:
    """Stand-in for numpy's, for protocol 5."""
    if not isinstance(dtype, _DType) or dtype.dtype.hasobject or not _is_shape(shape) or order not in ("C", "F"):
        raise Refused("it holds an array whose shape, dtype or order is none")
    _check_text(dtype.dtype, _as_bytes(content))
    return np.frombuffer(_as_bytes(content), dtype.dtype).reshape(shape, order=order)


def _scalar(dtype: Any, content: Any) -> Any:
    """Stand-in for numpy's: one number or text."""
    if not isinstance(dtype, _DType) or dtype.dtype.hasobject:
        raise Refused("it holds a scalar whose dtype is none")
    _check_text(dtype.dtype, _as_bytes(content))
    return np.frombuffer(_as_bytes(content), dtype.dtype, count=1)[0]


def _encode(text: Any, encoding: Any) -> bytes:
    """Stand-in for `_codecs.encode`: how Python 3 writes bytes in protocols 0 to 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused(f"it encodes a text as {encoding!r}")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _Array,
    ("_codecs", "encode"): _encode,
    # Python 3 writes empty bytes like this in protocols 0 to 2.
    **{(module, "bytes"): lambda: b"" for module in ("builtins", "__builtin__")},
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _frombuffer for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a global name, exactly as the pickle spells it: dotted names lead nowhere."""
        if (module, name) not in _STAND_INS:
            raise Refused(f"it asks for {module}.{name}")
        return _STAND_INS[module, name]
