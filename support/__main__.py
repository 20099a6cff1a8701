"""``python -m support``: the book's one command-line door."""

import sys

from support.cli import main

if __name__ == "__main__":  # kernels that are forked import it as well
    sys.exit(main())
