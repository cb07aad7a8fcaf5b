"""Statistics of many runs, and the structure of predictions."""
