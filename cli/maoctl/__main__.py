"""`python -m maoctl`."""

from .main import main

main()
