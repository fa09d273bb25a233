"""Command line of the scoring."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tests.accuracy.scoring import score


def main() -> int:
    """Writes the report; 0 whenever it was written, however large the errors."""
    parser = argparse.ArgumentParser(prog="python -m tests.accuracy")
    parser.add_argument("cases", nargs="+", type=Path, help="ground-truth files, a case a line")
    parser.add_argument("--out", type=Path, required=True, help="report to write")
    arguments = parser.parse_args()
    missing = [str(path) for path in arguments.cases if not path.is_file()]
    if missing:
        sys.stderr.write(f"no such file: {', '.join(missing)}\n")
        return 2
    report = score(arguments.cases)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for name, group in report["groups"].items():
        figures = ", ".join(
            f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}"
            for key, value in group.items()
        )
        print(f"{name}: {figures}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
