"""`python -m recs` is the command `recs`."""

from recs.cli import main

main()
