"""What is kept of what was made before, a few at a time."""

from __future__ import annotations

from typing import TypeVar

Key = TypeVar("Key")
Made = TypeVar("Made")


def keep(kept: dict[Key, Made], key: Key, made: Made, most: int) -> None:
    """Keeps one more of at most `most`: the oldest go. Several threads may keep at once."""
    while len(kept) >= most:
        # The keys as they are now: another thread may add to them meanwhile.
        kept.pop(next(iter(tuple(kept))), None)
    kept[key] = made
