"""Run a trial: `python -m mmkd.trial DIR`, the only thing a job runs."""

from __future__ import annotations

import argparse
import errno
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from mmkd.signals import listen

if __name__ == "__main__":
    EARLY = listen()  # before torch, whose import takes seconds in which a signal would kill the process unrecorded

import torch

from mmkd import distillation
from mmkd.attempts import current_attempt, record_run
from mmkd.command import Parser, run_command
from mmkd.config import Run, StudentConfig, TeacherConfig, check_version, from_json, identity, to_json
from mmkd.data import read_statistics
from mmkd.data.tensors import load_samples
from mmkd.errors import UserError, where_raised
from mmkd.failures import Failure
from mmkd.files import read_json, remove_leftovers
from mmkd.lock import FileLock, LockHeld
from mmkd.metrics_log import print_epoch
from mmkd.models.network import count_parameters
from mmkd.provenance import SOURCE, describe_process, refuse_other_code
from mmkd.result_file import Predictions, Result, Status, read_result, weights_checksum, write_result
from mmkd.rundir import TrialDir
from mmkd.terminal import printable
from mmkd.training.checkpoint import Checkpoint, CheckpointError, Progress, read_checkpoint, save_weights
from mmkd.training.evaluation import evaluate
from mmkd.training.lesson import Lesson, make_lesson, prepare_torch, warn_of_single_class_batches
from mmkd.training.trainer import Diverged, Preempted, Pruned, Trainer

EXIT_FINISHED, EXIT_ERROR, EXIT_BAD_INPUT, EXIT_RESUME = 0, 1, 2, 75
"""75 is sysexits' "temporary failure": the same command resumes from the checkpoint."""

DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE})
"""Errors of a full, read-only or lost disk: the trial did not cause them, so they count as a node failure, or as one of
the storage that all nodes share."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

BUGS = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, RuntimeError, TypeError, ValueError)
COMPUTING = (SOURCE / "models", SOURCE / "training" / "trainer.py")
"""Beside the methods, the code that neither reads nor writes files: these exceptions in it are bugs."""
NODE_TROUBLE = re.compile(r"CUDA|cuDNN|CUBLAS|driver|alloc|thread")
"""In the message of a RuntimeError that the node caused."""

LOCK_PATIENCE = 120.0
"""Seconds to wait for a superseded attempt of the same trial to notice and end."""
ATTEMPT_SECONDS = 10.0
"""Within an epoch, the file that names the attempt which may write is read this often."""
ELSEWHERE_SECONDS = 3 * ATTEMPT_SECONDS
"""An attempt on another node has noticed after this time that it was superseded, if it still lives: a trial's lock has
no heartbeats."""


class Superseded(Exception):
    """Another attempt of this trial has taken over; this one must not write."""


def run_trial(
    config: TeacherConfig | StudentConfig,
    directory: Path,
    *,
    attempt: int = 0,
    asked_to_end: Callable[[], bool] = lambda: False,
    on_epoch: Callable[[Mapping[str, float]], None] = lambda line: None,
) -> Status:
    """Train the network of `config` in `directory` and write a result there.

    Resumes from a checkpoint if there is one; does nothing if there is a result. A diverged trial is a result.

    Args:
        config: the fully resolved configuration.
        directory: the trial's, under a root (see `mmkd.rundir`).
        attempt: this attempt's number; the run ends as soon as the file `attempt` holds another one.
        asked_to_end: called after each step; True: write a checkpoint and raise `Preempted`.
        on_epoch: called with each epoch's line of the metrics file.

    Raises:
        UserError: the data, the teacher or the algorithm's version do not match the configuration.
        Preempted: asked to end; call again to resume.
        Superseded: another attempt has taken over.
    """
    trial = TrialDir(directory)
    if trial.result.exists():
        return read_result(trial.result, predictions=False).status
    check_version(config, trial.config)

    checked = time.monotonic()

    check_attempt = partial(refuse_superseded, trial, attempt)

    def must_end() -> bool:
        nonlocal checked
        if time.monotonic() - checked > ATTEMPT_SECONDS:
            checked = time.monotonic()
            check_attempt()
        return asked_to_end()

    for written in (trial.metrics, trial.checkpoint, trial.weights, trial.result):
        remove_leftovers(directory, written.name)
    device = prepare_torch(config)
    lesson = make_lesson(config, trial, device)
    warn_of_single_class_batches(config, lesson)
    checkpoint = load_checkpoint(config, trial, device)
    trainer = Trainer(config, lesson, trial, checkpoint, check_attempt, must_end, on_epoch)
    status, reason = Status.COMPLETE, ""
    try:
        trainer.run()
    except (Diverged, Pruned) as error:
        status, reason = Status.DIVERGED if isinstance(error, Diverged) else Status.PRUNED, str(error)
    check_attempt()
    finish(config, trial, lesson, trainer.progress, status, reason)
    return status


def refuse_superseded(directory: TrialDir, attempt: int) -> None:
    """Raise unless this attempt is still the one that may write.

    Raises:
        Superseded: another attempt has taken over.
    """
    current = current_attempt(directory)
    if current != attempt:
        raise Superseded(f"{directory.path}: attempt {current} has taken over from {attempt}")


def load_checkpoint(config: Run, directory: TrialDir, device: torch.device) -> Checkpoint | None:
    """Read the trial's checkpoint, if any; warn and start over if it cannot be used."""
    try:
        return read_checkpoint(directory.checkpoint, identity(config), device)
    except CheckpointError as error:
        print(f"warning: {error}; the trial begins again", file=sys.stderr, flush=True)
        return None


def finish(
    config: TeacherConfig | StudentConfig,
    directory: TrialDir,
    lesson: Lesson,
    progress: Progress,
    status: Status,
    reason: str,
) -> None:
    """Evaluate the best weights, write weights and result, and remove the checkpoint."""
    started = time.perf_counter()
    metrics: dict[str, dict[str, float]] = {}
    predictions: dict[str, Predictions] = {}
    checksum = ""
    if progress.best:
        lesson.network.load_state_dict(progress.best)
        splits = {"valid": lesson.valid}
        if config.evaluate_test and status is Status.COMPLETE:
            modalities = list(lesson.valid.x)
            splits["test"] = load_samples(lesson.info, "test", modalities, lesson.valid.y.device)
        for split, samples in splits.items():
            metrics[split], predictions[split] = evaluate(lesson.network, samples, lesson.info)
        save_weights(directory.weights, progress.best)
        checksum = weights_checksum(directory)
    names = sorted({name for line in progress.history for name in line} - {"epoch"})
    device = lesson.train.y.device
    result = Result(
        status=status,
        config=to_json(config),
        reason=reason,
        best_epoch=progress.best_epoch,
        epochs=progress.epoch,
        seconds=progress.seconds + time.perf_counter() - started,
        parameters=count_parameters(lesson.network),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        weights_sha256=checksum,
        metrics=metrics,
        curves={name: [line[name] for line in progress.history] for name in names},
        predictions=predictions,
        standardisation=read_statistics(lesson.info, list(lesson.valid.x)),
    )
    write_result(directory, result)
    directory.checkpoint.unlink(missing_ok=True)


def run_attempt(directory: TrialDir, attempt: int, received: Sequence[int], lock: FileLock, *, by_hand: bool) -> int:
    """Run one attempt of a trial as soon as `lock` is free, and record how it ended; the exit code.

    Args:
        directory: the trial's directory.
        attempt: this attempt's number.
        received: the signals so far; any one asks to end, and SIGUSR2 announces Slurm's time limit.
        lock: the trial's; held when this returns.
        by_hand: True if a user runs this, not a controller.

    Raises:
        UserError: by hand, while another process runs the trial.
    """
    if directory.result.exists():
        print(f"{directory.path}: finished already", flush=True)
        return EXIT_FINISHED
    config = from_json(read_json(directory.config), directory.config)
    started, began = time.time(), time.monotonic()
    end, message, code = "complete", "", EXIT_FINISHED
    try:
        acquire_patiently(lock, directory, attempt, received)
        record_run(directory, attempt, attempt=attempt, started=started, **describe_process(config.device))
        said = partial(print_epoch, config.training.epochs)
        status = run_trial(config, directory.path, attempt=attempt, asked_to_end=lambda: bool(received), on_epoch=said)
        print(f"{directory.path}: {status}", flush=True)
    except LockHeld as held:
        if by_hand:
            raise UserError(f"{held}: this trial runs already") from None
        # Usually a node that Slurm has lost while its processes live on.
        end, message, code = Failure.NODE_FAIL, f"{held}: an earlier attempt still runs there", EXIT_RESUME
    except Preempted as stop:
        # SIGTERM may stand for anything but a time limit.
        end = Failure.TIMEOUT if signal.SIGUSR2 in received else Failure.PREEMPTED
        message, code = str(stop), EXIT_RESUME
    except Superseded as stop:
        end, message, code = Failure.CANCELLED, str(stop), EXIT_RESUME
    except UserError as error:
        end, message, code = Failure.ERROR, str(error), EXIT_BAD_INPUT
    except (MemoryError, torch.OutOfMemoryError) as error:
        end, message, code = Failure.OUT_OF_MEMORY, str(error).splitlines()[0] if str(error) else "", EXIT_ERROR
    except Exception as error:
        # Unforeseen errors are caught here alone: they must be recorded before the job ends.
        traceback.print_exc()
        end, message, code = *describe_error(error), EXIT_ERROR
    if message:
        print(printable(message), file=sys.stderr, flush=True)
    seconds = time.monotonic() - began  # the clock may be set meanwhile, or differ from others
    times = {"ended": started + seconds, "seconds": seconds}
    record_run(directory, attempt, end=str(end), message=message, **times, **peak_memory())
    return code


def peak_memory() -> dict[str, float]:
    """The most memory that this process has had, in MB, of the host and of a GPU if it used one."""
    peak = {"peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)}
    if torch.cuda.is_initialized():
        peak["peak_gpu_mb"] = round(torch.cuda.max_memory_reserved() / 2**20, 1)
    return peak


def describe_error(error: Exception) -> tuple[Failure, str]:
    """Return the class of an unforeseen error, and its message with the file and line of our code."""
    file, line = where_raised(error, [SOURCE, *distillation.__path__])
    message = f"{f'{type(error).__name__}: {error}'.splitlines()[0]} ({file}, line {line})"
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        is_own = str(error.filename or "").startswith(tempfile.gettempdir())  # the node's own disk
        return Failure.STORAGE if error.errno in FULL and not is_own else Failure.NODE_FAIL, message
    computing = [*map(Path, distillation.__path__), *COMPUTING]
    computes = any(Path(file).is_relative_to(path) for path in computing)
    by_node = isinstance(error, RuntimeError) and NODE_TROUBLE.search(str(error))
    is_bug = computes and Path(file).stem not in distillation.SHARED and isinstance(error, BUGS) and not by_node
    return Failure.BUG if is_bug else Failure.ERROR, message


def acquire_patiently(lock: FileLock, directory: TrialDir, attempt: int, received: Sequence[int]) -> None:
    """Take the trial's lock, waiting until its holder ends.

    Raises:
        LockHeld: it was held for `LOCK_PATIENCE`.
        Superseded, Preempted: while waiting.
    """
    deadline = time.monotonic() + LOCK_PATIENCE
    while True:
        refuse_superseded(directory, attempt)
        try:
            return lock.acquire()
        except LockHeld:
            if time.monotonic() > deadline:
                raise
            if received:
                raise Preempted("asked to end while waiting for an earlier attempt to end") from None
            time.sleep(0.2)


def main(arguments: list[str] | None = None, received: list[int] | None = None) -> int:
    """The command. `received` holds the signals heard so far; None: begin to listen."""
    parser = Parser(
        prog="python -m mmkd.trial",
        description="Run the trial in DIR (its config.json), resuming from its checkpoint. Every job runs this.",
        epilog="Exit codes: 0 finished (also diverged or pruned), 1 error, 2 bad input, 75 asked to end: call again.",
    )
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--attempt", type=int, help="this attempt's number (default: the one in DIR/attempt)")
    parser.add_argument(
        "--code", metavar="HASH@DIRECTORY",
        help="hash and directory of the code that it was sent with: other code in another directory refuses to run",
    )  # fmt: skip

    def run(options: argparse.Namespace) -> int:
        signals = listen() if received is None else received
        directory = TrialDir(options.directory)
        if not directory.config.exists():
            raise UserError(f"{directory.config}: no such file; a trial's directory holds a config.json")
        refuse_other_code(options.code)
        by_hand = options.attempt is None
        attempt = current_attempt(directory) if by_hand else options.attempt
        lock = FileLock(directory.lock, stale=ELSEWHERE_SECONDS)
        try:
            return run_attempt(directory, attempt, signals, lock, by_hand=by_hand)
        finally:
            lock.release()

    return run_command(parser, run, arguments, resumable=True)


if __name__ == "__main__":
    sys.exit(main(received=EARLY))
