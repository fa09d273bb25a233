"""Sources that fail, lie or say half: answers go on from the last good version, and it is told.

Each test holds what is served after the fault against what was served before it.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from refresh_rig import ALL_OFFERS, FakeClock, Rig, prices
from sizewright_catalog.catalog import Catalog
from sizewright_catalog.providers.contract import NotConfigured
from stand_in_provider import NAME, StandIn
from stand_in_source import Answer, body, silence, status

H100 = "providers/standin/regions/east-1/zones/-/instanceTypes/g.h100.8/terms/on-demand"
HOUR = 3600


def assert_unharmed(rig: Rig, before: Catalog) -> None:
    """The version from before is served, whole and readable."""
    served = rig.served()
    assert served.catalog.version == before.version
    assert prices(served.catalog) == prices(before)
    assert not served.problems


def fails(rig: Rig) -> str:
    """Refreshes, which must fail and leave everything as it was; what the status says of it."""
    before, success = rig.served().catalog, rig.record().last_success

    last = rig.refresh()

    assert last.stage == "failed"
    assert_unharmed(rig, before)
    record = rig.record()
    assert record.last_error == last.message
    assert record.last_success == success
    assert record.failures == 1
    assert record.running is None
    assert (record.next_try or 0) > (record.last_attempt or 0)
    return last.message


def test_a_source_that_refuses_connections(refreshed: Rig) -> None:
    refreshed.url = "http://127.0.0.1:9"

    assert "does not answer" in fails(refreshed)


def test_a_source_that_takes_the_connection_and_says_nothing(refreshed: Rig) -> None:
    refreshed.source.instead = silence(5)
    started = time.monotonic()

    assert "timed out" in fails(refreshed)
    # Three attempts of half a second, and the waits between them.
    assert time.monotonic() - started < 15


class Stuck(StandIn):
    """A provider whose SDK hangs where no time-out reaches it, in two regions of three."""

    schedule = replace(StandIn.schedule, call_timeout_seconds=0.1)

    def __init__(self) -> None:
        self.freed = threading.Event()

    def fetch(self, scope, context):  # type: ignore[no-untyped-def]
        if scope != "west-1":
            self.freed.wait(30)
        yield from super().fetch(scope, context)


def test_a_call_that_never_comes_back_costs_its_region_alone(refreshed: Rig) -> None:
    refreshed.provider = stuck = Stuck()
    refreshed.source.price_factor = 1.5

    last = refreshed.refresh()
    stuck.freed.set()

    assert last.stage == "done"
    assert set(last.failed_scopes) == {"east-1", "north-1"}
    assert "given up" in last.failed_scopes["east-1"]
    assert "given up" in refreshed.record().last_error
    now = prices(refreshed.served().catalog)
    assert now[H100] == 51_840_000_000
    assert now[H100.replace("east-1", "west-1")] == 77_760_000_000


@pytest.mark.parametrize("code", [429, 500, 503])
def test_an_hour_of_refusals_backs_off_and_ends_with_the_first_answer(
    clocked: Rig, code: int
) -> None:
    clock, before = clocked.clock, clocked.served().catalog
    assert isinstance(clock, FakeClock)
    clocked.source.instead = status(code)
    asked, end, waits = 0, clock.now() + HOUR, []

    while clock.now() < end:
        asked += 1
        assert clocked.refresh().stage == "failed"
        assert_unharmed(clocked, before)
        assert str(code) in clocked.record().last_error
        waits.append((clocked.record().next_try or 0) - clock.now())
        clock.passes(max(waits[-1], 0))
    clocked.source.instead = lambda *_: False

    assert clocked.record().failures == asked
    assert asked < 12
    assert waits[-1] > 4 * waits[0]
    assert clocked.refresh().stage == "done"
    assert clocked.record().failures == 0
    assert str(code) in clocked.record().last_error


def test_a_source_that_asks_for_patience_is_given_it(clocked: Rig) -> None:
    assert isinstance(clocked.clock, FakeClock)
    clocked.clock.slept.clear()
    answers = iter([True, True])
    busy = status(429, Retry_After="7")
    first = "/east-1?page=0"
    clocked.source.instead = lambda h, path: (
        path == first and next(answers, False) and busy(h, path)
    )

    assert clocked.refresh().stage == "done"
    assert [s for s in clocked.clock.slept if s >= 7] == clocked.clock.slept
    assert len(clocked.clock.slept) == 2


@pytest.mark.parametrize(
    ("what", "text", "announce"),
    [
        ("html", b"<html>gateway</html>", None),
        ("nothing", b"", None),
        ("another document", b'{"error": "none"}', None),
        ("a list", b"[1, 2, 3]", None),
        ("bytes", bytes(range(256)), None),
        ("null rows", b'{"types": null, "offers": [null], "more": false}', None),
    ],
)
def test_a_source_that_sends_garbage(
    refreshed: Rig, what: str, text: bytes, announce: int | None
) -> None:
    refreshed.source.instead = body(text, announce=announce)

    assert "no JSON" in (reason := fails(refreshed)) or "cannot be read" in reason, what


def test_a_page_that_breaks_off(refreshed: Rig) -> None:
    whole = b'{"types": [], "offers": [], "more": false}'
    refreshed.source.instead = body(whole[:-20], announce=len(whole))

    reason = fails(refreshed)
    assert "no JSON" in reason or "IncompleteRead" in reason


def test_one_region_that_fails_keeps_its_last_good_rows(refreshed: Rig) -> None:
    broken = body(b"{")
    refreshed.source.instead = lambda h, path: "north" in path and broken(h, path)
    refreshed.source.price_factor = 1.5

    last = refreshed.refresh()

    now = prices(refreshed.served().catalog)
    assert last.stage == "done"
    assert list(refreshed.record().failed_scopes) == ["north-1"]
    assert refreshed.record().failures == 1
    assert now[H100] == 77_760_000_000
    assert now[H100.replace("east-1", "north-1")] == 51_840_000_000
    assert len(now) == ALL_OFFERS


def change_offers(refreshed: Rig, **values: str) -> None:
    """Every offer of the first region gets these values."""

    def change(region: str, _kinds: list[Answer], offers: list[Answer]) -> None:
        if region == "east-1":
            for offer in offers:
                offer.update(values)

    refreshed.source.change = change


def test_half_the_rows_do_not_take_the_other_half_away(refreshed: Rig) -> None:
    def half(_region: str, kinds: list[Answer], offers: list[Answer]) -> None:
        del kinds[::2]
        names = {one["name"] for one in kinds}
        offers[:] = [one for one in offers if one["type"] in names]

    refreshed.source.change, refreshed.source.price_factor = half, 1.25
    refreshed.refresh()

    now = prices(refreshed.served().catalog)
    assert len(now) == ALL_OFFERS
    assert sum("vanished at once: 12 left of 24" in reason for reason in refreshed.held()) == 1
    assert sum(refreshed.held().values()) == ALL_OFFERS // 2
    assert now[H100] == 64_800_000_000
    catalog = refreshed.served().catalog
    assert catalog.instance_type(catalog.find_type(NAME, "c.1")).availability == "available"


def test_a_region_that_comes_empty_keeps_its_offers(refreshed: Rig) -> None:
    def empty(region: str, kinds: list[Answer], offers: list[Answer]) -> None:
        if region == "west-1":
            kinds.clear()
            offers.clear()

    refreshed.source.change = empty
    refreshed.refresh()

    assert len(prices(refreshed.served().catalog)) == ALL_OFFERS
    assert sum("vanished at once: 0 left of 24" in reason for reason in refreshed.held()) == 1


def test_zero_prices_never_go_in(refreshed: Rig) -> None:
    before = prices(refreshed.served().catalog)
    change_offers(refreshed, price="0.0")

    refreshed.refresh()

    assert refreshed.held()["a price of 0"] == 48
    assert prices(refreshed.served().catalog) == before


def test_one_price_that_is_wrong_in_itself_keeps_its_last_good_row(refreshed: Rig) -> None:
    def wrong(region: str, _kinds: list[Answer], offers: list[Answer]) -> None:
        for offer in offers:
            free = region == "east-1" and offer["type"] == "g.h100.8"
            offer["price"] = "0" if free else f"{float(offer['price']) * 1.2:.6f}"

    refreshed.source.change = wrong
    refreshed.refresh()

    now = prices(refreshed.served().catalog)
    assert now[H100] == 51_840_000_000
    assert now[H100.replace("east-1", "west-1")] == 62_208_000_000
    assert refreshed.held() == {"a price of 0": 2}


@pytest.mark.parametrize("price", ["-1", "1e-9", "99999", "NaN", "a lot", "1e30"])
def test_prices_no_machine_can_have_never_go_in(refreshed: Rig, price: str) -> None:
    before = prices(refreshed.served().catalog)
    change_offers(refreshed, price=price)

    last = refreshed.refresh()

    # What cannot be read at all costs its region; what can, each row.
    assert last.failed_scopes or sum(refreshed.held().values()) >= 48
    assert prices(refreshed.served().catalog) == before


@pytest.mark.parametrize(("factor", "unit"), [(100, "cents"), (730, "a month"), (1 / 24, "a day")])
def test_prices_of_another_unit_are_held_back_whole(
    refreshed: Rig, factor: float, unit: str
) -> None:
    before = prices(refreshed.served().catalog)
    refreshed.source.price_factor = factor

    refreshed.refresh()

    held = refreshed.held()
    assert prices(refreshed.served().catalog) == before, unit
    assert any("times what they were" in reason for reason in held)
    assert sum(held.values()) == ALL_OFFERS


def test_one_price_that_jumps_is_held_back_and_the_rest_goes_in(refreshed: Rig) -> None:
    def jump(region: str, _kinds: list[Answer], offers: list[Answer]) -> None:
        for offer in offers:
            wrong = region == "east-1" and offer["type"] == "g.h100.8"
            offer["price"] = f"{float(offer['price']) * (30 if wrong else 1.2):.6f}"

    refreshed.source.change = jump
    refreshed.refresh()

    now = prices(refreshed.served().catalog)
    assert now[H100] == 51_840_000_000
    assert now[H100.replace("east-1", "west-1")] == 62_208_000_000
    assert refreshed.held() == {"a price that jumped": 2}


def test_what_an_operator_accepts_goes_in(refreshed: Rig) -> None:
    refreshed.source.price_factor = 5

    refreshed.refresh(accept_changes=True)

    assert prices(refreshed.served().catalog)[H100] == 259_200_000_000
    assert refreshed.held() == {}


def test_what_a_source_has_said_for_a_week_goes_in(clocked: Rig) -> None:
    assert isinstance(clocked.clock, FakeClock)
    clocked.source.price_factor = 5
    days = 0
    while prices(clocked.served().catalog)[H100] == 51_840_000_000:
        clocked.refresh()
        clocked.clock.passes(86_400)
        days += 1
        assert days < 10

    assert days == 8


def test_the_total_gpu_memory_as_that_of_one_gpu_is_told_and_held_back(refreshed: Rig) -> None:
    def totals(_region: str, kinds: list[Answer], _offers: list[Answer]) -> None:
        for item in kinds:
            item["gpu_gib"] = item.get("gpu_gib", 0) * item.get("gpus", 0)

    before = refreshed.served().catalog
    refreshed.source.change, refreshed.source.price_factor = totals, 1.1
    refreshed.refresh()

    now = refreshed.served().catalog
    held = {reason for reason in refreshed.held() if "the total of" in reason}
    assert any("640 GiB stated for one H100-SXM: the total of 8 devices" in one for one in held)
    # The eight of it keep the memory they had, and get the price that came.
    number = now.find_type(NAME, "g.h100.8")
    old = before.instance_type(before.find_type(NAME, "g.h100.8"))
    assert now.instance_type(number) == old
    assert prices(now)[H100] == 57_024_000_000


@pytest.mark.parametrize(("gib", "wrong"), [(8 * 7.45, True), (8 * 8.0, False)])
def test_host_memory_in_another_unit_keeps_the_type_as_it_was(
    refreshed: Rig, gib: float, wrong: bool
) -> None:
    def units(_region: str, kinds: list[Answer], _offers: list[Answer]) -> None:
        for item in kinds:
            if item["name"] == "c.8":
                item["memory_gib"] = gib

    refreshed.source.change = units
    refreshed.refresh()

    catalog = refreshed.served().catalog
    made = catalog.instance_type(catalog.find_type(NAME, "c.8"))
    assert made.host_nominal_bytes == 64 * 2**30
    assert any("its memory to 0.931 times" in reason for reason in refreshed.held()) == wrong


def test_an_unknown_gpu_is_listed_and_never_sized(refreshed: Rig) -> None:
    def newest(_region: str, kinds: list[Answer], offers: list[Answer]) -> None:
        kinds.append({**kinds[-1], "name": "g.x900.8", "gpu": "X900", "gpu_gib": 999})
        offers.append({**offers[0], "type": "g.x900.8"})

    refreshed.source.change = newest
    refreshed.refresh()

    catalog = refreshed.served().catalog
    made = catalog.instance_type(catalog.find_type(NAME, "g.x900.8"))
    assert made.unsizable_reason == "device X900 is not in the device table"
    assert made.gpu_usable_bytes == 0
    assert "a device that is not in the device table: listed, never sized" in refreshed.held()


def test_a_known_type_that_comes_with_another_gpu_keeps_its_own(refreshed: Rig) -> None:
    def swapped(_region: str, kinds: list[Answer], _offers: list[Answer]) -> None:
        for item in kinds:
            if item["name"] == "g.h100.8":
                item["gpu"] = "A100-80GB-SXM"

    refreshed.source.change = swapped
    refreshed.refresh()

    catalog = refreshed.served().catalog
    device = catalog.instance_type(catalog.find_type(NAME, "g.h100.8")).device
    assert device is not None
    assert device.name == "H100-SXM"
    assert any("its device from H100-SXM to A100-80GB-SXM" in one for one in refreshed.held())


def test_a_new_gpu_at_a_price_its_device_never_has_is_held_back(refreshed: Rig) -> None:
    def cheap(_region: str, kinds: list[Answer], offers: list[Answer]) -> None:
        kinds.append({**kinds[-1], "name": "g.h100.x"})
        offers.append({**offers[0], "type": "g.h100.x", "price": "0.05"})

    refreshed.source.change = cheap
    refreshed.refresh()

    assert refreshed.held() == {"a new price far from what its device costs elsewhere": 3}
    assert not any("g.h100.x" in name for name in prices(refreshed.served().catalog))


class WithoutKeys(StandIn):
    """A provider nobody set up."""

    def scopes(self, context):  # type: ignore[no-untyped-def]
        raise NotConfigured("no credentials: set STANDIN_KEY")


def test_missing_credentials_are_told_and_not_tried_again_at_once(refreshed: Rig) -> None:
    refreshed.provider = WithoutKeys()

    assert fails(refreshed) == "no credentials: set STANDIN_KEY"
    assert not [event for event in refreshed.events if event.scopes]
