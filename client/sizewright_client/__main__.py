"""The `sizewright` command."""

from __future__ import annotations

import gc
import sys

#: Objects made before the collector looks for cycles. By default it would look hundreds of times
#: while modules are imported and a catalog is read, none of which leaves any.
COLLECT_AFTER = 50_000


def main() -> None:
    """Run the command line and exit with its code."""
    gc.set_threshold(COLLECT_AFTER)
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
