"""Another machine's clock: `OTHER_CLOCK` is `controller:SECONDS` or `trials:SECONDS`, and says whose clock differs."""

import os
import sys
import time

_whose, _, _seconds = os.environ.get("OTHER_CLOCK", "").partition(":")
_is_trial = any(word in ("mmkd.trial", "mmkd.worker") for word in sys.orig_argv)
if _seconds and (_whose == "trials") is _is_trial:
    _time = time.time
    time.time = lambda: _time() + float(_seconds)
