"""The `sizewright` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        from sizewright_client.cli.app import app

        app()
    except KeyboardInterrupt:
        sys.stderr.write("sizewright: interrupted\n")
        sys.exit(130)
    except Exception as error:
        from sizewright_client.cli.failures import unexpected

        sys.exit(int(unexpected(error)))


if __name__ == "__main__":
    main()
