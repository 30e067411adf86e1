"""A checksum at the end of a file: detects what a failing disk or a bad copy changed."""

from __future__ import annotations

import hashlib

_MARK = b"\nmmkd sha256 "
CHECKSUM_BYTES = len(_MARK) + 64 + 1
"""Readers of HDF5 and zip ignore so many bytes after the content."""


class Damaged(ValueError):
    """The content does not match its checksum."""


def checksum_line(content: bytes | memoryview) -> bytes:
    """The line to append to `content`, with its SHA-256."""
    return _MARK + hashlib.sha256(content).hexdigest().encode() + b"\n"


def has_checksum(stored: bytes) -> bool:
    """True if `stored` ends in a checksum, right or wrong."""
    return stored[-CHECKSUM_BYTES:].startswith(_MARK) and stored.endswith(b"\n")


def verify_checksum(stored: bytes) -> memoryview:
    """The content of `stored` without its checksum.

    Raises:
        Damaged: there is no checksum, or it is not that of the content.
    """
    if not has_checksum(stored):
        raise Damaged("it does not end in its checksum")
    content = memoryview(stored)[:-CHECKSUM_BYTES]
    if checksum_line(content) != stored[-CHECKSUM_BYTES:]:
        raise Damaged("its checksum does not match")
    return content
