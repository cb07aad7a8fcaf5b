"""Training beside busy processes: how long OpenMP's threads spin at barriers decides.

    python benchmarks/busy.py                            # 15 minutes on two quiet cores
    python benchmarks/busy.py --setting kit --setting libgomp --dataset digits --repeats 1

Two rounds, that is two trainings, of each embedded data set: alone, and with a pure-Python loop running beside for every core.
Each training is a process of its own, as libgomp reads its settings when it is loaded; settings take turns, and a figure is
the median of the repeats. The first row is libgomp's default, the second what `import activekd_lite` sets by itself.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

SETTINGS = {  # name: environment
    "libgomp": {"GOMP_SPINCOUNT": "300000"},  # its default without OMP_WAIT_POLICY
    "kit": {},
    "spin 1000": {"GOMP_SPINCOUNT": "1000"},
    "spin 3000": {"GOMP_SPINCOUNT": "3000"},
    "spin 10000": {"GOMP_SPINCOUNT": "10000"},
    "spin 30000": {"GOMP_SPINCOUNT": "30000"},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
READ = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")


def train(dataset, steps, cache):
    """Seconds of two rounds; images are encoded, and a step is made, before the clock starts."""
    import activekd_lite as akd

    def run(rounds, steps):
        config = akd.RunConfig(dataset=dataset, rounds=rounds, train=akd.TrainConfig(steps=steps))
        return config.run(inputs=inputs, device="cpu", progress=False)

    inputs = akd.RunConfig(dataset=dataset).load(cache_root=cache, device="cpu", progress=False)
    run(0, 1)
    start = time.perf_counter()
    run(1, steps)
    return time.perf_counter() - start


def measure(setting, dataset, steps, cache):
    """Seconds of `train` in a fresh process."""
    environment = {k: v for k, v in os.environ.items() if k not in READ} | SETTINGS[setting]
    words = ["--child", "--dataset", dataset, "--steps", str(steps), "--cache", str(cache)]
    run = subprocess.run(
        [sys.executable, __file__, *words], env=environment, capture_output=True, text=True
    )
    if run.returncode:
        raise RuntimeError(run.stderr)
    return float(run.stdout)


@contextlib.contextmanager
def busy(count):
    """`count` processes that compute all the time, until the block ends or this process does."""
    loop = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    for _ in range(10**6): pass"
    processes = [subprocess.Popen([sys.executable, "-c", loop]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def table(settings, datasets, repeats, steps, beside, cache):
    """Median seconds by (setting, data set, busy)."""
    seconds = {}
    for _ in range(repeats):
        for dataset in datasets:
            for count in sorted({0, beside}):
                with busy(count):
                    for setting in settings:
                        spent = measure(setting, dataset, steps, cache)
                        seconds.setdefault((setting, dataset, count > 0), []).append(spent)
                        print(
                            f"{dataset}, {setting}, {count} beside: {spent:.2f} s",
                            file=sys.stderr,
                            flush=True,
                        )
    return {key: statistics.median(values) for key, values in seconds.items()}


def report(seconds, settings, datasets):
    print(
        "| data set | setting | quiet, s | against the first row | busy, s | busy / quiet |\n|---|---|---|---|---|---|"
    )
    for dataset in datasets:
        first = seconds[settings[0], dataset, False]
        for setting in settings:
            quiet, beside = (seconds.get((setting, dataset, loaded)) for loaded in (False, True))
            lost = f"{100 * (quiet / first - 1):+.0f} %"
            busy = f"{beside:.2f} | {beside / quiet:.1f}" if beside else "not measured | "
            print(f"| {dataset} | {setting} | {quiet:.2f} | {lost} | {busy} |")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--setting", action="append", choices=SETTINGS, help="repeatable; default: all"
    )
    parser.add_argument(
        "--dataset", action="append", choices=["digits", "shapes"], help="repeatable; default: both"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument(
        "--beside",
        type=int,
        default=os.cpu_count(),
        help="busy processes; default: one for each core",
    )
    parser.add_argument("--cache", type=Path, default=Path(".cache"))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    settings, datasets = args.setting or list(SETTINGS), args.dataset or ["digits", "shapes"]
    if args.child:
        print(train(datasets[0], args.steps, args.cache))
        return
    seconds = table(settings, datasets, args.repeats, args.steps, args.beside, args.cache)
    print(
        f"{os.cpu_count()} cores, {args.beside} busy processes, medians of {args.repeats}, {args.steps} steps a round\n"
    )
    report(seconds, settings, datasets)


if __name__ == "__main__":
    main()
