"""Pages for people: nothing beyond the width, no colour where none is wanted, nothing cut off."""

from __future__ import annotations

import io

import pytest

import sample_answers
from sizewright.v1 import catalog_pb2, catalog_service_pb2, plan_pb2
from sizewright_catalog.money import amount, dollars
from sizewright_client.render.catalog import put_machine, put_offers, put_status, put_types
from sizewright_client.render.check import put_check
from sizewright_client.render.estimate import put_estimate
from sizewright_client.render.figures import gib, parameters, printable, size
from sizewright_client.render.page import Glyphs, Page, page_for
from sizewright_client.render.recommend import put_recommendations

ESCAPE = "\x1b"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def _every_page(page: Page) -> str:
    put_recommendations(page, sample_answers.recommendation(), name="llama3-8b-sft", explain=True)
    put_recommendations(page, sample_answers.nothing_fits())
    put_estimate(page, sample_answers.memory_estimate(), explain=True)
    put_check(
        page,
        sample_answers.check_answer(plan_pb2.VERDICT_TIGHT),
        target="azure/Standard_ND96isr_MI300X_v5",
        node_count=2,
    )
    types = [offer.instance_type for offer in sample_answers.offers()]
    put_types(page, types)
    put_offers(page, sample_answers.offers())
    put_machine(page, types[0])
    provider = catalog_pb2.ProviderStatus(
        provider="aws", offer_count=51234, instance_type_count=812
    )
    put_status(
        page,
        catalog_service_pb2.GetCatalogStatusResponse(
            version="3f9c2b7d81aa44e0",
            offer_count=97123,
            instance_type_count=3512,
            providers=[provider],
        ),
    )
    return page.text()


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("unicode", [True, False])
def test_no_line_is_wider_than_the_page(width: int, unicode: bool) -> None:
    text = _every_page(Page(width=width, colour=False, unicode=unicode))

    assert max(len(line) for line in text.splitlines()) <= width


def test_a_page_without_colour_has_no_escape_codes_and_no_blanks_at_line_ends() -> None:
    text = _every_page(Page(width=80, colour=False, unicode=True))

    assert ESCAPE not in text
    assert [line for line in text.splitlines() if line != line.rstrip()] == []


def test_a_page_without_unicode_is_plain_ascii() -> None:
    assert _every_page(Page(width=80, colour=False, unicode=False)).isascii()


def test_a_coloured_page_says_the_same_words() -> None:
    coloured = _every_page(Page(width=80, colour=True, unicode=True))

    assert ESCAPE in coloured
    assert "a2-ultragpu-4g" in coloured


@pytest.mark.parametrize(
    ("environment", "terminal", "colour"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm"}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        ({"TERM": "xterm", "FORCE_COLOR": "1"}, False, True),
        ({"TERM": "xterm", "FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
    ],
)
def test_colour_follows_the_terminal_and_the_environment(
    environment: dict[str, str], terminal: bool, colour: bool
) -> None:
    page = page_for(Terminal() if terminal else io.StringIO(), environment)
    page.say("words", style="bold red")

    assert (ESCAPE in page.text()) is colour


def test_the_width_is_that_of_the_terminal_but_80_in_a_pipe() -> None:
    assert page_for(io.StringIO(), {}).width == 80
    assert page_for(io.StringIO(), {"COLUMNS": "100"}).width == 100
    assert page_for(io.StringIO(), {"COLUMNS": "7"}).width == 60


def test_the_first_plan_its_three_readings_and_the_losers_are_on_the_page() -> None:
    page = Page(width=80, colour=False, unicode=True)
    put_recommendations(page, sample_answers.recommendation(), name="job")
    text, times = page.text(), page.glyphs.times

    for words in (
        "job: fits 3 of 97,123 offers",
        "5.12",
        f"4 {times} A100-80GB-SXM",
        "dp 4, ZeRO-3",
        "GPU 38.5/79.2",
        "208 d old",
        f"2 {times} 8 {times}",
        "allocated  bytes in live tensors             34.9  35.8  36.6",
        "device     what nvidia-smi shows             37.1  38.5  40.9",
        "optimizer-state  15.0 GiB",
        "88,412  gpu-memory",
        "Nearest miss: g5.12xlarge, short of 1.70 GiB",
        "[dataset-not-stated]",
        "catalog 3f9c2b7d81aa",
    ):
        assert words in text


def _first_price(days: int, kind: catalog_pb2.PriceKind.ValueType, *warnings: str) -> list[str]:
    answer = sample_answers.recommendation()
    first = answer.recommendations[0]
    first.offer.price.age.seconds = days * 86_400
    first.offer.price.kind = kind
    for code in warnings:
        first.warnings.add(code=code, message="Known to the server.")
    page = Page(width=80, colour=False, unicode=True)
    put_recommendations(page, answer, name="job")
    return page.text().splitlines()


def test_an_old_spot_price_in_first_place_is_said_before_the_ranking() -> None:
    lines = _first_price(837, catalog_pb2.PRICE_KIND_LIST, "price-old")
    head = next(i for i, line in enumerate(lines) if line.strip().startswith("#"))

    said = " ".join(" ".join(lines[:head]).split())
    assert "Number 1 ranks by a spot price of 2026-05-01, 837 days old: look it up" in said
    assert "--max-price-age 180d" in said
    assert "837 d old!" in lines[head + 3]
    assert "spot" in lines[head + 2]


def test_an_estimated_price_in_first_place_is_said_before_the_ranking() -> None:
    lines = _first_price(3, catalog_pb2.PRICE_KIND_ESTIMATE)
    head = next(i for i, line in enumerate(lines) if line.strip().startswith("#"))

    assert "Number 1's price is an estimate" in " ".join(lines[:head])
    assert "estimate" in lines[head + 3]
    assert "3 d old" in lines[head + 4]
    assert "!" not in lines[head + 4]


def test_a_fresh_list_price_in_first_place_goes_without_saying() -> None:
    lines = _first_price(3, catalog_pb2.PRICE_KIND_LIST)

    assert lines[1].strip().startswith("#")


def _front_page(points: int) -> str:
    answer = sample_answers.recommendation()
    del answer.pareto_front[:]
    for share in (0.2, 0.5, 0.9):
        answer.pareto_front.add().CopyFrom(answer.recommendations[0])
        answer.pareto_front[-1].free_share = share
    answer.pareto_front_count = points
    page = Page(width=100, colour=False, unicode=True)
    put_recommendations(page, answer, name="job")
    return page.text()


def test_a_front_that_is_not_shown_whole_says_how_many_points_it_has() -> None:
    assert "The whole front has 24 points; these are spread along it." in _front_page(24)
    assert "The whole front" not in _front_page(3)


def test_an_answer_in_which_nothing_fits_leads_with_the_nearest_miss() -> None:
    page = Page(width=80, colour=False, unicode=True)
    put_recommendations(page, sample_answers.nothing_fits(), name="job")
    lines = page.text().splitlines()

    assert lines[0] == "job: nothing fits; 97,123 offers looked at."
    assert lines[2].startswith("Nearest miss: g5.12xlarge")


def test_an_explanation_shows_each_formula_with_its_numbers_once() -> None:
    page = Page(width=80, colour=False, unicode=True)
    put_estimate(page, sample_answers.memory_estimate(), explain=True)
    text = page.text()

    assert text.count("= tokens x vocabulary x 4 B x 3") == 1
    assert text.count("= 4,096 x 128,256 x 4 B x 3") == 1
    assert text.count("  weights: 7.48 GiB, sure") == 1


def test_text_from_outside_cannot_steer_the_terminal() -> None:
    answer = sample_answers.recommendation()
    answer.recommendations[0].reasons[0] = "red \x1b[31m alert\x07 [bold]"
    page = Page(width=80, colour=False, unicode=True)
    put_recommendations(page, answer, name="a\x1b[2Jb\nc")

    assert ESCAPE not in page.text()
    assert "a?[2Jb c: fits" in page.text()
    assert "[bold]" in page.text()
    assert printable("a\tb\r") == "a b "


def test_bars_show_every_share_above_nothing() -> None:
    assert Glyphs(unicode=False).bar(0.5, 10) == "#####"
    assert Glyphs(unicode=False).bar(0.0001, 10) == "#"
    assert Glyphs(unicode=True).bar(0.5, 3) == "█▌"
    assert Glyphs(unicode=True).bar(0.0001, 10) == "▏"
    assert Glyphs(unicode=True).bar(2.0, 3) == "███"
    assert Glyphs(unicode=True).bar(0.0, 3) == ""


@pytest.mark.parametrize(
    ("nanos", "shown"),
    [
        (0, "0.00"),
        (12_500_000_000, "12.50"),
        (1_234_567_000_000_000, "1,234,567"),
        (4_100_000, "0.0041"),
        (20_000_000, "0.02"),
        (58_400_000, "0.058"),
        (1, "0.000000001"),
    ],
)
def test_dollars_keep_what_matters_of_small_amounts(nanos: int, shown: str) -> None:
    assert amount(nanos) == shown
    assert dollars(nanos) == f"${shown}"
    assert dollars(-nanos - 1).startswith("-$")


def test_sizes_have_three_significant_digits_and_a_fitting_unit() -> None:
    gibibyte = 1024**3
    assert [gib(int(value * gibibyte)) for value in (7.4849, 9.996, 38.54, 99.96, 1339)] == [
        "7.48",
        "10.0",
        "38.5",
        "100",
        "1,339",
    ]
    assert [size(value) for value in (12, 2048, 3 * 1024**2, gibibyte)] == [
        "12 B",
        "2.0 KiB",
        "3.0 MiB",
        "1.00 GiB",
    ]
    assert [parameters(value) for value in (8_030_261_248, 109_482_240, 999)] == [
        "8.03 B",
        "109 M",
        "999",
    ]
