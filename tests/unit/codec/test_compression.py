"""Compressed bodies: what comes back is all of it or an error, and a bomb takes neither memory nor time."""

from __future__ import annotations

import gzip
import time
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipeline.codec.compression import compress, decompress
from pipeline.errors import PayloadTooLarge, UndecodableBody

LIMIT = 1_000_000  # bytes
MEGABYTE = 1024 * 1024
JSON = b'{"order_id": 1, "customer": "Ann"}' * 40


def zstd_streamed(body: bytes, **options: int) -> bytes:
    """A frame that does not say how long it will be, as programs write it that do not know."""
    parameters = zstandard.ZstdCompressionParameters(**options)
    frame = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return frame.compress(body) + frame.flush()


WRITERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "zstd": ("zstd", compress),
    "zstd of unknown size": ("zstd", zstd_streamed),
    "gzip": ("gzip", gzip.compress),
}
each_writer = pytest.mark.parametrize(("encoding", "write"), WRITERS.values(), ids=WRITERS.keys())


@each_writer
@given(body=st.binary(max_size=2000) | st.binary(max_size=50).map(lambda unit: unit * 3000))
def test_what_was_compressed_comes_back(encoding: str, write: Callable[[bytes], bytes], body: bytes) -> None:
    assert decompress(write(body), encoding, LIMIT) == body


@pytest.mark.parametrize("encoding", ["identity", "utf-8", "UTF-8"])
def test_an_encoding_that_compresses_nothing_is_taken(encoding: str) -> None:
    assert decompress(JSON, encoding, LIMIT) == JSON
    with pytest.raises(PayloadTooLarge):
        decompress(JSON, encoding, len(JSON) - 1)


def test_encodings_are_known_however_they_are_spelt() -> None:
    assert decompress(gzip.compress(JSON), "GZIP", LIMIT) == JSON


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd, gzip", "\x1b[31m" * 100])
def test_an_unknown_encoding_is_named(encoding: str) -> None:
    with pytest.raises(UndecodableBody, match="not known") as error:
        decompress(JSON, encoding, LIMIT)

    assert len(str(error.value)) < 200
    assert str(error.value).isprintable()


@each_writer
def test_the_limit_is_kept_to_the_byte(encoding: str, write: Callable[[bytes], bytes]) -> None:
    assert decompress(write(bytes(LIMIT)), encoding, LIMIT) == bytes(LIMIT)
    with pytest.raises(PayloadTooLarge, match="PIPELINE_MAX_BODY"):
        decompress(write(bytes(LIMIT + 1)), encoding, LIMIT)


@each_writer
def test_half_a_body_is_never_taken_for_a_whole_one(encoding: str, write: Callable[[bytes], bytes]) -> None:
    whole = write(JSON)

    for length in range(len(whole)):
        with pytest.raises(UndecodableBody):
            decompress(whole[:length], encoding, LIMIT)


@each_writer
def test_nothing_may_follow_the_end(encoding: str, write: Callable[[bytes], bytes]) -> None:
    for rest in (b"x", write(JSON), bytes(1000)):
        with pytest.raises(UndecodableBody):
            decompress(write(JSON) + rest, encoding, LIMIT)


@pytest.mark.parametrize("encoding", ["zstd", "gzip"])
@given(body=st.binary(max_size=200), data=st.data())
def test_damaged_bodies_are_undone_or_refused(encoding: str, body: bytes, data: st.DataObject) -> None:
    damaged = bytearray(WRITERS[encoding][1](body))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))

    for each in (bytes(damaged), body):
        try:
            decompress(each, encoding, LIMIT)
        except (UndecodableBody, PayloadTooLarge):
            continue


# --- bombs ---


def zstd_bomb(**options: int) -> bytes:
    """4 GB in 130 kB; `size` makes the frame tell so."""
    frame = zstandard.ZstdCompressor().compressobj(**options)
    return b"".join([frame.compress(bytes(MEGABYTE)) for _ in range(4096)]) + frame.flush()


def gzip_bomb() -> bytes:
    """128 MB in 130 kB."""
    member = zlib.compressobj(wbits=31)
    return b"".join([member.compress(bytes(MEGABYTE)) for _ in range(128)]) + member.flush()


def lying_zstd() -> bytes:
    """A frame that calls itself shorter than it is."""
    honest = compress(bytes(7000))
    at = 5  # behind magic number and descriptor stand two bytes: the size, less 256
    assert int.from_bytes(honest[at : at + 2], "little") == 7000 - 256
    return honest[:at] + b"\x00\x00" + honest[at + 2 :]


@pytest.mark.parametrize(
    ("encoding", "make"),
    [("zstd", zstd_bomb), ("zstd", lambda: zstd_bomb(size=4096 * MEGABYTE)), ("gzip", gzip_bomb)],
    ids=["zstd", "zstd with its size", "gzip"],
)
def test_a_bomb_is_refused_at_the_limit(encoding: str, make: Callable[[], bytes]) -> None:
    bomb = make()
    started = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooLarge):
            decompress(bomb, encoding, LIMIT)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 30 * MEGABYTE
    assert time.monotonic() - started < 2


def test_a_frame_that_lies_about_its_size_is_refused() -> None:
    with pytest.raises(UndecodableBody):
        decompress(lying_zstd(), "zstd", LIMIT)


def test_a_frame_that_asks_for_much_memory_is_refused() -> None:
    with pytest.raises(UndecodableBody, match="memory"):
        decompress(zstd_streamed(JSON, window_log=30), "zstd", LIMIT)
