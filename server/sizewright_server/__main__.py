"""`python -m sizewright_server`: serves with the settings of the environment."""

from __future__ import annotations

import sys

from pydantic import ValidationError

from sizewright_server.serve import serve
from sizewright_server.settings import ServerSettings


def main() -> int:
    """Returns the exit status; 2 for settings that are wrong."""
    try:
        settings = ServerSettings()
    except ValidationError as error:
        for item in error.errors(include_url=False):
            field = ".".join(str(part) for part in item["loc"]) or "settings"
            sys.stderr.write(f"{field}: {item['msg']}\n")
        return 2
    return serve(settings)


if __name__ == "__main__":
    sys.exit(main())
