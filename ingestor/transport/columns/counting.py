"""Whether a request's list has too many elements, from its bytes and before anything is made of them.

A body of 4 MiB can hold two million empty messages, and each would cost memory and time out of all proportion.
"""

from __future__ import annotations

import numpy as np

# A length-delimited field 1, the list of every bulk request: (1 << 3) | 2, one byte.
_TAG = 0x0A
_VARINT_BYTES_MAX = 10
_ELEMENT_BYTES_MIN = 2  # tag and length


def has_more_elements(body: bytes, most: int) -> bool:
    """Whether field 1 has more elements than `most`.

    Most bodies are too short for that, or have fewer bytes that could be its tag. The others are walked.
    """
    if len(body) <= _ELEMENT_BYTES_MIN * most:
        return False
    # numpy counts in a tenth of the time that bytes.count takes.
    if np.count_nonzero(np.frombuffer(body, np.uint8) == _TAG) <= most:
        return False
    return _walk(body, most) > most


def _walk(body: bytes, most: int) -> int:
    """Elements from the start up to the first other field, and no more than `most + 1`; what follows such a field
    (requests are written in the order of their fields) counts as many as it can hold."""
    count = at = 0
    end = len(body)
    while at < end and body[at] == _TAG and count <= most:
        length = shift = 0
        for _ in range(_VARINT_BYTES_MAX):
            at += 1
            if at >= end:
                return count
            length |= (body[at] & 0x7F) << shift
            if body[at] < 0x80:
                break
            shift += 7
        at += 1 + length
        count += 1
    return count + body.count(_TAG, at) if at < end else count
