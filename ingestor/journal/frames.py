"""The byte layout of the disk journal: segment headers and frames, to bytes and back.

Pure: it touches no file and knows no order. It refuses whatever a checksum doesn't vouch for, and believes no
length before that.

All numbers are little-endian; header and frames are multiples of 8 bytes long (as Arrow's messages are), so that
Arrow finds its buffers aligned.

Header (88 bytes), at the beginning of each file:

    0   magic                 ff 49 4e 47 4c 4f 47 0a  (".INGLOG.")
    8   format version        u16
    10  header length         u16; in every version the header's last four bytes are a CRC32 of those before them
    12  journal id            16 bytes
    28  database id           16 bytes, zeros while it isn't known
    44  sequence              u64, as in the file's name
    52  first position        u64: what the first entry in this file has; frames of earlier files from there on are
                              void
    60  previous position     u64: the last that was given out before; there are none between it and the first
    68  committed             u64: up to where the database was known to have all when the file was made
    76  created               i64, microseconds since 1970
    84  CRC32

Frame (48 bytes of head, then meta, then body):

    0   marker                ff 49 4e 4a (".INJ"): no UTF-8 text contains it
    4   head's CRC32          of bytes 8 to 47
    8   payload's CRC32       of meta and body
    12  body length           u32
    16  meta length           u32
    20  rows                  u32
    24  position              u64
    32  taken at              i64, microseconds since 1970
    40  kind                  u8: 1 an entry, 2 a cursor
    41  zeros                 3 bytes
    44  number in its append  u32: 0 for the first of the entries that were written and synced together

An entry's body is an Arrow IPC record batch message in `ingestor.model.batch.SCHEMA` (another schema is another
format version), its meta JSON, padded with spaces: `{"labels": {id: document}, "requests": [[first, rows,
caller, id, fingerprint, accepted, rejected]]}`, fingerprint and rejected in base64; nothing at all when both
are empty. A cursor says that everything up to its position was committed; its meta is journal id and database id.

A frame's checksums begin with that of the journal's id. Values that a caller chooses, and that happen to be
bytes of a frame, are therefore never taken for one when the bytes around them are damaged and searched for the
next good frame.
"""

from __future__ import annotations

import struct
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID
from zlib import crc32

import orjson
import pyarrow as pa

from ingestor.model.batch import SCHEMA, MetricBatch
from ingestor.model.delivery import Placed, Request

VERSION = 1
MAGIC = b"\xffINGLOG\n"
MARKER = b"\xffINJ"
HEADER_BYTES = 88
HEAD_BYTES = 48
ALIGNMENT_BYTES = 8
# Far more than requests can become; what claims to be longer is none of our frames.
FRAME_BYTES_MAX = 1024**3
HEADER_BYTES_MAX = 4096
ENTRY, CURSOR = 1, 2
_UNKNOWN = UUID(int=0)

_HEADER = struct.Struct("<8sHH16s16sQQQQq")
_VERSION = struct.Struct("<8sHH")
_CRC = struct.Struct("<I")
_HEAD = struct.Struct("<4sI")
_REST = struct.Struct("<IIIIQqB3xI")


class Header(NamedTuple):
    """What a segment says of itself. `first` comes behind `previous`, next to it unless positions were skipped;
    `committed` is where the cursor was known to stand when it was made."""

    journal: UUID
    database: UUID | None
    sequence: int
    first: int
    previous: int
    committed: int
    created_us: int
    version: int = VERSION


class Head(NamedTuple):
    """What a frame says of itself; `number` counts the entries of one append from 0."""

    payload_crc: int
    body_bytes: int
    meta_bytes: int
    rows: int
    position: int
    taken_at_us: int
    kind: int
    number: int

    @property
    def size_bytes(self) -> int:
        """The whole frame's."""
        return HEAD_BYTES + self.meta_bytes + self.body_bytes


class HeaderProblem(Exception):
    """These bytes are no header of this release. `newer` is the version of a later one, `foreign` says that they
    don't begin as ours do."""

    def __init__(self, *, newer: int = 0, foreign: bool = False) -> None:
        self.newer = newer
        self.foreign = foreign


def seed(journal: UUID) -> int:
    """What the checksums of this journal's frames begin with."""
    return crc32(journal.bytes)


def encode_header(header: Header) -> bytes:
    """Its bytes."""
    database = header.database or _UNKNOWN
    data = _HEADER.pack(
        *(MAGIC, header.version, HEADER_BYTES, header.journal.bytes, database.bytes),
        *(header.sequence, header.first, header.previous, header.committed, header.created_us),
    )
    return data + _CRC.pack(crc32(data))


def decode_header(data: bytes) -> Header:
    """From a file's first bytes. Raises HeaderProblem."""
    if len(data) < HEADER_BYTES or not data.startswith(MAGIC):
        # A power loss leaves any part of it, with zeros for the rest.
        raise HeaderProblem(
            foreign=any(byte not in (0, ours) for byte, ours in zip(data, MAGIC, strict=False))
        )
    _, version, size = _VERSION.unpack_from(data)
    if not HEADER_BYTES <= size <= len(data):
        raise HeaderProblem
    if crc32(data[: size - 4]) != _CRC.unpack_from(data, size - 4)[0]:
        raise HeaderProblem
    if version != VERSION:
        raise HeaderProblem(newer=version)
    _, _, _, journal, database, *numbers = _HEADER.unpack_from(data)
    known = UUID(bytes=database)
    return Header(UUID(bytes=journal), known if known != _UNKNOWN else None, *numbers)


def encode_entry(
    seed: int,
    position: int,
    batch: MetricBatch,
    taken_at_us: int,
    *,
    requests: Sequence[Placed] = (),
    number: int,
) -> bytes:
    """One entry's frame."""
    body = batch.columns.serialize()
    meta = _encode_meta(batch.label_sets, requests)
    facts = batch.rows, position, taken_at_us
    return _frame(seed, ENTRY, facts, number=number, meta=meta, body=memoryview(body))


def encode_cursor(seed: int, position: int, at_us: int, journal: UUID, database: UUID | None) -> bytes:
    """The frame that says up to where all was committed."""
    meta = journal.bytes + (database or _UNKNOWN).bytes
    return _frame(seed, CURSOR, (0, position, at_us), number=0, meta=meta, body=memoryview(b""))


def _frame(
    seed: int, kind: int, facts: tuple[int, int, int], *, number: int, meta: bytes, body: memoryview
) -> bytes:
    size = HEAD_BYTES + len(meta) + len(body)
    if size > FRAME_BYTES_MAX:
        msg = f"an entry of {size} bytes is more than a journal's frame holds ({FRAME_BYTES_MAX})"
        raise ValueError(msg)
    rest = _REST.pack(crc32(body, crc32(meta, seed)), len(body), len(meta), *facts, kind, number)
    return b"".join((_HEAD.pack(MARKER, crc32(rest, seed)), rest, meta, body))


def decode_head(seed: int, data: bytes | memoryview, at: int = 0) -> Head | None:
    """The head that begins at `at`; None when there is none whose checksum is right."""
    if len(data) < at + HEAD_BYTES:
        return None
    marker, head_crc = _HEAD.unpack_from(data, at)
    if marker != MARKER or crc32(data[at + 8 : at + HEAD_BYTES], seed) != head_crc:
        return None
    head = Head._make(_REST.unpack_from(data, at + 8))
    return head if head.size_bytes <= FRAME_BYTES_MAX else None


def is_sound(seed: int, head: Head, payload: memoryview) -> bool:
    """Whether these are the meta and body that the head was written for."""
    return crc32(payload, seed) == head.payload_crc


def decode_batch(head: Head, payload: memoryview) -> MetricBatch:
    """An entry's rows and label sets."""
    columns = pa.ipc.read_record_batch(pa.py_buffer(payload[head.meta_bytes :]), SCHEMA)
    return MetricBatch.of_columns(columns, _label_sets(payload[: head.meta_bytes]))


def decode_requests(meta: memoryview) -> tuple[Placed, ...]:
    """An entry's requests, in the order of their rows."""
    if not meta:
        return ()
    return tuple(
        Placed(first, rows, Request(caller, id_, b64decode(fingerprint), accepted, b64decode(rejected)))
        for first, rows, caller, id_, fingerprint, accepted, rejected in orjson.loads(meta)["requests"]
    )


def decode_journal(meta: memoryview) -> UUID:
    """The journal's id in a cursor's frame."""
    return UUID(bytes=bytes(meta[:16]))


def _label_sets(meta: memoryview) -> dict[int, str]:
    return {int(id_): text for id_, text in orjson.loads(meta)["labels"].items()} if meta else {}


def _encode_meta(label_sets: Mapping[int, str], requests: Sequence[Placed]) -> bytes:
    if not label_sets and not requests:
        return b""
    placed = [
        (first, rows, caller, id_, _base64(fingerprint), accepted, _base64(rejected))
        for first, rows, (caller, id_, fingerprint, accepted, rejected) in requests
    ]
    labels = {str(id_): text for id_, text in label_sets.items()}
    meta = orjson.dumps({"labels": labels, "requests": placed})
    return meta + b" " * (-len(meta) % ALIGNMENT_BYTES)


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")
