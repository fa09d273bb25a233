"""Private prices: discounts and contracts by pattern, from a file that is checked when it is read.

    overrides:
      - name: enterprise-discount
        match: {provider: aws, term: on-demand}
        discount_percent: 12.5
      - name: h100-contract
        match: {provider: gcp, type: a3-highgpu-8g, region: "us-*"}
        per_hour: "61.20"
        from: 2026-01-01
        until: 2026-12-31

The first rule that matches an offer holds, and no other.
"""

from sizewright_catalog.overrides.apply import apply_overrides
from sizewright_catalog.overrides.rules import Overrides, OverridesError, Rule, read_overrides

__all__ = ["Overrides", "OverridesError", "Rule", "apply_overrides", "read_overrides"]
