"""What a refresh tells while it runs: one JSON object a line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from sizewright_catalog.diff import OfferChanges
from sizewright_catalog.published import HeldBack

#: The stages of a refresh, in order, and the three in which it ends.
STAGES = ("start", "fetch", "check", "merge", "write", "commit", "publish")
ENDS = ("done", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Event:
    """Where the refresh of a provider is."""

    provider: str
    stage: str
    message: str = ""
    done_scopes: int = 0
    scopes: int = 0
    offers: int = 0
    types: int = 0
    version: str = ""
    held_back: tuple[HeldBack, ...] = ()
    failed_scopes: dict[str, str] = field(default_factory=dict)
    changes: OfferChanges | None = None
    #: Why a refresh failed that never began: another one runs.
    already_running: bool = False

    @property
    def is_last(self) -> bool:
        """Whether the provider's refresh ends with it."""
        return self.stage in ENDS


def line_of(event: Event) -> str:
    """An event as a line."""
    return json.dumps(asdict(event)) + "\n"


def read_line(line: str) -> Event:
    """The event of a line. Raises ValueError, KeyError or TypeError for one that is none."""
    document = json.loads(line)
    changes = document["changes"]
    held = tuple(
        HeldBack(one["reason"], one["count"], tuple(one["examples"]))
        for one in document["held_back"]
    )
    if changes is not None:
        lists = {name: tuple(changes[name]) for name in ("added_types", "removed_types")}
        changes = OfferChanges(**{**changes, **lists})
    return Event(**{**document, "held_back": held, "changes": changes})
