"""Training time next to busy processes, for several OpenMP settings.

    python benchmarks/busy.py                            # 15 minutes on two quiet cores
    python benchmarks/busy.py --setting kit --setting libgomp --dataset digits --repeats 1

How long OpenMP threads spin at a barrier decides the result. Each training is two rounds of one
embedded data set, on a quiet machine and next to one pure-Python loop per core. libgomp reads its
settings when it is loaded, so each training is a separate process. Settings take turns; the table
shows the median of the repeats. The first row is libgomp's default, the second is what
`import activekd_lite` sets.
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
VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
SPIN = """
import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(10**6): pass
"""


def train(dataset, steps, cache):
    """Time two rounds, in seconds. Encoding and a first training step come before the clock."""
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
    """Run `train` in a fresh process; returns seconds."""
    environment = {k: v for k, v in os.environ.items() if k not in VARIABLES} | SETTINGS[setting]
    words = ["--child", "--dataset", dataset, "--steps", str(steps), "--cache", str(cache)]
    command = [sys.executable, __file__, *words]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(run.stderr)
    return float(run.stdout)


@contextlib.contextmanager
def busy(count):
    """Keep `count` processes computing until the block ends or this process exits."""
    processes = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(count)]
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
                        line = f"{dataset}, {setting}, {count} beside: {spent:.2f} s"
                        print(line, file=sys.stderr, flush=True)
    return {key: statistics.median(values) for key, values in seconds.items()}


def report(seconds, settings, datasets):
    print(
        "| data set | setting | quiet, s | compared with the first row | busy, s | busy / quiet |"
    )
    print("|" + 6 * "---|")
    for dataset in datasets:
        first = seconds[settings[0], dataset, False]
        for setting in settings:
            quiet, beside = (seconds.get((setting, dataset, loaded)) for loaded in (False, True))
            change = f"{100 * (quiet / first - 1):+.0f} %"
            busy = f"{beside:.2f} | {beside / quiet:.1f}" if beside else "not measured | "
            print(f"| {dataset} | {setting} | {quiet:.2f} | {change} | {busy} |")


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--setting", action="append", choices=SETTINGS, help="repeatable; default: all")
    datasets = ["digits", "shapes"]
    add("--dataset", action="append", choices=datasets, help="repeatable; default: both")
    add("--repeats", type=int, default=3)
    add("--steps", type=int, default=150, help="training steps per round")
    add("--beside", type=int, default=os.cpu_count(), help="busy processes; default: one per core")
    add("--cache", type=Path, default=Path(".cache"))
    add("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    args = parse()
    settings, datasets = args.setting or list(SETTINGS), args.dataset or ["digits", "shapes"]
    if args.child:
        print(train(datasets[0], args.steps, args.cache))
        return
    seconds = table(settings, datasets, args.repeats, args.steps, args.beside, args.cache)
    print(f"{os.cpu_count()} cores, {args.beside} busy processes, ", end="")
    print(f"medians of {args.repeats}, {args.steps} steps per round\n")
    report(seconds, settings, datasets)


if __name__ == "__main__":
    main()
