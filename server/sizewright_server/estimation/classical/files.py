"""Peaks of reading CSV and Parquet files: the file's text, columns in chunks, and the frame."""

from __future__ import annotations

from dataclasses import dataclass

from sizewright_server.estimation.classical.batches import BATCH_ROWS
from sizewright_server.estimation.classical.constants import constant
from sizewright_server.estimation.classical.dataset import string_bytes
from sizewright_server.estimation.classical.job import Table, TableFile
from sizewright_server.estimation.classical.parts import CODE, EXACT, Doubt, part
from sizewright_server.estimation.memory import Part

F8 = 8
#: Characters of a value in a CSV, with its separator: repr of a random double, of a short number.
FLOAT_CHARACTERS = 19.5
SHORT_CHARACTERS = 5
#: A file whose size is not stated is computed from its columns.
FILE = Doubt(0.6, 1.2, "medium")


@dataclass(frozen=True, slots=True)
class FileColumns:
    """A file: rows, and columns by kind. `numbers` are 8-byte columns; `short` print short."""

    rows: int
    numbers: int = 0
    short: int = 0
    strings: int = 0
    string_length: int = 12
    string_distinct: int | None = None
    file_bytes: int | None = None
    item_bytes: int = F8
    storage: str = "arrow"

    @property
    def number_bytes(self) -> int:
        """Bytes of the numeric columns in memory."""
        return self.rows * (self.numbers + self.short) * self.item_bytes

    @property
    def text_bytes(self) -> int:
        """Bytes of the string columns as pandas 3 keeps them, in Arrow, or as categories."""
        one = string_bytes(
            self.rows,
            self.string_length,
            storage=self.storage,
            distinct=self.string_distinct,
        )
        return self.strings * one

    def csv_bytes(self) -> int:
        """The file's size: stated, or from its values."""
        if self.file_bytes is not None:
            return self.file_bytes
        width = self.numbers * FLOAT_CHARACTERS + self.short * SHORT_CHARACTERS
        return int(self.rows * (width + self.strings * (self.string_length + 1)))

    def parquet_bytes(self) -> int:
        """The file's size: stated, or its numbers plain and its strings as dictionary or plain."""
        if self.file_bytes is not None:
            return self.file_bytes
        distinct = self.string_distinct if self.string_distinct is not None else self.rows
        text = self.strings * (self.rows * 2 + min(distinct, self.rows) * self.string_length)
        return self.rows * self.numbers * F8 + self.rows * self.short * 2 + text


def _columns(file: FileColumns) -> tuple[Part, ...]:
    numbers = f"{file.rows:,} x {file.numbers + file.short} x {file.item_bytes} B"
    text = "rows x (offset 8 + characters) a column"
    shown = f"{file.strings} x {file.rows:,} x (8 + {file.string_length}) B"
    return (
        part("numeric-columns", file.number_bytes, "rows x columns", numbers, "pandas", EXACT),
        part("string-columns", file.text_bytes, text, shown, "pandas 3 str: large_string", CODE),
    )


def _file(size: int, *, stated: bool, source: str) -> Part:
    doubt = EXACT if stated else FILE
    return part("file-text", size, "the file's bytes", f"{size:,} B", source, doubt)


def csv_parts(file: FileColumns, *, engine: str = "c") -> tuple[Part, ...]:
    """What pandas.read_csv holds.

    The C engine holds the text it has read, the columns in chunks, and the joined columns; Arrow
    strings are joined without a copy. The pyarrow engine holds the text, Arrow's columns and
    pandas' blocks.
    """
    source = "pandas/_libs/parsers.pyx, io/parsers/c_parser_wrapper.py _concatenate_chunks"
    text = _file(file.csv_bytes(), stated=file.file_bytes is not None, source=source)
    chunks = part("chunks", file.number_bytes, "numeric columns again, in chunks", "", source)
    parts = [*_columns(file), text, chunks]
    if engine == "pyarrow":
        arrow = "pyarrow.csv: blocks parsed ahead, the pool keeps what it freed"
        ahead = constant("network", "arrow_csv_pool")
        pool = file.number_bytes + file.text_bytes // 4
        parts.append(ahead.part("arrow-pool", arrow, pool))
    return tuple(parts)


def parquet_parts(file: FileColumns, *, to_pandas: bool = True) -> tuple[Part, ...]:
    """What pandas.read_parquet holds: the file's chunks, Arrow's columns, and pandas' blocks.

    Arrow's pool keeps what it freed, so nearly all of it is resident at once; without pandas its
    columns are all there is.
    """
    source = "pyarrow: parquet reader with pre_buffer, Table.to_pandas consolidating blocks"
    size = file.parquet_bytes()
    doubt = EXACT if file.file_bytes is not None else FILE
    text = constant("network", "arrow_string_copies")
    pool = constant("network", "arrow_pool")
    made = [
        *_columns(file),
        part("column-chunks", size, "compressed column chunks", f"{size:,} B", source, doubt),
        text.part("string-decoding", "32-bit offsets, dictionaries, cast", file.text_bytes),
        pool.part("arrow-pool", "decoded pages the pool keeps", file.number_bytes),
    ]
    if to_pandas:
        arrow = "numeric columns in Arrow"
        made.append(part("arrow-columns", file.number_bytes, arrow, "", source))
    return tuple(made)


def file_parts(table: Table, file: TableFile) -> tuple[Part, ...]:
    """What reading a table's file holds, beside the process; in chunks, one and what was kept.

    A stream keeps none of them.
    """
    text = table.strings
    streamed = table.container == "streaming"
    chunk = file.chunk_rows or (BATCH_ROWS if streamed else 0)
    rows = min(table.rows, chunk) if chunk else table.rows
    columns = FileColumns(
        rows,
        table.columns,
        0,
        text.columns if text else 0,
        text.length if text else 0,
        text.distinct if text else None,
        None if file.size_bytes is None else file.size_bytes * rows // max(1, table.rows),
        8 if table.dtype in ("float64", "int64") else table.item_bytes,
        text.storage if text else "arrow",
    )
    if file.format == "parquet":
        made = parquet_parts(columns, to_pandas=file.reader != "arrow")
    else:
        made = csv_parts(columns, engine="c" if file.reader == "pandas" else "pyarrow")
    if rows == table.rows or streamed:
        return made
    kept = table.matrix_bytes()
    return (*made, part("chunks-kept", kept, "all rows, as they come", f"{kept:,} B", "pandas"))
