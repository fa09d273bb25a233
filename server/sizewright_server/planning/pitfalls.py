"""The classic pitfalls of sizing, each said only when it is true of this workload on this plan.

Every rule is a function from a situation to the notices that are true of it, with its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from sizewright_server.estimation.memory import Notice
from sizewright_server.planning.pitfalls_of_data import DATA
from sizewright_server.planning.pitfalls_of_devices import DEVICES
from sizewright_server.planning.pitfalls_of_fits import FITS
from sizewright_server.planning.pitfalls_of_time import TIME
from sizewright_server.planning.situation import Situation

Rules: TypeAlias = tuple[Callable[[Situation], Iterator[Notice]], ...]
RULES: Rules = (*DEVICES, *DATA, *FITS, *TIME)
#: Those that can be true of what is no fit.
OF_NETWORKS: Rules = (*DEVICES, *DATA, *TIME)


def pitfalls(situation: Situation) -> tuple[Notice, ...]:
    """What is true of a plan and easily overlooked."""
    rules = OF_NETWORKS if situation.model is not None else RULES
    return tuple(notice for rule in rules for notice in rule(situation))
