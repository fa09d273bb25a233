"""When a provider is refreshed next."""

from __future__ import annotations

import random
from dataclasses import replace

from sizewright_catalog.providers.contract import Schedule
from sizewright_catalog.published import ProviderRecord, RunningRefresh

#: First wait after a failure, in seconds; it doubles with each failure up to the schedule's own.
FIRST_RETRY_SECONDS = 60.0
#: No schedule spreads its runs by a larger share.
MOST_JITTER = 0.5


def after_success(schedule: Schedule, now: float, spread: random.Random) -> float:
    """When to refresh after one that went in."""
    return now + _jittered(schedule.every_seconds, schedule.jitter, spread)


def after_failure(schedule: Schedule, now: float, failures: int, spread: random.Random) -> float:
    """When to try again after `failures` in a row, at least 1."""
    wait = min(FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, 30), schedule.every_seconds)
    return now + _jittered(wait, schedule.jitter, spread)


def is_due(record: ProviderRecord | None, now: float) -> bool:
    """Whether to refresh now.

    A next try further off than any schedule puts it was written by a clock that has jumped back
    since: then it is due.
    """
    if record is None or record.next_try is None:
        return True
    longest = record.every_seconds * (1 + MOST_JITTER)
    return now >= record.next_try or record.next_try - now > longest


def begun(
    record: ProviderRecord,
    schedule: Schedule,
    running: RunningRefresh,
    spread: random.Random,
) -> ProviderRecord:
    """The record while a refresh runs. One that is killed leaves a next try that is not at once.

    A refresh found running here was killed: whoever holds its lock now is this one.
    """
    killed = record.running
    if killed is not None:
        record = replace(
            record,
            last_error=f"the refresh of process {killed.pid} ended without a word: it was killed",
            last_error_at=running.since,
            failures=record.failures + 1,
        )
    return replace(
        record,
        last_attempt=running.since,
        next_try=after_failure(schedule, running.since, record.failures + 1, spread),
        every_seconds=schedule.every_seconds,
        running=running,
    )


def failed(
    record: ProviderRecord, schedule: Schedule, now: float, reason: str, spread: random.Random
) -> ProviderRecord:
    """The record after a refresh that did not go in."""
    failures = record.failures + 1
    return replace(
        record,
        last_error=reason,
        last_error_at=now,
        failures=failures,
        next_try=after_failure(schedule, now, failures, spread),
        every_seconds=schedule.every_seconds,
        running=None,
    )


def _jittered(seconds: float, share: float, spread: random.Random) -> float:
    share = min(share, MOST_JITTER)
    return seconds * (1 + share * spread.uniform(-1, 1))
