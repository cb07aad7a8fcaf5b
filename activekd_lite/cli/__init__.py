"""The command line: one file per command, imported only when that command is used."""

import sys

from cyclopts import App, CycloptsError, Parameter

from activekd_lite.utils.stopping import RESUME_HINT

COMMANDS = {
    "run": "Run active learning once.",
    "sweep": "Run a grid of data sets, teachers, students, strategies and seeds.",
    "report": "Write a page about finished runs, readable offline: curves, gains, ranks.",
    "card": "Describe a task in numbers: teacher, first student, errors, imbalance.",
    "advise": "Say which strategies won on the studied tasks that are most like a task.",
    "cache": "Build, list, verify or delete caches of teacher features.",
    "data": "Check that a data set is complete, and count its images.",
    "tour": "Write a page that shows the method, without a kernel and without a network.",
    "notebooks": "Run notebooks and turn them into offline pages, or copy them for a course.",
    "doctor": "Check the installation, or (with --data) the images of a data set.",
}
app = App(
    "activekd-lite",
    help="Active learning for small students with a vision-language teacher (ActiveKD, PCoreSet).",
    help_format="plaintext",
    version_flags=(),
    exit_on_error=False,
    print_error=False,
    # Unless an option defines it there is no --no-x. The last value of a repeated option counts.
    # False is not shown as a default.
    default_parameter=Parameter(
        negative=(), allow_repeating=True, show_default=lambda value: value or None
    ),
)
for place, (name, purpose) in enumerate(COMMANDS.items()):
    app.command(f"activekd_lite.cli.{name}:command", name=name, help=purpose, sort_key=place)


def main(argv: list[str] | None = None) -> int:
    """Run a command, by default that of `sys.argv`.

    Returns the exit code: 0 on success, 1 if something failed, 2 for bad input, 130 after Ctrl-C.
    """
    try:
        command, bound, _ = app.parse_args(sys.argv[1:] if argv is None else argv)
    except CycloptsError as error:
        return _refuse(error)
    try:
        return command(*bound.args, **bound.kwargs) or 0
    except (ValueError, OSError, ImportError) as error:
        return _refuse(error)
    except KeyboardInterrupt:
        print(f"activekd-lite: stopped; {RESUME_HINT}", file=sys.stderr)
        return 130


def _refuse(error: Exception) -> int:
    print(f"activekd-lite: {error}", file=sys.stderr)
    return 2
