"""`python -m bench [NAME…]`: measure the budgets and print them."""

from __future__ import annotations

import sys

from bench.command import main

if __name__ == "__main__":
    sys.exit(main())
