"""``python -m support``: the book's one command-line door."""

import sys

from support.cli import main

sys.exit(main())
