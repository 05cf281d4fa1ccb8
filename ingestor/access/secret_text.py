"""The text that a caller sends as its key: `ing_<id>_<43 characters>`, which is 256 random bits.

Only its SHA-256 is kept. A slow hash would protect what a person made up; of what is random, there is nothing to
guess.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string

ID_LENGTH = 8
_ID_ALPHABET = string.digits + string.ascii_lowercase
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_SECRET_BYTES, _SECRET_LENGTH = 32, 43  # 62 ** 43 > 256 ** 32
ID = re.compile(f"[0-9a-z]{{{ID_LENGTH}}}")
_TEXT = re.compile(f"ing_({ID.pattern})_[0-9A-Za-z]{{{_SECRET_LENGTH}}}")


def new_id() -> str:
    """A random one."""
    return "".join(secrets.choice(_ID_ALPHABET) for _ in range(ID_LENGTH))


def new_text(id_: str) -> str:
    """A new secret for the key of this id."""
    number, characters = int.from_bytes(secrets.token_bytes(_SECRET_BYTES)), []
    for _ in range(_SECRET_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        characters.append(_ALPHABET[digit])
    return f"ing_{id_}_{''.join(characters)}"


def id_of(text: str) -> str | None:
    """Of which key this says to be the secret; None when it has not the form of one."""
    match = _TEXT.fullmatch(text)
    return None if match is None else match[1]


def digest(text: str) -> str:
    """What is kept of it, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()
