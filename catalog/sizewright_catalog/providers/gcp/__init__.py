"""Google Cloud: machine types of every zone, and prices composed from the billing catalog's SKUs."""
