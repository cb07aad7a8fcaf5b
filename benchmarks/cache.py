"""What the teacher's cache costs and saves. Weights are random: they change no time.

    python benchmarks/cache.py                        # RN50 teaches ResNet-18 at 224 pixels: about 15 minutes on 2 cores, 5 GB
    python benchmarks/cache.py --device cuda --images 4096 --batch-size 64 --rounds 4 --steps 100
    python benchmarks/cache.py --student tiny-resnet --vlm tiny-clip --pretrained embedded --batch-size 32 --images 2000

1. Encoding: views a second of `TeacherCache.build` (crops, writing and all) on a pool in memory, against those of the model's
   forward pass alone on one batch that is ready on the device, in the same precision. Goal: 85 %.
2. A training step: what share of it the teacher takes when run online, and when read from the cache.
3. A whole run (rounds + 1 trainings, predictions, selection) both ways, with the cache made before, and with its making counted
   in. Goal: 1.8 times as fast from the cache.
Alternatives take turns; figures are medians.
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
from activekd_lite.utils.backbones import find_backbone
from activekd_lite.banks import make_bank
from activekd_lite.utils.device import resolve_device
from activekd_lite.utils.views import FRESH


def random_pool(count, classes, side):
    g = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count + 64, 3, side, side), generator=g, dtype=torch.uint8)
    labels = torch.arange(count + 64) % classes
    names = [f"number {' '.join(str(i))}" for i in range(classes)]  # words that tiny-clip knows
    return akd.make_dataset(
        "noise",
        images[:count],
        labels[:count],
        images[count:],
        labels[count:],
        names,
        student="resnet18",
    )


def random_vlm(name, pretrained, device, precision, quick_gelu, folder):
    """The model with random weights, through the door that real ones take; its own where `pretrained` is given."""
    if pretrained is None:
        torch.manual_seed(0)
        pretrained = str(Path(folder) / "random.pt")
        torch.save(open_clip.create_model(name).state_dict(), pretrained)
        quick_gelu = bool(quick_gelu)
    return akd.load_vlm(
        name, None if pretrained == "embedded" else pretrained, device, precision, quick_gelu
    )


def seconds(function, device, repeats):
    """Median seconds of each of some functions, taken in turns after one round to warm up."""
    names = list(function)
    times = {name: [] for name in names}
    for turn in range(repeats + 1):
        for name in names:
            start = time.perf_counter()
            function[name]()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def encoding(vlm, pool, views, batch, repeats):
    """Views a second: of a build, and of the forward pass alone."""
    x = torch.rand(batch, 3, vlm.input_size, vlm.input_size, device=vlm.device)
    with tempfile.TemporaryDirectory() as folder:
        roots = iter(range(10**6))

        def build():
            akd.TeacherCache.build(
                vlm, pool, views, f"{folder}/{next(roots)}", batch_size=batch, progress=False
            )

        count = views * len(pool)
        took = seconds(
            {
                "build": build,
                "forward": lambda: [vlm.encode_images(x) for _ in range(count // batch)],
            },
            vlm.device,
            repeats,
        )
    built, alone = count / took["build"], count // batch * batch / took["forward"]
    print(f"| encoding, {len(pool)} images x {views} views | {built:.1f} a second | forward pass alone {alone:.1f} | "
          f"{100 * built / alone:.0f} % |", flush=True)  # fmt: skip


def steps(data, teachers, args, device):
    """Share of the teacher in a training step: the time of its logits over that of the whole step."""
    state = akd.LabelState.empty(len(data.pool))
    index = torch.arange(data.pool.num_classes)
    state = state.with_labels(index, data.oracle.label(index), 0)
    config = akd.TrainConfig(steps=args.steps, batch_size=args.batch_size, pretrained=False)
    both = 2 * args.batch_size
    indices = torch.randint(len(data.pool), (both,), generator=torch.Generator().manual_seed(0))
    functions = {}
    for name, teacher in teachers.items():
        bank = make_bank(data.pool, args.student, teacher.views, device)

        def train(teacher=teacher, bank=bank):
            akd.train_student(
                data.pool,
                state,
                teacher,
                student=args.student,
                config=config,
                bank=bank,
                device=device,
            )

        functions[f"{name}, step"] = train
        view = torch.arange(both) % teacher.views.count
        functions[f"{name}, teacher"] = lambda t=teacher, v=view: [
            t.logits(indices, v) for _ in range(args.steps)
        ]
    took = {
        name: value / args.steps for name, value in seconds(functions, device, args.repeats).items()
    }
    for name in teachers:
        step, part = took[f"{name}, step"], took[f"{name}, teacher"]
        print(f"| a training step of {args.batch_size} + {args.batch_size}, teacher {name} | {1000 * step:.0f} ms | "
              f"teacher {1000 * part:.1f} ms | {100 * part / step:.1f} % |", flush=True)  # fmt: skip


def whole_runs(data, teachers, build_seconds, args, device):
    config = akd.TrainConfig(steps=args.steps, batch_size=args.batch_size, pretrained=False)

    def run(teacher):
        akd.run_active_learning(
            data, teacher, strategy="pcoreset", rounds=args.rounds, query_size=data.pool.num_classes, student=args.student,
            train=config, device=device, progress=False,
        )  # fmt: skip

    took = seconds(
        {name: lambda t=teacher: run(t) for name, teacher in teachers.items()}, device, args.repeats
    )
    online, cached = took["online"], took["cached"]
    with_making = online / (cached + build_seconds)
    print(f"| a run of {args.rounds} rounds, {args.steps} steps each | {cached:.1f} s | online {online:.1f} s | "
          f"{online / cached:.2f}x, {with_making:.2f}x with the cache's making |", flush=True)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vlm", default="RN50")
    parser.add_argument(
        "--pretrained", help="weights file; 'embedded' for tiny-clip; random where none is given"
    )
    parser.add_argument(
        "--quick-gelu",
        action=argparse.BooleanOptionalAction,
        help="of a weights file, see akd.load_vlm",
    )
    parser.add_argument("--student", default="resnet18")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument(
        "--batch-size",
        type=int,
        default=8,
        help="labelled images of a step; encoding takes eight times as many",
    )
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    args = parser.parse_args()
    device = resolve_device(args.device)
    with tempfile.TemporaryDirectory() as folder:
        vlm = random_vlm(
            args.vlm, args.pretrained, args.device, args.precision, args.quick_gelu, folder
        )
        side = 256 if find_backbone(args.student).input_size > 64 else 32
        data = random_pool(args.images, args.classes, side)
        print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {device}, {vlm.precision}; {args.vlm} teaches "
              f"{args.student}, {side}-pixel images\n\n| what | here | against | ratio |\n|---|---|---|---|")  # fmt: skip
        encoding(vlm, data.pool, args.views, 8 * args.batch_size, args.repeats)
        weights = vlm.text_weights(data.classnames, data.templates)
        start = time.perf_counter()
        cache = akd.TeacherCache.build(
            vlm, data.pool, args.views, folder, batch_size=8 * args.batch_size, progress=False
        )
        build_seconds = time.perf_counter() - start
        fresh = akd.Views(FRESH, augmentation=data.pool.augmentation)
        teachers = {
            "cached": akd.ZeroShotTeacher(cache, weights).to(device),
            "online": OnlineTeacher(vlm, data.pool, weights, fresh, batch=8 * args.batch_size),
        }
        steps(data, teachers, args, device)
        whole_runs(data, teachers, build_seconds, args, device)


if __name__ == "__main__":
    main()
