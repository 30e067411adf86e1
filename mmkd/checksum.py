"""A checksum at a file's end: what a failing disk or a bad copy changed is noticed before it is believed."""

from __future__ import annotations

import hashlib

_MARK = b"\nmmkd sha256 "
SEAL_BYTES = len(_MARK) + 64 + 1
"""HDF5 and zip readers pass over so much behind what they know."""


class Damaged(ValueError):
    """The content is not what was sealed."""


def seal_of(content: bytes | memoryview) -> bytes:
    """What to write behind `content`: a line with its SHA-256."""
    return _MARK + hashlib.sha256(content).hexdigest().encode() + b"\n"


def has_seal(sealed: bytes) -> bool:
    """Whether it ends in a seal, right or wrong."""
    return sealed[-SEAL_BYTES:].startswith(_MARK) and sealed.endswith(b"\n")


def unseal(sealed: bytes) -> memoryview:
    """The content without its seal.

    Raises:
        Damaged: it has no seal, or not that of this content.
    """
    if not has_seal(sealed):
        raise Damaged("it does not end in its checksum")
    content = memoryview(sealed)[:-SEAL_BYTES]
    if seal_of(content) != sealed[-SEAL_BYTES:]:
        raise Damaged("its checksum does not match")
    return content
