"""The command `activekd-lite`, also `python -m activekd_lite`."""

import sys

from activekd_lite.utils import stopping


def main() -> int:
    stopping.catch_signals()  # before anything slow is imported
    from activekd_lite import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
