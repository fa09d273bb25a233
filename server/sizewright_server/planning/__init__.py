"""Pure planning: a prepared workload and a catalog in, ranked plans and reasons out."""
