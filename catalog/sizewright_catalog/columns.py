"""The columns of a version: selecting rows of one, merging several into one, comparing two.

Everything here is arithmetic on whole columns. A text column holds positions in a dictionary that
the file carries once; -1 stands for none. Merged columns have one canonical order, so that equal
content gives equal bytes and with them the same version.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sizewright_catalog.snapshot import Arrays, read_text, text_array
from sizewright_catalog.values import AVAILABILITIES

Ints = NDArray[Any]

#: Column to the dictionary it points into.
DICTIONARIES = {
    "type_provider": "providers",
    "type_device": "devices",
    "type_reason": "reasons",
    "type_local_disk_source": "local_disk_sources",
    "type_fabric": "fabrics",
    "type_network_source": "network_sources",
    "offer_region": "regions",
    "offer_zones": "zone_sets",
    "offer_zone": "zones",
    "offer_commitment": "commitments",
    "offer_currency": "currencies",
    "offer_source": "sources",
    "offer_interruption_source": "interruption_sources",
}
#: Entries that come first in their dictionary, whether used or not: position 0 means them.
FIRST = {
    "reasons": "",
    "zones": "",
    "commitments": "",
    "currencies": "USD",
    "local_disk_sources": "",
    "fabrics": "",
    "network_sources": "",
    "interruption_sources": "",
}

TYPE_COLUMNS: dict[str, type[np.generic]] = {
    "type_provider": np.int16,
    "type_vcpus": np.int32,
    "type_cpu": np.int8,
    "type_host_nominal_bytes": np.int64,
    "type_host_visible_bytes": np.int64,
    "type_host_usable_bytes": np.int64,
    "type_host_measured": np.bool_,
    "type_device": np.int16,
    "type_device_count": np.int16,
    "type_slice": np.float64,
    "type_gpu_usable_bytes": np.int64,
    "type_reason": np.int16,
    "type_availability": np.int8,
    "type_local_disk_bytes": np.int64,
    "type_local_disk_source": np.int16,
    "type_network_mbps": np.int32,
    "type_fabric": np.int16,
    "type_network_source": np.int16,
}
OFFER_COLUMNS: dict[str, type[np.generic]] = {
    "offer_type": np.int32,
    "offer_region": np.int16,
    "offer_zones": np.int32,
    "offer_zone": np.int16,
    "offer_term": np.int8,
    "offer_commitment": np.int16,
    "offer_nanos": np.int64,
    "offer_currency": np.int8,
    "offer_kind": np.int8,
    "offer_day": np.int32,
    "offer_second": np.int32,
    "offer_source": np.int16,
    "offer_availability": np.int8,
    "offer_spot_low_nanos": np.int64,
    "offer_spot_median_nanos": np.int64,
    "offer_placement_score": np.int8,
    "offer_interruption_low_percent": np.int8,
    "offer_interruption_high_percent": np.int8,
    "offer_interruption_source": np.int16,
}
#: What makes an offer itself, the price apart.
IDENTITY = (
    "offer_type",
    "offer_region",
    "offer_zone",
    "offer_term",
    "offer_commitment",
    "offer_currency",
)

AVAILABLE = AVAILABILITIES.index("available")
UNPRICED = AVAILABILITIES.index("unpriced")


def fit(values: Any, dtype: type[np.generic]) -> NDArray[Any]:
    """Values in a column's own type. Raises ValueError for one that does not fit."""
    wide = np.asarray(values)
    made = wide.astype(dtype)
    if not np.array_equal(made, wide):
        raise ValueError(f"a value does not fit {dtype.__name__}")
    return made


def select(arrays: Arrays, offers: Ints, types: Ints | None = None) -> Arrays:
    """The offers under a mask, and the types under another or else those the offers use."""
    if types is None:
        types = np.zeros(len(arrays["type_vcpus"]), dtype=np.bool_)
        types[arrays["offer_type"][offers]] = True
    if offers.all() and types.all():
        return arrays
    number = np.cumsum(types) - 1
    made = dict(arrays)
    for column in TYPE_COLUMNS:
        made[column] = arrays[column][types]
    for column in OFFER_COLUMNS:
        made[column] = arrays[column][offers]
    made["offer_type"] = number[made["offer_type"]].astype(np.int32)
    names = np.array(read_text(arrays["type_name"]), dtype=object)[types]
    made["type_name"] = text_array(list(names))
    return made


def merge(parts: Sequence[Arrays]) -> tuple[Arrays, int]:
    """One version of several parts, in canonical order, and how many offers were there twice.

    Of a type that several parts describe the first part's row holds; of an offer that is there
    twice the cheaper one. Raises ValueError when there is more than a column can number.
    """
    made: Arrays = {}
    lookups = _dictionaries(parts, made)
    numbers = _merge_types(parts, lookups, made)
    for column, dtype in OFFER_COLUMNS.items():
        pieces = []
        for i, part in enumerate(parts):
            values = part[column]
            if column == "offer_type":
                values = numbers[i][values]
            elif column in DICTIONARIES:
                values = lookups[i][DICTIONARIES[column]][values]
            pieces.append(fit(values, dtype))
        made[column] = np.concatenate(pieces)
    twice = _order_offers(made)
    if twice:
        # Rows that went may have been the last to use a dictionary's entry.
        made, _ = merge([made])
    _mark_unpriced(made)
    return made, twice


def _dictionaries(parts: Sequence[Arrays], made: Arrays) -> list[dict[str, Ints]]:
    """Writes the merged dictionaries; per part and dictionary, the new position of each old one.

    Only entries in use are kept.
    """
    lookups: list[dict[str, Ints]] = [{} for _ in parts]
    for column, dictionary in DICTIONARIES.items():
        texts = [read_text(part[dictionary]) for part in parts]
        used: set[str] = set()
        for part, names in zip(parts, texts, strict=True):
            used |= {names[i] for i in np.unique(part[column]).tolist() if i >= 0 and names}
        first = FIRST.get(dictionary)
        ordered = sorted(used - {first}) if first is not None else sorted(used)
        ordered = [first, *ordered] if first is not None else ordered
        position = {text: i for i, text in enumerate(ordered)}
        for lookup, names in zip(lookups, texts, strict=True):
            # The last entry is what -1 reaches: none stays none.
            lookup[dictionary] = np.array([*(position.get(n, -1) for n in names), -1])
        made[dictionary] = text_array(ordered)
    return lookups


def _merge_types(
    parts: Sequence[Arrays], lookups: list[dict[str, Ints]], made: Arrays
) -> list[Ints]:
    """Writes the merged types, by provider and name; per part the new number of each old type."""
    held: dict[tuple[int, str], tuple[int, int]] = {}
    keys: list[list[tuple[int, str]]] = []
    for i, part in enumerate(parts):
        owners = lookups[i]["providers"][part["type_provider"]].tolist()
        mine = list(zip(owners, read_text(part["type_name"]), strict=True))
        keys.append(mine)
        for row, key in enumerate(mine):
            held.setdefault(key, (i, row))
    ordered = sorted(held)
    number = {key: n for n, key in enumerate(ordered)}
    made["type_name"] = text_array([name for _, name in ordered])
    starts = np.cumsum([0, *(len(mine) for mine in keys)])
    rows = np.array([starts[held[key][0]] + held[key][1] for key in ordered], dtype=np.int64)
    for column, dtype in TYPE_COLUMNS.items():
        pieces = []
        for i, part in enumerate(parts):
            values = part[column]
            if column in DICTIONARIES:
                values = lookups[i][DICTIONARIES[column]][values]
            pieces.append(fit(values, dtype))
        made[column] = np.concatenate(pieces)[rows]
    return [np.array([number[key] for key in mine], dtype=np.int32) for mine in keys]


def identities(arrays: Arrays, sizes: Sequence[int] = ()) -> NDArray[np.int64]:
    """One number per offer, equal for the same offer of the same dictionaries.

    `sizes` are how many values each column of IDENTITY may have, where that must be common to
    several. Raises ValueError when they are too many for that.
    """
    sizes = sizes or [int(arrays[column].max(initial=0)) + 1 for column in IDENTITY]
    if math.prod(sizes) >= 2**63:
        raise ValueError("the dictionaries are too long to number every offer")
    keys = np.zeros(len(arrays["offer_type"]), dtype=np.int64)
    for column, size in zip(IDENTITY, sizes, strict=True):
        keys *= size
        keys += arrays[column]
    return keys


def align(one: Arrays, other: Arrays) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The identities of two versions' offers over common dictionaries: equal for the same offer."""
    parts, made = [one, other], [dict(one), dict(other)]
    numbers = {key: n for n, key in enumerate(sorted({*type_keys(one), *type_keys(other)}))}
    for part, into in zip(parts, made, strict=True):
        lookup = np.array([numbers[key] for key in type_keys(part)], dtype=np.int64)
        into["offer_type"] = lookup[part["offer_type"]]
    for column in IDENTITY:
        dictionary = DICTIONARIES.get(column)
        if dictionary is None:
            continue
        texts = [read_text(part[dictionary]) for part in parts]
        position = {text: n for n, text in enumerate(sorted({*texts[0], *texts[1]}))}
        for part, into, names in zip(parts, made, texts, strict=True):
            lookup = np.array([position[name] for name in names], dtype=np.int64)
            into[column] = lookup[part[column]]
    sizes = [max(int(m[column].max(initial=0)) for m in made) + 1 for column in IDENTITY]
    return identities(made[0], sizes), identities(made[1], sizes)


def type_keys(arrays: Arrays) -> list[tuple[str, str]]:
    """Provider and name of every type."""
    providers = read_text(arrays["providers"])
    owners = (providers[i] for i in arrays["type_provider"].tolist())
    return list(zip(owners, read_text(arrays["type_name"]), strict=True))


def _order_offers(made: Arrays) -> int:
    """Orders the offers by type and price, each once at its lowest price; how many were dearer."""
    keys = identities(made)
    by_key = np.lexsort((made["offer_nanos"], keys))
    ordered = keys[by_key]
    first = np.ones(len(ordered), dtype=np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    kept = by_key[first]
    final = kept[np.lexsort((keys[kept], made["offer_nanos"][kept], made["offer_type"][kept]))]
    for column in OFFER_COLUMNS:
        made[column] = made[column][final]
    return len(ordered) - len(final)


def _mark_unpriced(made: Arrays) -> None:
    """Types that could be bought if anyone knew their price, and those whose price came."""
    marks = made["type_availability"]
    priced = np.zeros(len(marks), dtype=np.bool_)
    priced[made["offer_type"]] = True
    marks[(marks == AVAILABLE) & ~priced] = UNPRICED
    marks[(marks == UNPRICED) & priced] = AVAILABLE
