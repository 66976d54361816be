"""Body ↔ compressed body, bounded. In: bytes and a content encoding. Out: bytes, never more than the limit."""

from __future__ import annotations

import zlib

import zstandard

from pipeline.errors import PayloadTooLarge, UndecodableBody

ZSTD = "zstd"
LEVEL = 3  # zstd's own default: fast, and JSON shrinks to a third or less
MAX_WINDOW = 1 << 27  # bytes a zstd frame may ask us to remember (128 MiB, the format's recommended bound)
STEP = 256  # bytes of a zstd frame of unknown size undone at once; they may become 8 MB at most


def compress(body: bytes) -> bytes:
    """`body` as one zstd frame."""
    return zstandard.ZstdCompressor(level=LEVEL).compress(body)


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """`body` as it was. Raises: PayloadTooLarge over `limit` bytes, UndecodableBody when it can't be undone."""
    try:
        match encoding.lower():
            case "zstd":
                plain = _unzstd(body, limit)
            case "gzip":
                plain = _gunzip(body, limit)
            case "identity" | "utf-8":  # the latter is what kombu writes there
                plain = body
            case _:
                raise UndecodableBody(f"content encoding {encoding[:40]!r} is not known; zstd and gzip are")
    except (zlib.error, zstandard.ZstdError) as error:
        raise UndecodableBody(f"{encoding} body can't be decompressed: {error}") from error
    if len(plain) > limit:
        raise _too_large(body, encoding, limit)
    return plain


def _unzstd(body: bytes, limit: int) -> bytes:
    """All of the one frame in `body`, or somewhat more than `limit` bytes of it."""
    size = zstandard.frame_content_size(body)  # as the frame says; -1 when it does not
    if size > limit:
        raise _too_large(body, ZSTD, limit)
    if size >= 0:
        return zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompress(body, allow_extra_data=False)
    frame = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj()
    parts: list[bytes] = []
    got = at = 0
    while at < len(body) and got <= limit and not frame.eof:
        parts.append(frame.decompress(body[at : at + STEP]))
        got += len(parts[-1])
        at += STEP
    if got <= limit:
        _check_end(ZSTD, frame.eof, at < len(body) or bool(frame.unused_data))
    return b"".join(parts)


def _gunzip(body: bytes, limit: int) -> bytes:
    """All of the one member in `body`, or one byte more than `limit`."""
    member = zlib.decompressobj(wbits=31)
    plain = member.decompress(body, limit + 1)
    if len(plain) <= limit:
        _check_end("gzip", member.eof, bool(member.unused_data))
    return plain


def _check_end(encoding: str, complete: bool, more: bool) -> None:
    """Nothing may be missing or left over: half of a body may well be valid JSON."""
    if not complete:
        raise UndecodableBody(f"{encoding} body ends too early")
    if more:
        raise UndecodableBody(f"{encoding} body goes on behind its end")


def _too_large(body: bytes, encoding: str, limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"{encoding} body of {len(body)} bytes grows beyond {limit} bytes (PIPELINE_MAX_BODY)")
