"""Pure statistics: what metrics.json holds and how it is computed."""
