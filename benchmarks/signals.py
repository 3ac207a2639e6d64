"""Ends an interrupted benchmark cleanly, so that no child and nothing in any store outlives it."""

import signal
import sys


def end_in_order() -> None:
    """Make SIGINT and SIGTERM unwind the main thread.

    SIGINT is set too because a shell starts a background command with SIGINT ignored, and Python keeps that: without
    this, Ctrl-C and `kill -INT` would do nothing there."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
