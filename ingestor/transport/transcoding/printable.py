"""What callers sent, made fit to be said back to them: short, and free of what no text can carry.

JSON lets a string hold half a surrogate pair, which neither UTF-8 nor a protobuf string can; and a name may be
as long as the body.
"""

from __future__ import annotations


def printable(text: str, length_max: int = 100) -> str:
    """At most `length_max` characters of the text, what can't be printed written as an escape."""
    # Escapes only make it longer, so that one character more is enough to see that something was cut.
    shown = "".join(map(_escaped, text[: length_max + 1]))
    return shown if len(shown) <= length_max else shown[: length_max - 1] + "…"


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()
