"""``python -m sharpmaml`` is the ``sharpmaml`` command."""

from sharpmaml.cli import main

main()
