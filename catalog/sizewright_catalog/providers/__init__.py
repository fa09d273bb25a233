"""The providers whose catalogs can be refreshed: one line each.

A provider is a module (or small package) of this folder with a class that keeps the `Provider`
promise of `contract.py`. Its SDK is an extra, imported when the provider is made and not before.
"""

from __future__ import annotations

import os
from importlib import import_module

from sizewright_catalog.providers.contract import Provider

#: Name to "module:class".
PROVIDERS: dict[str, str] = {
    "aws": "sizewright_catalog.providers.aws.provider:Aws",
    "gcp": "sizewright_catalog.providers.gcp.provider:Gcp",
}
#: Providers of one's own, beside these: "name=module:class", comma-separated.
EXTRA_VARIABLE = "SIZEWRIGHT_EXTRA_PROVIDERS"


def registered() -> dict[str, str]:
    """Every provider that can be refreshed, by name."""
    extra = (entry.partition("=") for entry in os.environ.get(EXTRA_VARIABLE, "").split(","))
    return PROVIDERS | {name.strip(): path.strip() for name, _, path in extra if path}


def load_provider(name: str) -> Provider:
    """A new provider for one refresh. Raises KeyError for a name that is not registered."""
    module, _, maker = registered()[name].partition(":")
    made: Provider = getattr(import_module(module), maker)()
    return made
