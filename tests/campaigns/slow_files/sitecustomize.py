"""A slow file system, as Python sees one: each flush, rename and opening for writing takes up to `SECONDS`."""

import builtins
import io
import os
import random
import time

SECONDS = 0.05

_chance = random.Random(os.getpid())
_open, _fsync, _replace = builtins.open, os.fsync, os.replace


def _slow_open(file, mode="r", *rest, **more):  # type: ignore[no-untyped-def]
    if any(letter in mode for letter in "wax+"):
        time.sleep(_chance.uniform(0, SECONDS))
    return _open(file, mode, *rest, **more)


def _slow_fsync(descriptor):  # type: ignore[no-untyped-def]
    time.sleep(_chance.uniform(0, SECONDS))
    _fsync(descriptor)


def _slow_replace(source, target, **more):  # type: ignore[no-untyped-def]
    time.sleep(_chance.uniform(0, SECONDS))
    _replace(source, target, **more)


builtins.open = io.open = _slow_open  # pathlib calls the second
os.fsync, os.replace = _slow_fsync, _slow_replace
