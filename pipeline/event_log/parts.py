"""One file of an archive: JSON Lines compressed with zstd, or Parquet. In: records. Out: a file; and back.

A line is a CloudEvent in structured mode, its data last and as they were written, so that no number loses a digit.
"""

from __future__ import annotations

import io
import json
import os
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import zstandard

from pipeline.errors import ConfigurationError
from pipeline.event_log.records import LOG_EXCHANGE, LOG_KEY, LOG_OFFSET, Record, is_core, record_from

FORMATS: Mapping[str, str] = {"jsonl": "jsonl.zst", "parquet": "parquet"}
_DATA = b',"data":'
_BASE64 = b',"data_base64":"'
_TEXTS = ("id", "type", "source", "subject", "datacontenttype", "dataschema")
ROWS = 10_000  # of a Parquet file read at once


def write_part(path: Path, form: str, records: Sequence[Record]) -> None:
    """Put the part there in one piece. Raises: OSError, ConfigurationError without pyarrow."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        if form == "jsonl":
            file.write(zstandard.ZstdCompressor().compress(b"".join(_line(record) for record in records)))
        else:
            _write_parquet(file, records)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_part(path: Path, form: str) -> Iterator[Record]:
    """Its records, in their order. Raises: OSError, ValueError, KeyError, ConfigurationError."""
    if form == "parquet":
        yield from _read_parquet(path)
        return
    try:
        with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as lines:
            for line in io.BufferedReader(lines, 1024 * 1024):
                yield _record(line.rstrip(b"\n"))
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from None


def _line(record: Record) -> bytes:
    own = {LOG_OFFSET: record.offset, LOG_EXCHANGE: record.exchange, LOG_KEY: record.routing_key}
    head = json.dumps({**record.attributes, **own}, ensure_ascii=False).encode("utf-8", "replace")[:-1]
    if record.data is not None:
        return head + _DATA + record.data + b"}\n"
    return head + _BASE64 + b64encode(record.raw) + b'"}\n'


def _record(line: bytes) -> Record:
    # No attribute holds this: within a text a quotation mark has a backslash before it, and none holds an object.
    head, found, data = line.partition(_DATA)
    if found:
        return record_from(json.loads(head + b"}"), data[:-1], None)
    head, found, data = line.partition(_BASE64)
    return record_from(json.loads(head + b"}"), None, data[:-2].decode())


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as parquet
    except ImportError:
        raise ConfigurationError(
            "Parquet needs pyarrow, which is not installed: pip install 'event-pipeline[parquet]', or --format jsonl"
        ) from None
    return pa, parquet


def _write_parquet(file: Any, records: Sequence[Record]) -> None:
    pa, parquet = _pyarrow()
    schema = pa.schema(
        [
            ("offset", pa.int64()),
            *((name, pa.string()) for name in _TEXTS),
            ("time", pa.timestamp("us", tz="UTC")),
            ("exchange", pa.string()),
            ("routing_key", pa.string()),
            ("extensions", pa.string()),
            ("data", pa.string()),
            ("raw", pa.binary()),
        ]
    )
    rows = []
    for record in records:
        known = record.attributes
        more = {name: value for name, value in known.items() if not is_core(name)}
        rows.append(
            {
                "offset": record.offset,
                **{name: known.get(name) for name in _TEXTS},
                "time": datetime.fromisoformat(str(known["time"])),
                "exchange": record.exchange,
                "routing_key": record.routing_key,
                "extensions": json.dumps(more, ensure_ascii=False) if more else None,
                "data": None if record.data is None else record.data.decode(),
                "raw": record.raw if record.data is None else None,
            }
        )
    parquet.write_table(pa.Table.from_pylist(rows, schema=schema), file, compression="zstd")


def _read_parquet(path: Path) -> Iterator[Record]:
    _, parquet = _pyarrow()
    with path.open("rb") as file:
        for batch in parquet.ParquetFile(file).iter_batches(ROWS):
            for row in batch.to_pylist():
                attributes: dict[str, Any] = {
                    "specversion": "1.0",
                    **{name: row[name] for name in _TEXTS if row[name] is not None},
                    "time": row["time"].isoformat().replace("+00:00", "Z"),
                    **(json.loads(row["extensions"]) if row["extensions"] else {}),
                }
                data = None if row["data"] is None else row["data"].encode()
                own = {LOG_OFFSET: row["offset"], LOG_EXCHANGE: row["exchange"], LOG_KEY: row["routing_key"]}
                encoded = None if data is not None else b64encode(row["raw"] or b"").decode()
                yield record_from({**attributes, **own}, data, encoded)
