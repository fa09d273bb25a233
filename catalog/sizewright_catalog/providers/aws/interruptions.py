"""How often spot instances are taken back: the file behind AWS's Spot Instance Advisor.

It is public and asks for no credentials. Without it a refresh is whole, and the bands are unknown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.request import Request, urlopen

from sizewright_catalog.providers.contract import FetchContext
from sizewright_catalog.values import Interruption

#: Where the file is; another place, or NOWHERE, by the setting.
URL = "https://spot-bid-advisor.s3.amazonaws.com/spot-advisor-data.json"
SETTING, NOWHERE = "spot_advisor_url", "none"
#: Labels of the bands: "<5%", "5-10%", ">20%". The file's own `max` does not say the same.
LABEL = re.compile(r"^(?:<(?P<below>\d+)|(?P<low>\d+)-(?P<high>\d+)|>(?P<above>\d+))%$")
#: The file has some 5 MB.
MOST_BYTES = 2**26

Bands = Mapping[tuple[str, str], Interruption]


def interruptions(context: FetchContext) -> Bands:
    """The bands by region and type; none where the file cannot be had, which is counted."""
    settings = context.settings
    # Whoever asks another endpoint may not reach, or not want to, what is AWS's own.
    elsewhere = any(name.endswith("endpoint_url") for name in settings)
    url = settings.get(SETTING) or (NOWHERE if elsewhere else URL)
    if url == NOWHERE:
        return {}
    try:
        return bands(_read(url, context.timeout()), f"AWS Spot Advisor {context.now():%Y-%m-%d}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        context.drop(f"aws: no interruption bands: {type(error).__name__}: {str(error)[:200]}")
        return {}


def bands(document: Mapping[str, Any], source: str) -> Bands:
    """The bands of a file. Raises KeyError, ValueError or TypeError for another document."""
    by_index = {entry["index"]: _band(entry["label"], source) for entry in document["ranges"]}
    return {
        (region, name): by_index[facts["r"]]
        for region, systems in document["spot_advisor"].items()
        for name, facts in systems.get("Linux", {}).items()
    }


def _band(label: str, source: str) -> Interruption:
    found = LABEL.match(label)
    if found is None:
        raise ValueError(f"{label!r} is no band")
    low = found["low"] or found["above"] or 0
    high = found["high"] or found["below"] or 100
    return Interruption(int(low), int(high), source)


def _read(url: str, timeout_seconds: float) -> Mapping[str, Any]:
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} is not a URL of http or https")
    asked = Request(url, headers={"User-Agent": "sizewright"})
    with urlopen(asked, timeout=timeout_seconds) as answer:
        content = answer.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError("the file is larger than 64 MiB")
    document: Mapping[str, Any] = json.loads(content)
    return document
