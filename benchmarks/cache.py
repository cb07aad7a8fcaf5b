"""What the teacher cache costs and saves. Weights are random, which does not affect the times.

    python benchmarks/cache.py          # RN50, ResNet-18, 224 pixels: 15 minutes on 2 cores, 5 GB
    python benchmarks/cache.py --device cuda --images 4096 --batch-size 64 --rounds 4 --steps 100
    python benchmarks/cache.py --student tiny-resnet --vlm tiny-clip --pretrained embedded \\
        --batch-size 32 --images 2000

1. Encoding: views per second of `TeacherCache.build` (cropping and writing included) on a pool in
   memory, compared with the forward pass alone on a batch that is already on the device, in the
   same precision. Goal: 85 %.
2. A training step: the teacher's share of its time, online and read from the cache.
3. A whole run (rounds + 1 trainings, predictions, selection) both ways, with and without the time
   to build the cache. Goal: 1.8 times as fast from the cache.
Alternatives take turns; the table shows medians.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import open_clip
import torch
from online import OnlineTeacher

import activekd_lite as akd
from activekd_lite.banks import make_bank
from activekd_lite.utils.backbones import find_backbone
from activekd_lite.utils.device import resolve_device
from activekd_lite.utils.views import FRESH


def random_pool(count, classes, side):
    g = torch.Generator().manual_seed(0)
    x = torch.randint(256, (count + 64, 3, side, side), generator=g, dtype=torch.uint8)
    y = torch.arange(count + 64) % classes
    names = [f"number {' '.join(str(i))}" for i in range(classes)]  # words that tiny-clip knows
    pool, test = (x[:count], y[:count]), (x[count:], y[count:])
    return akd.make_dataset("noise", *pool, *test, names, student="resnet18")


def random_vlm(args, folder):
    """Load the VLM of `args` as users do; without `--pretrained`, from a file of random weights."""
    pretrained, quick_gelu = args.pretrained, args.quick_gelu
    if pretrained is None:
        torch.manual_seed(0)
        pretrained, quick_gelu = str(Path(folder) / "random.pt"), bool(quick_gelu)
        torch.save(open_clip.create_model(args.vlm).state_dict(), pretrained)
    elif pretrained == "embedded":
        pretrained = None
    return akd.load_vlm(args.vlm, pretrained, args.device, args.precision, quick_gelu)


def seconds(functions, device, repeats):
    """Median seconds of each function, by name. They take turns, after one round to warm up."""
    times = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def print_row(*cells):
    print(f"| {' | '.join(cells)} |", flush=True)


def encoding(vlm, pool, views, batch, repeats):
    """Compare a build with the forward pass alone, in views per second."""
    x = torch.rand(batch, 3, vlm.input_size, vlm.input_size, device=vlm.device)
    count = views * len(pool)
    options = {"batch_size": batch, "progress": False}

    def build():
        akd.TeacherCache.build(vlm, pool, views, tempfile.mkdtemp(dir=root), **options)

    def forward():
        for _ in range(count // batch):
            vlm.encode_images(x)

    with tempfile.TemporaryDirectory() as root:
        took = seconds({"build": build, "forward": forward}, vlm.device, repeats)
    built, alone = count / took["build"], count // batch * batch / took["forward"]
    print_row(
        f"encoding, {len(pool)} images x {views} views",
        f"{built:.1f} per second",
        f"forward pass alone {alone:.1f}",
        f"{100 * built / alone:.0f} %",
    )


def train_config(args):
    return akd.TrainConfig(steps=args.steps, batch_size=args.batch_size, pretrained=False)


def steps(data, teachers, args, device):
    """Compare the time of the teacher's logits with that of the whole training step."""
    state = akd.LabelState.empty(len(data.pool))
    index = torch.arange(data.pool.num_classes)
    state = state.with_labels(index, data.oracle.label(index), 0)
    options = {"student": args.student, "config": train_config(args), "device": device}
    both = 2 * args.batch_size
    indices = torch.randint(len(data.pool), (both,), generator=torch.Generator().manual_seed(0))

    def train(teacher, bank):
        akd.train_student(data.pool, state, teacher, bank=bank, **options)

    def ask(teacher):
        view = torch.arange(both) % teacher.views.count
        for _ in range(args.steps):
            teacher.logits(indices, view)

    functions = {}
    for name, teacher in teachers.items():
        bank = make_bank(data.pool, args.student, teacher.views, device)
        functions[name, "step"] = lambda t=teacher, b=bank: train(t, b)
        functions[name, "teacher"] = lambda t=teacher: ask(t)
    took = seconds(functions, device, args.repeats)
    for name in teachers:
        step, part = (1000 * took[name, what] / args.steps for what in ("step", "teacher"))
        print_row(
            f"a training step of {args.batch_size} + {args.batch_size}, teacher {name}",
            f"{step:.0f} ms",
            f"teacher {part:.1f} ms",
            f"{100 * part / step:.1f} %",
        )


def whole_runs(data, teachers, build_seconds, args, device):
    options = {"rounds": args.rounds, "query_size": data.pool.num_classes, "student": args.student}
    options |= {"train": train_config(args), "device": device, "progress": False}

    def run(teacher):
        akd.run_active_learning(data, teacher, strategy="pcoreset", **options)

    functions = {name: lambda t=teacher: run(t) for name, teacher in teachers.items()}
    took = seconds(functions, device, args.repeats)
    online, cached = took["online"], took["cached"]
    with_build = online / (cached + build_seconds)
    print_row(
        f"a run of {args.rounds} rounds, {args.steps} steps each",
        f"{cached:.1f} s",
        f"online {online:.1f} s",
        f"{online / cached:.2f}x, {with_build:.2f}x with the time to build the cache",
    )


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--vlm", default="RN50")
    add("--pretrained", help="a weights file, or 'embedded' for tiny-clip; default: random weights")
    yes_no = argparse.BooleanOptionalAction
    add("--quick-gelu", action=yes_no, help="for a weights file, see akd.load_vlm")
    add("--student", default="resnet18")
    add("--images", type=int, default=256)
    add("--views", type=int, default=2)
    text = "labelled images per step; encoding uses batches eight times as large"
    add("--batch-size", type=int, default=8, help=text)
    add("--steps", type=int, default=12)
    add("--rounds", type=int, default=2)
    add("--repeats", type=int, default=3)
    add("--classes", type=int, default=10)
    add("--device", default="auto")
    add("--precision", default="auto")
    return parser.parse_args()


def measure(args, folder):
    device, batch = resolve_device(args.device), 8 * args.batch_size
    vlm = random_vlm(args, folder)
    side = 256 if find_backbone(args.student).input_size > 64 else 32
    data = random_pool(args.images, args.classes, side)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {device}, ", end="")
    print(f"{vlm.precision}; {args.vlm} teaches {args.student}, {side}-pixel images\n")
    print("| what | here | compared with | ratio |\n|---|---|---|---|")
    encoding(vlm, data.pool, args.views, batch, args.repeats)
    weights = vlm.text_weights(data.classnames, data.templates)
    options = {"batch_size": batch, "progress": False}
    start = time.perf_counter()
    cache = akd.TeacherCache.build(vlm, data.pool, args.views, folder, **options)
    build_seconds = time.perf_counter() - start
    fresh = akd.Views(FRESH, augmentation=data.pool.augmentation)
    teachers = {
        "cached": akd.ZeroShotTeacher(cache, weights).to(device),
        "online": OnlineTeacher(vlm, data.pool, weights, fresh, batch=batch),
    }
    steps(data, teachers, args, device)
    whole_runs(data, teachers, build_seconds, args, device)


def main():
    args = parse()
    with tempfile.TemporaryDirectory() as folder:
        measure(args, folder)


if __name__ == "__main__":
    main()
