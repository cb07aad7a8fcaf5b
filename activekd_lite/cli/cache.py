"""`activekd-lite cache`."""

from dataclasses import replace
from typing import Annotated, Literal

from cyclopts import Parameter

from activekd_lite import cache
from activekd_lite.cli import options as opt
from activekd_lite.cli.run import run_config

Config = opt.options_class(
    "Config",
    *opt.POOL,
    opt.option("seed", int, "Seed of --pool-per-seed.", "0; with --paper 1"),
    *opt.VLM,
)


def command(
    job: Literal["build", "info", "verify", "prune"] = "build",
    /,
    *,
    dataset: Annotated[str, Parameter(help=opt.DATASET)] = "digits",
    paper: bool = False,
    unused_days: float | None = None,
    yes: bool = False,
    device: Annotated[str, Parameter(help=opt.DEVICE)] = "auto",
    config: Annotated[Config, opt.FLAT] = Config(),
    folders: Annotated[opt.Folders, opt.FLAT] = opt.Folders(),
) -> int:
    """Encode a pool with the teacher, or manage existing caches.

    Parameters
    ----------
    job
        Encode a pool unless it is cached, list caches, compare checksums, or delete old caches.
    paper
        Encode as the paper's protocol needs it.
    unused_days
        prune: also list caches that were not opened for this many days.
    yes
        prune: delete them, instead of only listing them.
    """
    if job == "info":
        return _info(folders.cache)
    if job == "verify":
        return _verify(folders.cache)
    if job == "prune":
        return _prune(folders.cache, unused_days, yes)
    chosen = run_config(dataset, "zero-shot", paper, config)
    # No rounds, so that a pool of any size and without labels is accepted.
    inputs = replace(chosen, rounds=0).load(**folders.roots(), device=device)
    _print_built(inputs.teacher.cache)
    return 0


def _print_built(built: cache.TeacherCache) -> None:
    views, size, dim = built.features.shape
    mib = built.features.nbytes / 2**20
    print(f"{built.path}: {views} views x {size} images x {dim} numbers, ", end="")
    print(f"{mib:.1f} MiB, checksums match")


def _info(folder: str) -> int:
    table = cache.info(folder)
    if len(table):
        print(table.to_string(index=False, float_format="%.1f", na_rep=""))
    else:
        print(f"no teacher cache in {folder}")
    return 0


def _verify(folder: str) -> int:
    found = cache.verify(folder)
    for path, reason in found.items():
        print(f"{path}: {reason or 'checksums match'}")
    return 1 if any(found.values()) else 0


def _prune(folder: str, unused_days: float | None, delete: bool) -> int:
    found = cache.prune(folder, unused_days, delete=delete)
    for path, reason in found.items():
        print(f"{path}: {reason}{', deleted' if delete else ''}")
    print(f"{len(found)} caches " + ("deleted" if delete else "can be deleted: add --yes"))
    return 0
