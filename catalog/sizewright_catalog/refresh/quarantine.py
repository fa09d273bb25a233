"""What checks hold back: counts by reason, with a few examples each."""

from __future__ import annotations

from sizewright_catalog.published import HeldBack

#: Examples kept of one reason, and reasons told apart.
EXAMPLES, REASONS = 5, 50


class Quarantine:
    """Counts what is held back. One belongs to one thread."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[int, list[str]]] = {}

    def hold(self, reason: str, example: str, count: int = 1) -> None:
        """Counts `count` rows under a reason."""
        if reason not in self._held and len(self._held) >= REASONS:
            reason = "other reasons"
        held, examples = self._held.get(reason, (0, []))
        if len(examples) < EXAMPLES and example not in examples:
            examples.append(example)
        self._held[reason] = (held + count, examples)

    def add(self, other: Quarantine) -> None:
        """Takes over what another counted."""
        for reason, (count, examples) in other._held.items():
            for example in examples:
                self.hold(reason, example, 0)
            self.hold(reason, examples[0] if examples else "", count)

    def told(self) -> tuple[HeldBack, ...]:
        """By count, the largest first."""
        made = (HeldBack(reason, n, tuple(some)) for reason, (n, some) in self._held.items())
        return tuple(sorted(made, key=lambda held: (-held.count, held.reason)))
