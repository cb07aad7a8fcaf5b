"""The command, as `activekd-lite` and as `python -m activekd_lite`: it can be stopped before all is imported."""

import sys

from activekd_lite.utils import stopping


def main() -> int:
    stopping.catch_signals()
    from activekd_lite import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
