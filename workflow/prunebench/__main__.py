"""``python -m prunebench`` is the command line."""

from prunebench.cli import main

main()
