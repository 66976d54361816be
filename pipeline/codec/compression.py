"""Body ↔ compressed body, bounded. In: bytes and a content encoding. Out: bytes, never more than the limit."""

from __future__ import annotations

import zlib

import zstandard

from pipeline.errors import PayloadTooLarge, UndecodableBody

ZSTD = "zstd"
GZIP = "gzip"
LEVEL = 3  # zstd's own default: fast, and JSON shrinks to a third or less
MAX_WINDOW = 1 << 27  # bytes a zstd frame may ask us to remember (128 MiB, the format's recommended bound)


def compress(body: bytes) -> bytes:
    """`body` as one zstd frame."""
    return zstandard.ZstdCompressor(level=LEVEL).compress(body)


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """`body` as it was. Raises: PayloadTooLarge over `limit` bytes, UndecodableBody when it can't be undone."""
    try:
        match encoding:
            case "zstd":
                reader = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).stream_reader(body)
                plain = reader.read(limit + 1)
            case "gzip":
                unzip = zlib.decompressobj(wbits=31)
                plain = unzip.decompress(body, limit + 1)
                if len(plain) <= limit and not unzip.eof:
                    raise UndecodableBody("gzip body ends too early")
            case _:
                raise UndecodableBody(f"content encoding {encoding!r} is not known; zstd and gzip are")
    except (zlib.error, zstandard.ZstdError) as error:
        raise UndecodableBody(f"{encoding} body can't be decompressed: {error}") from error
    if len(plain) > limit:
        raise PayloadTooLarge(f"{encoding} body of {len(body)} bytes grows beyond {limit} bytes (PIPELINE_MAX_BODY)")
    return plain
