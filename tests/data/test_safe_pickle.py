"""Arrays come through; whatever else a pickle asks for is refused, and nothing of it runs."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmkd.data.safe_pickle import load_arrays
from mmkd.errors import UserError


def _load(tmp_path: Path, content: bytes) -> Any:
    path = tmp_path / "file.pkl"
    path.write_bytes(content)
    return load_arrays(path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_plain_kind_come_through_every_protocol(tmp_path: Path, protocol: int) -> None:
    value = {
        "f8": np.arange(24.0).reshape(2, 3, 4),
        "f4 fortran": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        "big endian": np.array([1.5, -2.0], ">f8"),
        "int": np.array([[1], [2]]),
        "bool": np.array([True, False]),
        "text": np.array([["a", "bcd"]]),
        "bytes": np.array([b"x", b"yz"]),
        "objects": np.array([b"id", "text", 1.5, None], dtype=object),
        "empty": np.zeros((0, 3), np.float32),
        "scalar": np.float64(2.5),
        "plain": [1, 2.0, "three", b"", b"four", None, (True, {})],
    }
    read = _load(tmp_path, pickle.dumps(value, protocol=protocol))
    assert list(read) == list(value)
    for key, expected in value.items():
        if isinstance(expected, np.ndarray):
            assert (read[key].dtype.kind, read[key].shape) == (expected.dtype.kind, expected.shape)
            np.testing.assert_array_equal(np.asarray(read[key]), expected)
        else:
            assert read[key] == expected


def _as_numpy_1(content: bytes) -> bytes:
    return content.replace(b"numpy._core", b"numpy.core")


def test_module_names_of_numpy_1_are_known(tmp_path: Path) -> None:
    content = _as_numpy_1(pickle.dumps(np.arange(3.0), protocol=2))
    assert b"numpy.core.multiarray" in content
    assert _load(tmp_path, content).tolist() == [0.0, 1.0, 2.0]


def test_arrays_of_python_2_come_through(tmp_path: Path) -> None:
    content = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x08\x00\x00\x80?\x00\x00\x00\xc0tb."
    )
    assert _load(tmp_path, content).tolist() == [1.0, -2.0]


class _Call:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def _attacks(marker: Path) -> dict[str, Any]:
    code = f"open({str(marker)!r}, 'w')"
    shell = _Call(os.system, f"touch {marker}")
    return {
        "os.system": shell,
        "eval": _Call(eval, code),
        "exec": _Call(exec, code),
        "open": _Call(open, str(marker), "w"),
        "a getattr chain": _Call(map, _Call(getattr, _Call(__import__, "os"), "system"), [f"touch {marker}"]),
        "nested in a dict": {"train": {"vision": np.zeros(3), "id": [shell]}},
        "in an object array": np.array([1, shell], dtype=object),
        "numpy's own loader": _Call(np.load, str(marker)),
        "numpy.memmap": _Call(np.memmap, str(marker), np.uint8, "w+", 0, (4,)),
        "pickle in a pickle": _Call(pickle.loads, pickle.dumps(shell)),
    }


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("attack", _attacks(Path("x")))
def test_calls_are_refused_by_name_and_never_run(tmp_path: Path, attack: str, protocol: int) -> None:
    marker = tmp_path / "ran"
    content = pickle.dumps(_attacks(marker)[attack], protocol=protocol)
    with pytest.raises(UserError, match=r"file\.pkl: refused, it asks for [\w.]+; only numpy arrays"):
        _load(tmp_path, content)
    assert not marker.exists()


def test_the_attacks_would_run_if_they_were_not_refused(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    pickle.load(io.BytesIO(pickle.dumps(_attacks(marker)["in an object array"])))
    assert marker.exists()


@pytest.mark.parametrize(
    "name",
    [
        b"builtins\ngetattr",
        b"__builtin__\neval",
        b"numpy\nload",
        b"numpy\ndtype.__class__",
        b"numpy\nndarray.tofile",
        b"numpy.core.multiarray\nfromfile",
        b"copyreg\n_reconstructor",
        b"_codecs\ndecode",
        b"mmkd.data.safe_pickle\n_DType",
    ],
)
def test_names_beside_the_admitted_ones_are_refused(tmp_path: Path, name: bytes) -> None:
    with pytest.raises(UserError, match="refused, it asks for"):
        _load(tmp_path, b"\x80\x02c" + name + b"\n.")
    if b"." in name.split(b"\n")[1]:  # protocol 4 would walk along the dots
        module, path = name.split(b"\n")
        stacked = b"".join(b"\x8c" + bytes([len(part)]) + part for part in (module, path))
        with pytest.raises(UserError, match="refused, it asks for"):
            _load(tmp_path, b"\x80\x04" + stacked + b"\x93.")


DTYPE = b"cnumpy\ndtype\n"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"


@pytest.mark.parametrize(
    "content",
    [
        # bytes as the pointers of an object array: numpy itself would follow them
        ARRAY + b"(K\x01K\x01\x85" + DTYPE + b"X\x01\x00\x00\x00O\x85R\x89C\x08AAAAAAAAtb.",
        # fewer bytes than the shape needs
        ARRAY + b"(K\x01K\x09\x85" + DTYPE + b"X\x02\x00\x00\x00f8\x85R\x89C\x08AAAAAAAAtb.",
        # a structured dtype
        DTYPE + b"X\x05\x00\x00\x00f8,O8\x85R.",
        # an array over memory of the pickle's choice, by call and by NEWOBJ
        b"cnumpy\nndarray\nK\x08\x85\x85R.",
        b"\x80\x02cnumpy\nndarray\nK\x08\x85\x85\x81.",
        # an array whose memory is another array's
        b"cnumpy.core.numeric\n_frombuffer\n("
        + ARRAY
        + DTYPE
        + b"X\x02\x00\x00\x00i1\x85RK\x00\x85X\x01\x00\x00\x00CtR.",
        # a scalar that is an object
        b"cnumpy.core.multiarray\nscalar\n" + DTYPE + b"X\x01\x00\x00\x00O\x85RC\x08AAAAAAAA\x86R.",
        b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.",
    ],
)
def test_admitted_names_with_crafted_arguments_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UserError, match="refused, it"):
        _load(tmp_path, content)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_characters_beyond_unicode_are_refused(tmp_path: Path, protocol: int) -> None:
    text = np.array([0x110000], "<u4").view("<U1")
    with pytest.raises(UserError, match="refused, it holds a text with characters beyond Unicode"):
        _load(tmp_path, pickle.dumps(text, protocol=protocol))


@pytest.mark.parametrize(
    "content", [b"", b"no pickle", b"\x80\x04", pickle.dumps(np.arange(99.0))[:-200], b"\x80\x04K\x01R."]
)
def test_what_is_no_whole_pickle_is_named(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UserError, match=r"file\.pkl: not a readable pickle"):
        _load(tmp_path, content)


def test_a_missing_pickle_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.pkl: cannot be read \(No such file"):
        load_arrays(tmp_path / "none.pkl")
