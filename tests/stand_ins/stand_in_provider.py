"""A provider with one price endpoint: pages of JSON over HTTP. Its source stands in for a cloud."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

from sizewright_catalog.devices import find_device
from sizewright_catalog.providers.contract import (
    FetchContext,
    Garbage,
    NotConfigured,
    Page,
    Schedule,
    Throttled,
    Unavailable,
)
from sizewright_catalog.rows import OfferRow, TypeRow, gpu_capacity, host_bytes, nanos
from sizewright_catalog.values import GIB

NAME = "standin"


class StandIn:
    """Asks http://.../regions once, and http://.../REGION?page=N until there is no next page."""

    name = NAME
    schedule = Schedule(
        every_seconds=3600, deadline_seconds=20, call_timeout_seconds=0.5, concurrency=2, attempts=3
    )

    def scopes(self, context: FetchContext) -> Sequence[str]:
        """The regions."""
        regions: list[str] = self._get(context, "regions")["regions"]
        return regions

    def fetch(self, scope: str, context: FetchContext) -> Iterator[Page]:
        """The pages of a region."""
        number = 0
        while True:
            answer = self._get(context, f"{scope}?page={number}")
            yield Page(
                [_type(item) for item in answer["types"]],
                [_offer(scope, item) for item in answer["offers"]],
            )
            if not answer["more"]:
                return
            number += 1

    def _get(self, context: FetchContext, path: str) -> Any:
        base = context.settings.get("endpoint_url")
        if not base:
            raise NotConfigured("set SIZEWRIGHT_STANDIN_ENDPOINT_URL")
        try:
            with urllib.request.urlopen(f"{base}/{path}", timeout=context.timeout()) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 429:
                wait = float(error.headers.get("Retry-After") or 0)
                raise Throttled("HTTP 429", wait) from error
            raise Unavailable(f"HTTP {error.code}") from error
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            raise Unavailable(f"{base} does not answer: {error}") from error
        except ValueError as error:
            raise Garbage(f"{path} is no JSON: {error}") from error


def _type(item: dict[str, Any]) -> TypeRow:
    nominal = int(item["memory_gib"] * GIB)
    visible, measured = host_bytes(nominal, "")
    named = item.get("gpu", "")
    device = find_device(named) if named else None
    usable, reason = gpu_capacity(device, named, 1.0) if named else (0, "")
    return TypeRow(
        provider=NAME,
        type=item["name"],
        vcpus=item["vcpus"],
        cpu_architecture="x86_64",
        host_nominal_bytes=nominal,
        host_visible_bytes=visible,
        host_measured=measured,
        device=device.name if device else named,
        device_count=item.get("gpus", 0),
        gpu_usable_bytes=usable,
        unsizable_reason=reason,
        stated_device_bytes=int(item.get("gpu_gib", 0) * GIB),
    )


def _offer(region: str, item: dict[str, Any]) -> OfferRow:
    return OfferRow(
        provider=NAME,
        type=item["type"],
        region=region,
        zones=" ".join(region + letter for letter in item["zones"]),
        term=item["term"],
        per_hour_nanos=nanos(item["price"]),
        currency="USD",
        kind="list",
        day=item["day"],
        source="stand-in price list",
    )
