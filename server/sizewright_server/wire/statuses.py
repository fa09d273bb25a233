"""How each provider's refreshes go, as messages."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration

from sizewright.v1 import catalog_pb2 as pb
from sizewright_catalog.catalog import Catalog
from sizewright_catalog.provider_status import ProviderStatus, provider_statuses
from sizewright_catalog.published import HeldBack, ProviderRecord, Published
from sizewright_catalog.refresh.liveness import is_alive
from sizewright_server import clock
from sizewright_server.wire.machines import moment, timestamp

INTERRUPTED = "the refresh was ended before it could say what became of it"


def provider_messages(catalog: Catalog, published: Published) -> list[pb.ProviderStatus]:
    """Every provider that the catalog holds or that is refreshed, by name."""
    held = {status.provider: status for status in provider_statuses(catalog)}
    names = sorted({*held, *published.providers})
    now = clock.now()
    return [
        _provider(name, held.get(name), published.providers.get(name), catalog, now)
        for name in names
    ]


def quarantine_messages(held: Iterable[HeldBack]) -> list[pb.Quarantine]:
    """What was held back."""
    return [
        pb.Quarantine(reason=one.reason, row_count=one.count, examples=one.examples) for one in held
    ]


def failed_messages(failed: dict[str, str]) -> list[pb.FailedScope]:
    """Scopes that failed."""
    return [pb.FailedScope(scope=scope, reason=reason) for scope, reason in failed.items()]


def age_seconds(name: str, record: ProviderRecord | None, catalog: Catalog, now: float) -> float:
    """Since a provider's rows were taken or found unchanged, whatever happened to other providers.

    A clock that jumped back gives 0.
    """
    since = catalog.as_of.get(name, now)
    if record is not None and record.last_success is not None:
        since = max(since, record.last_success)
    return max(0.0, now - since)


def _provider(
    name: str,
    held: ProviderStatus | None,
    record: ProviderRecord | None,
    catalog: Catalog,
    now: float,
) -> pb.ProviderStatus:
    message = pb.ProviderStatus(
        provider=name,
        refresh_state=_state(record),
        age=Duration(seconds=int(age_seconds(name, record, catalog, now))),
    )
    if held is not None:
        message.offer_count = held.offer_count
        message.instance_type_count = held.instance_type_count
        message.oldest_price_time.CopyFrom(timestamp(held.oldest_price_day))
        message.newest_price_time.CopyFrom(timestamp(held.newest_price_day))
        message.estimated_offer_count = held.estimated_offer_count
    if record is not None:
        _add_record(message, record)
    return message


def _add_record(message: pb.ProviderStatus, record: ProviderRecord) -> None:
    times = {
        "last_success_time": record.last_success,
        "last_attempt_time": record.last_attempt,
        "last_error_time": record.last_error_at,
        "next_try_time": record.next_try,
    }
    for field, seconds in times.items():
        if seconds is not None:
            getattr(message, field).CopyFrom(moment(seconds))
    message.last_error = record.last_error
    message.failure_count = record.failures
    message.quarantines.extend(quarantine_messages(record.held_back))
    message.failed_scopes.extend(failed_messages(record.failed_scopes))
    running = record.running
    if running is not None and not is_alive(running):
        # Whoever refreshes next writes this down; until then readers say it.
        message.last_error = INTERRUPTED
        message.last_error_time.CopyFrom(moment(running.since))
        message.failure_count = record.failures + 1


def _state(record: ProviderRecord | None) -> pb.RefreshState.ValueType:
    if record is None:
        return pb.REFRESH_STATE_BUNDLED
    if record.running is not None:
        alive = is_alive(record.running)
        return pb.REFRESH_STATE_RUNNING if alive else pb.REFRESH_STATE_FAILING
    if record.last_success is None:
        failed = record.failures > 0
        return pb.REFRESH_STATE_FAILING if failed else pb.REFRESH_STATE_BUNDLED
    if record.failures and not record.failed_scopes:
        return pb.REFRESH_STATE_FAILING
    partial = record.failed_scopes or record.held_back
    return pb.REFRESH_STATE_PARTIAL if partial else pb.REFRESH_STATE_OK
