"""`python -m melmask` is the command melmask."""

from melmask.cli import main

main()
