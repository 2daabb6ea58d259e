"""`python -m melmask` is the command melmask."""

from melmask.cli.main import main

main()
