"""`python -m penstock.cli`: the command line without the script."""

from penstock.cli.entry import main

main()
