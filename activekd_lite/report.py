"""The statistics of many runs as one page."""
