"""Google Cloud: machine types of every zone, and prices composed from the catalog of SKUs."""
