"""`python -m sim` is `residentsim`."""

from .cli import main

main()
