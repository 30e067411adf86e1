"""Launch a study on a backend that trains nothing: `python tests/campaigns/untrained_root.py` and launch's options."""

import os
import sys
from pathlib import Path

CODE = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(CODE), str(CODE / "tests" / "sweeps")]

from fakes import FakeBackend  # noqa: E402

from sweeps import launch, resolve  # noqa: E402

SLOTS = 64

if __name__ == "__main__":
    os.fsync = lambda fd: None  # a test's root need not survive a loss of power
    resolve.choose_backend = lambda options, site, workers: (FakeBackend(), SLOTS)
    launch.print_table = lambda *arguments: None
    sys.exit(launch.main(sys.argv[1:]))
