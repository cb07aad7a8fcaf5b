"""Statistics of many runs, and the structure of predictions."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    ["advice", "card", "metrics", "paired", "statistics", "structure", "tasks"],
    {"structure": ["BallShrinkage", "ball_shrinkage"]},
)
