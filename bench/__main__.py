"""`python -m bench [NAME…]`: measure the budgets and print them."""

from __future__ import annotations

import signal
import sys

from bench.command import main

if __name__ == "__main__":
    # As at ctrl-C: what was started is stopped, and its folders go.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
