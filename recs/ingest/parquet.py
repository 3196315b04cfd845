"""Parquet, row by row in bounded memory. Imported where a Parquet file is met: pyarrow costs 45 MB and its time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from recs.errors import InputError
from recs.ingest.lines import damaged
from recs.ingest.mapping import ColumnMapping
from recs.ingest.records import RawRecord, Reject
from recs.ingest.rows import FlatRows, RowGrouper
from recs.ingest.stream import DamagedStream

#: Rows of a row group that are decoded at a time.
_BATCH_ROWS = 1024


def read_parquet(
    source: str, path: Path, mapping: ColumnMapping | None, make_rows: Callable[[ColumnMapping], RowGrouper | FlatRows]
) -> Iterator[RawRecord | Reject]:
    """Yield what the rows of a Parquet file amount to; raises InputError where it cannot be opened or mapped."""
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as exc:
        raise InputError(f"cannot read {path}: it begins like Parquet, and is damaged: {exc}") from exc
    with file:
        names = file.schema_arrow.names
        mapping = mapping or ColumnMapping.of_header(names)
        if missing := mapping.missing(names):
            raise InputError(f"{path} has no column {', '.join(missing)}; it has {', '.join(names)[:500]}")
        rows = make_rows(mapping)
        columns = sorted(set(mapping.columns.values()))
        number = 0
        try:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield from rows.add(number, row)
        except (pa.ArrowException, OSError) as exc:
            damage = DamagedStream("parquet_damaged", f"the Parquet file is damaged: {exc}")
            yield from rows.finish()
            yield damaged(source, number + 1, None, b"", damage)
            return
        yield from rows.finish()
