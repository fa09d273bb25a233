"""Money as people read it. Inside and on the wire it is whole nano-dollars."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

NANOS_PER_DOLLAR = 1_000_000_000
#: Below this many dollars cents alone would say too little: two digits that count are kept.
SMALL = Decimal("0.1")
#: From this many dollars on cents say nothing.
LARGE = 100_000


def amount(nanos_usd: int) -> str:
    """Dollars and cents without a sign, such as 128,000, 1,755.42, 3.93, 0.058, 0.0042, 0.00."""
    value = Decimal(nanos_usd) / NANOS_PER_DOLLAR
    if abs(value) >= LARGE:
        return f"{value.quantize(Decimal(1), ROUND_HALF_EVEN):,f}"
    places = 2 if value == 0 or abs(value) >= SMALL else 1 - value.adjusted()
    text = f"{value.quantize(Decimal(1).scaleb(-places), ROUND_HALF_EVEN):,f}"
    whole, _, part = text.partition(".")
    return f"{whole}.{part.rstrip('0').ljust(2, '0')}"


def dollars(nanos_usd: int) -> str:
    """Dollars and cents with their sign, such as $3.93."""
    text = amount(abs(nanos_usd))
    return f"-${text}" if nanos_usd < 0 else f"${text}"


def exact(nanos_usd: int) -> str:
    """Dollars with every digit there is, for machines to read."""
    return f"{Decimal(nanos_usd) / NANOS_PER_DOLLAR:f}"
