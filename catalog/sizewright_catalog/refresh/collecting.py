"""Rows of one scope on their way into columns, each checked as it comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sizewright_catalog.devices import devices
from sizewright_catalog.providers.contract import WHOLE, Page
from sizewright_catalog.refresh.quarantine import Quarantine
from sizewright_catalog.refresh.row_checks import offer_problem, type_problem
from sizewright_catalog.rows import OfferRow, TypeRow
from sizewright_catalog.snapshot import Arrays
from sizewright_catalog.staging import Staging

#: The last good row of a type by its name; None where there is none.
LastType = Callable[[str], TypeRow | None]

UNREADABLE = (ValueError, TypeError, KeyError, OverflowError, ArithmeticError, AttributeError)


class Collecting:
    """Takes the pages of one attempt at one scope."""

    def __init__(self, provider: str, scope: str, last_type: LastType) -> None:
        self._provider, self._last_type = provider, last_type
        self._region = None if scope == WHOLE else scope
        self._staging, self._refused = Staging(), Staging()
        self.quarantine = Quarantine()

    @property
    def type_count(self) -> int:
        """Types that may go in."""
        return self._staging.type_count

    @property
    def offer_count(self) -> int:
        """Offers that may go in."""
        return self._staging.offer_count

    def take(self, page: Page) -> None:
        """Takes a page; what is wrong in itself is counted and left out."""
        for row in page.types:
            self._take_type(row)
        for offer in page.offers:
            self._take_offer(offer)

    def arrays(self) -> Arrays:
        """The columns of what came."""
        return self._staging.arrays()

    def refused(self) -> Arrays:
        """The offers that came with a price that is wrong in itself; their prices mean nothing."""
        return self._refused.arrays()

    def _take_type(self, row: TypeRow) -> None:
        problem = ""
        try:
            problem = type_problem(row, self._provider)
            if not problem:
                self._staging.add_type(row)
        except UNREADABLE as error:
            problem = f"a type that cannot be read: {type(error).__name__}: {error}"
        if problem:
            self.quarantine.hold(problem, str(row.type))
        elif row.device and row.device not in devices():
            words = "a device that is not in the device table: listed, never sized"
            self.quarantine.hold(words, f"{row.type} ({row.device})")

    def _take_offer(self, row: OfferRow) -> None:
        problem = ""
        try:
            problem = offer_problem(row, self._provider, self._region)
            if not self._has_type(row.type):
                problem = problem or "an offer of a type that did not come"
            elif problem:
                self._refuse(row)
            else:
                self._staging.add_offer(row)
        except UNREADABLE as error:
            problem = f"an offer that cannot be read: {type(error).__name__}: {error}"
        if problem:
            self.quarantine.hold(problem, f"{row.type} in {row.region}, {row.term}")

    def _refuse(self, row: OfferRow) -> None:
        """Notes which offer it was, so that its last good row stays."""
        last = self._last_type(row.type)
        if last is not None:
            self._refused.add_type(last)
            self._refused.add_offer(replace(row, per_hour_nanos=1))

    def _has_type(self, name: str) -> bool:
        """Whether a type has come; where it did not, its last good row does."""
        if self._staging.knows(self._provider, name):
            return True
        last = self._last_type(name)
        if last is None:
            return False
        self._staging.add_type(last)
        return True
