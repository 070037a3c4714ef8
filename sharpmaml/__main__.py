"""The ``sharpmaml`` command, also as ``python -m sharpmaml``."""

from typing import NoReturn

from landscape.interruptions import whole_process


def main() -> NoReturn:
    """Entry point of the console script."""
    whole_process("sharpmaml.cli")


if __name__ == "__main__":
    main()
