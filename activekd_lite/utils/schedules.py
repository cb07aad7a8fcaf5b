"""Learning-rate schedules, as the share of the largest rate at a step."""

import math

SCHEDULES = ("linear", "linear_from_zero", "cosine")


def lr_factor(schedule: str, step: int, steps: int, warmup: float) -> float:
    """The share of the learning rate at `step` (from 0) of `steps`, with a linear warm-up over a share `warmup` of them.

    "linear" falls to 0, and its first step has a rate above 0. "linear_from_zero" is `get_linear_schedule_with_warmup` of
    Hugging Face transformers, which the code of arXiv:2506.00910 uses: its first step has rate 0. "cosine" falls along half
    a cosine (Loshchilov and Hutter 2017, arXiv:1608.03983).
    """
    if schedule == "linear_from_zero":
        warm = warmup * steps
        return step / max(1.0, warm) if step < warm else (steps - step) / max(1.0, steps - warm)
    warm = max(1, round(warmup * steps)) if warmup or schedule == "linear" else 0
    if step < warm:
        return (step + 1) / warm
    left = (steps - step) / max(1, steps - warm)
    return left if schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))


def check_schedule(schedule: str, warmup: float) -> None:
    """Raise ValueError for an unknown schedule or a warm-up that is no share."""
    if schedule not in SCHEDULES:
        raise ValueError(
            f"schedule = {schedule!r}; choose one of {', '.join(map(repr, SCHEDULES))}"
        )
    if not 0 <= warmup <= 1:
        raise ValueError(f"warmup = {warmup} is a share of the steps: it must lie between 0 and 1")
