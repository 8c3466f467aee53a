"""`python -m graphc` is the `graphc` command."""

from graphc.cli import main

main()
