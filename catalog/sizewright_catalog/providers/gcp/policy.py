"""The least that a refresh must be allowed on Google Cloud, as a custom role."""

from __future__ import annotations

from typing import Any

#: Listing machine and accelerator types. Listing the SKUs of the billing catalog needs the Cloud
#: Billing API enabled in the project, and no permission.
PERMISSIONS = ("compute.acceleratorTypes.list", "compute.machineTypes.list")


def role() -> dict[str, Any]:
    """A custom role, as `gcloud iam roles create --file` takes it."""
    return {
        "title": "Sizewright catalog refresh",
        "description": "Lists machine types; enable cloudbilling.googleapis.com as well",
        "stage": "GA",
        "includedPermissions": list(PERMISSIONS),
    }
