"""Bytes of a table and its target in the container that holds them."""

from __future__ import annotations

from sizewright_server.estimation.classical.job import ITEM_BYTES, Table
from sizewright_server.estimation.classical.parts import CODE, EXACT, Doubt, part
from sizewright_server.estimation.memory import Part

#: A Python string object of ASCII text: header and terminator (sys.getsizeof("") on CPython 3.11).
STRING_HEADER_BYTES = 49
POINTER_BYTES = 8
#: Mean characters of an English word, with the blank after it.
WORD_CHARACTERS = 6
#: Pages of a mapped file are shared with the page cache and reclaimable.
MAPPED = Doubt(0.0, 1.0, "medium")


def table_parts(table: Table, *, target: bool = True) -> tuple[Part, ...]:
    """The features and, with `target`, the labels as scikit-learn's users hold them: 8 bytes."""
    made = _strings(table) if _text_alone(table) else (_features(table), *_strings(table))
    return (*made, _labels(table.rows)) if target and table.rows else made


def _text_alone(table: Table) -> bool:
    """Whether the columns that are encoded are the text columns themselves."""
    return table.strings is not None and table.strings.columns == table.columns


def _strings(table: Table) -> tuple[Part, ...]:
    text = table.strings
    if text is None:
        return ()
    one = string_bytes(table.rows, text.length, storage=text.storage, distinct=text.distinct)
    numbers = f"{text.columns} x {table.rows:,} of {text.length} characters, {text.storage}"
    source = "sys.getsizeof; pandas 3 str is Arrow's large_string; categories are codes"
    formula = "columns x (rows x pointer, offset or code + characters)"
    return (part("string-columns", text.columns * one, formula, numbers, source, CODE),)


def string_bytes(rows: int, length: int, *, storage: str, distinct: int | None = None) -> int:
    """One column of ASCII strings with a mean `length`.

    `object`: a pointer per row and an object per distinct string (pandas before 3). `arrow`: a
    64-bit offset per row and the characters (pandas 3's `str`, large_string). `categorical`: a
    code per row, 1, 2 or 4 bytes wide by the number of categories, and the categories once.
    Raises KeyError for another storage.
    """
    kinds = distinct if distinct is not None else rows
    text = {
        "object": rows * POINTER_BYTES + kinds * (STRING_HEADER_BYTES + length),
        "arrow": rows * (8 + length),
        "categorical": rows * code_bytes(kinds) + kinds * (8 + length),
    }
    return text[storage]


def code_bytes(categories: int) -> int:
    """Bytes of a pandas category code: the smallest signed integer that counts them."""
    return next(width for width in (1, 2, 4, 8) if categories < 2 ** (8 * width - 1))


def _features(table: Table) -> Part:
    if table.text_tokens:
        each = POINTER_BYTES + STRING_HEADER_BYTES + table.text_tokens * WORD_CHARACTERS
        numbers = f"{table.rows:,} x {each} B"
        text = "documents x (string + words x 6 characters)"
        return part("features", table.rows * each, text, numbers, "a list of str", CODE)
    size = table.matrix_bytes()
    shape = f"{table.rows:,} x {table.columns:,} x {table.item_bytes} B"
    if table.sparse:
        return part(
            "features",
            size,
            "non-zeros x (value + index) + rows x pointer",
            f"{table.stored_elements:,} of {shape}",
            "scipy.sparse.csr_matrix: data, indices, indptr",
            EXACT,
        )
    if table.container == "memory-mapped":
        source = "numpy.memmap: pages that were read stay resident while memory is free"
        return part("features", size, "rows x columns x bytes, mapped", shape, source, MAPPED)
    if table.container == "streaming":
        source = "an iterator that yields batches and keeps none"
        return part("features", 0, "one batch at a time", shape, source, EXACT)
    source = "contiguous arrays: NumPy, a pandas block, or Arrow without nulls"
    doubt = EXACT if table.container == "numpy" else CODE
    return part("features", size, "rows x columns x bytes", shape, source, doubt)


def _labels(rows: int) -> Part:
    width = ITEM_BYTES["int64"]
    return part(
        "target", rows * width, "rows x 8 B", f"{rows:,} x {width} B", "int64 or float64", EXACT
    )
