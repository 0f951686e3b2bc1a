"""python -m staf.cli: the command line for launchers that start a module."""

from staf.cli import main

main()
