"""Turns a Parquet file of unknown origin into an Arrow table, within limits: a few kilobytes can state billions of equal rows."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from emis_interp.errors import DataError
from emis_interp.files.source_text import MAX_BYTES

MAX_ROWS = 5_000_000
ARROW_ERRORS = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError, NotImplementedError)
"""What pyarrow raises for damaged files and for values that Python's types cannot hold."""
_BATCH = 256  # rows; a dictionary can make every one of them as large as the file


def read_arrow(source: Path | bytes, where: str) -> Any:
    """The table of a Parquet file, or of its bytes.

    Args:
        where: the file, for errors.

    Raises:
        DataError: more than `MAX_ROWS` rows, more than `MAX_BYTES` unpacked, or a damaged file.
    """
    try:
        # A path that holds `condition=base/` is no column: read_table would make one of it.
        file = pq.ParquetFile(io.BytesIO(source) if isinstance(source, bytes) else source)
        n_rows = file.metadata.num_rows
        if n_rows > MAX_ROWS:
            raise DataError(f"{where}: {n_rows:,} rows, at most {MAX_ROWS:,} are read; take a part of them")
        n_bytes = 0
        batches = []
        for batch in file.iter_batches(batch_size=_BATCH):
            n_bytes += batch.nbytes
            if n_bytes > MAX_BYTES:
                raise DataError(f"{where}: unpacks to more than {MAX_BYTES:,} bytes; take a part of it")
            batches.append(batch)
        return pa.Table.from_batches(batches, file.schema_arrow).combine_chunks()
    except (*ARROW_ERRORS, MemoryError) as error:
        words = " ".join(str(error).split())[:200]
        raise DataError(f"{where}: not a readable parquet table ({words}); write it again") from None
