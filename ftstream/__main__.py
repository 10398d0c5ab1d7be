"""`python -m ftstream`."""

from ftstream.cli import main

main()
