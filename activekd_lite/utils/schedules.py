"""Learning-rate schedules, as a fraction of the base learning rate."""

import math

SCHEDULES = ("linear", "linear_from_zero", "cosine")


def lr_factor(schedule: str, step: int, steps: int, warmup: float) -> float:
    """Fraction of the base learning rate at `step` (from 0) of `steps`.

    warmup: the fraction of the steps with a linear warm-up.
    "linear" decays to 0; its first step has a rate above 0.
    "linear_from_zero" is `get_linear_schedule_with_warmup` of Hugging Face transformers, which the
    code of arXiv:2506.00910 uses; its first step has rate 0.
    "cosine" decays along half a cosine (Loshchilov and Hutter 2017, arXiv:1608.03983).
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
    """Raise ValueError for an unknown schedule, or a `warmup` outside [0, 1]."""
    if schedule not in SCHEDULES:
        known = ", ".join(map(repr, SCHEDULES))
        raise ValueError(f"schedule = {schedule!r}; choose one of {known}")
    if not 0 <= warmup <= 1:
        raise ValueError(f"warmup = {warmup}: a fraction of the steps, between 0 and 1, is needed")
