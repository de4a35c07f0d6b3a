"""Statistics: the content of metrics.json and its computation. Pure."""
