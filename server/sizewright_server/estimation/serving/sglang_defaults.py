"""What SGLang takes where nothing is stated: the prefill chunk and the static share of a GPU.

Source: sglang/srt/server_args.py of 0.4.6, 0.5.2, 0.5.4 and 0.5.9; the numbers are in
`data/sglang_defaults.json`.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

from sizewright_server.estimation.data_files import data_of
from sizewright_server.estimation.serving.model import Encoder
from sizewright_server.estimation.serving.rules import Version, parse_version
from sizewright_server.estimation.serving.stages import Setup

GIB = 2**30
MIB = 2**20
#: A GPU whose size is not known is taken to be a large one.
USUAL_BYTES = 80 * GIB
#: A tower of this shape takes the base share off; every doubling of it a tenth more, in bounds.
TOWER_LAYERS, TOWER_HIDDEN, TOWER_SHARE, TOWER_STEP = 24, 1024, 0.95, 0.1
TOWER_BOUNDS = (0.8, 1.05)
#: Drafts of so few layers stand on the model's own states (EAGLE, MTP); others are whole models.
MOST_HEAD_LAYERS = 2


@cache
def _table() -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = data_of(
        "sizewright_server.estimation.serving", "sglang_defaults"
    )["versions"]
    return table


@lru_cache(maxsize=1024)
def _rules(version: Version | None) -> dict[str, Any]:
    """The rules of a version; None is the newest that is known."""
    found = _table()[0]
    for entry in _table():
        if version is None or (parse_version(entry["from"]) or ()) <= version:
            found = entry
    return found


def _row(version: Version | None, gpu_bytes: int) -> dict[str, Any]:
    """The defaults of a GPU of that size; 0 is not known."""
    gib = (gpu_bytes or USUAL_BYTES) / GIB
    rows: list[dict[str, Any]] = _rules(version)["by_memory"]
    return next(row for row in rows if row["below_gib"] is None or gib < row["below_gib"])


def default_chunk(version: Version | None, gpu_bytes: int) -> int:
    """Tokens of a prefill chunk."""
    return int(_row(version, gpu_bytes)["chunk"])


def default_share(setup: Setup, gpu_bytes: int, *, rounded: bool = True) -> float:
    """mem_fraction_static of a GPU of that size; the engine rounds it to three digits."""
    version, layout = setup.run.version, setup.layout
    rules, row = _rules(version), _row(version, gpu_bytes)
    if "share_by_tp" in row:
        return float(next(s for ranks, s in row["share_by_tp"] if layout.tp >= ranks))
    reserve = _reserve_mib(setup, rules, row) * MIB
    total = gpu_bytes or USUAL_BYTES
    share = (total - reserve) / total
    share = round(share, 3) if rounded else share
    if rules["towers_count"] and setup.model.encoder is not None:
        share *= tower_share(setup.model.encoder)
    return max(0.05, share)


def _reserve_mib(setup: Setup, rules: dict[str, Any], row: dict[str, Any]) -> float:
    """MiB kept out of the static share: activations, graphs, communicators."""
    run, layout = setup.run, setup.layout
    ranks = layout.tp * layout.pp
    reserve = row["reserve_mib"] + ranks * row["rank_mib"]
    graphs = row["graph_rows"][int(layout.tp >= 4)]
    if rules["by_chunk"]:
        chunk = run.max_num_batched_tokens or row["chunk"]
        reserve += 1.5 * max(chunk, 2048) + 2 * graphs
    if run.attention_data_parallel:
        wide = graphs > rules["wide_graph_rows"]
        each = rules["dp_row_mib"] + (rules["dp_wide_row_mib"] if wide else 0)
        reserve += rules["dp_mib"] + graphs * layout.tp * each
    reserve = max(reserve, row["least_mib"])
    draft = setup.tables.draft
    if draft is not None:
        reserve += rules["draft_mib"][int(len(draft.order) > MOST_HEAD_LAYERS)]
    return float(reserve)


def tower_share(tower: Encoder) -> float:
    """The factor by which a vision tower lowers the share."""
    size = tower.layers * tower.hidden**2 / (TOWER_LAYERS * TOWER_HIDDEN**2)
    low, high = TOWER_BOUNDS
    return TOWER_SHARE * max(low, min(high, 1 - TOWER_STEP * (size - 1)))
