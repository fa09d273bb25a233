"""Brings a home up to date with a store that homes share: `python -m ...refresh.follow`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sizewright_catalog.home import Home
from sizewright_catalog.store import Store, StoreError


def main() -> int:
    """Publishes what the store has; 1 when it cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m sizewright_catalog.refresh.follow")
    parser.add_argument("--home", type=Path, required=True, help="folder of the catalog")
    parser.add_argument("--store-url", required=True, help="store that homes share")
    arguments = parser.parse_args()
    try:
        store = Store(Home(arguments.home), arguments.store_url)
        try:
            store.publish()
        finally:
            store.close()
    except StoreError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
