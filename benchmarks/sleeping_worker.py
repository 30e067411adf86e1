"""A worker whose trials sleep instead of training, for `dispatch.py`: the arguments are those of `mmkd.worker`."""

import sys
import time

import sleeping_trial

from mmkd import trial, worker


def sleep(arguments: list[str], received: list[int]) -> int:
    """Be the trial that a worker has just forked."""
    return sleeping_trial.main(arguments, started=time.time())


if __name__ == "__main__":
    trial.main = sleep  # type: ignore[assignment]
    sys.exit(worker.main())
