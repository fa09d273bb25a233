"""`python -m sizewright_server`: serves with the settings of the environment."""

from __future__ import annotations

import sys

from pydantic import ValidationError

from sizewright_catalog.overrides import OverridesError
from sizewright_catalog.snapshot import SnapshotError
from sizewright_server.serve import serve
from sizewright_server.settings import ServerSettings
from sizewright_server.tokens import TokenFileError


def main() -> int:
    """Returns the exit status; 2 for settings that are wrong or a server that cannot start."""
    try:
        settings = ServerSettings()
    except ValidationError as error:
        for item in error.errors(include_url=False):
            field = ".".join(str(part) for part in item["loc"]) or "settings"
            sys.stderr.write(f"{field}: {item['msg'].removeprefix('Value error, ')}\n")
        return 2
    try:
        return serve(settings)
    except (SnapshotError, OverridesError, TokenFileError, OSError, RuntimeError) as error:
        sys.stderr.write(f"cannot serve: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
