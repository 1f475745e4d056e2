"""`python -m gateway` is `lingdian`."""

from gateway.cli import main

main()
