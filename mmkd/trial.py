"""The one thing that a job runs: `python -m mmkd.trial DIR`, on a laptop, on a Slurm node, in a test."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from mmkd.signals import listen

if __name__ == "__main__":
    EARLY = listen()  # before torch, whose import takes seconds in which a signal would kill without a word

import torch

from mmkd.attempts import current_attempt, record_run
from mmkd.config import Augmentation, Run, StudentConfig, TeacherConfig, from_json, identity, to_json
from mmkd.data import DatasetInfo, read_statistics
from mmkd.data.tensors import hold_out, load_samples
from mmkd.distillation import load_method
from mmkd.distillation.base import Problem
from mmkd.errors import UserError
from mmkd.files import read_json, remove_leftovers
from mmkd.lock import FileLock, LockHeld
from mmkd.models.network import build_teacher, count_parameters
from mmkd.provenance import describe_process, gpus_given
from mmkd.result_checks import weights_checksum
from mmkd.result_file import Predictions, Result, Status, read_result, write_result
from mmkd.rundir import TrialDir
from mmkd.terminal import Parser, complain, printable
from mmkd.training.building import new_student, open_data
from mmkd.training.checkpoint import Checkpoint, CheckpointError, Progress, read_checkpoint, save_weights
from mmkd.training.evaluation import evaluate
from mmkd.training.trained_network import load_teacher
from mmkd.training.trainer import Diverged, Lesson, Preempted, Pruned, Trainer
from mmkd.trial_state import Failure

EXIT_FINISHED, EXIT_ERROR, EXIT_BAD_INPUT, EXIT_GO_ON = 0, 1, 2, 75
"""75 is sysexits' "temporary failure": the same command goes on from the checkpoint."""

OF_THE_PLACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE})
"""A full, read-only or lost disk says nothing about the trial: it counts as a node that failed."""

LOCK_PATIENCE = 120.0
"""Seconds to wait for a superseded attempt of the same trial to notice and end."""
ATTEMPT_SECONDS = 10.0
"""Within an epoch, the file that says which attempt may write is looked at this often."""


class Superseded(Exception):
    """Another attempt of this trial has taken over; this one must not write."""


def run_trial(
    config: TeacherConfig | StudentConfig,
    directory: Path,
    *,
    attempt: int = 0,
    asked_to_end: Callable[[], bool] = lambda: False,
) -> Status:
    """Train what `config` says, in `directory`, and leave a result there.

    Goes on from a checkpoint if there is one; does nothing if there is a result. A diverged trial is a result.

    Args:
        config: what to do, fully resolved.
        directory: the trial's, under a root (see `mmkd.rundir`).
        attempt: this attempt's number; the run ends as soon as the file `attempt` holds another one.
        asked_to_end: asked after each step; True: write a checkpoint and raise `Preempted`.

    Raises:
        UserError: the data or the teacher are not what the configuration says.
        Preempted: asked to end; call again to go on.
        Superseded: another attempt has taken over.
    """
    place = TrialDir(directory)
    if place.result.exists():
        return read_result(place.result, predictions=False).status

    looked = time.monotonic()

    def may_write() -> None:
        refuse_superseded(place, attempt)

    def asked() -> bool:
        nonlocal looked
        if time.monotonic() - looked > ATTEMPT_SECONDS:
            looked = time.monotonic()
            may_write()
        return asked_to_end()

    for written in (place.metrics, place.checkpoint, place.weights, place.result):
        remove_leftovers(directory, written.name)
    device = prepare(config)
    lesson = make_lesson(config, place, device)
    trainer = Trainer(config, lesson, place, usable_checkpoint(config, place, device), may_write, asked)
    status, reason = Status.COMPLETE, ""
    try:
        progress = trainer.run()
    except Diverged as error:
        status, reason, progress = Status.DIVERGED, str(error), trainer.progress
    except Pruned as error:
        status, reason, progress = Status.PRUNED, str(error), trainer.progress
    may_write()
    finish(config, place, lesson, progress, status, reason)
    return status


def refuse_superseded(place: TrialDir, attempt: int) -> None:
    """Make sure that this attempt is still the one that may write.

    Raises:
        Superseded: it is not.
    """
    current = current_attempt(place)
    if current != attempt:
        raise Superseded(f"{place.path}: attempt {current} has taken over from {attempt}")


def prepare(config: Run) -> torch.device:
    """Set threads, seed and determinism; the device. A job that has GPUs which torch does not see is warned.

    Raises:
        UserError: CUDA is asked for and there is none.
    """
    torch.set_num_threads(config.threads)
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device = 'cuda', but this machine shows no CUDA device; use 'auto' or 'cpu'")
    cuda = config.device != "cpu" and torch.cuda.is_available()
    if config.device == "auto" and not cuda and (given := gpus_given()):
        what = f"warning: this job was given GPUs ({given}) and torch sees none: it trains on the CPU"
        print(printable(f"{what}; --device cuda fails instead"), file=sys.stderr, flush=True)
    # What is deterministic is reproduced bit for bit after a resume; cuBLAS reads this before its first call.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Nothing here reads memory before it writes it; to fill it first is a pass in vain.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # made at run time
    torch.manual_seed(config.seed)
    return torch.device("cuda" if cuda else "cpu")


def make_lesson(config: TeacherConfig | StudentConfig, place: TrialDir, device: torch.device) -> Lesson:
    """Data, network, and for a student its method and teacher.

    Raises:
        UserError: see `run_trial`.
    """
    info = open_data(config)
    if isinstance(config, TeacherConfig):
        network = build_teacher(info, config.network, config.branch).to(device)
        train, valid = (load_samples(info.path, split, info.modalities, device) for split in ("train", "valid"))
        train, _ = hold_out(train, config.training.held_out)
        return Lesson(network, train, valid, info)
    return make_student_lesson(config, place, info, device)


def make_student_lesson(config: StudentConfig, place: TrialDir, info: DatasetInfo, device: torch.device) -> Lesson:
    """See `make_lesson`."""
    distillation = config.distillation
    method_class = load_method(distillation.method)
    network, pairing = new_student(config, info)
    teacher = None
    if method_class.needs_teacher:
        if config.teacher is None:
            raise UserError(f"{place.config}: method {distillation.method} needs a teacher, and the file names none")
        teacher = load_teacher(place.root, config.teacher, info, device)
    modalities = info.modalities if teacher else pairing.inputs
    train, held_out = hold_out(load_samples(info.path, "train", modalities, device), config.training.held_out)
    if teacher:
        teacher.remember(train.x, augmented=config.training.augmentation != Augmentation())
    valid = load_samples(info.path, "valid", pairing.inputs, device)
    teachers = teacher.network if teacher else None
    problem = Problem(distillation, pairing, network, teachers, train.y.cpu(), len(info.classes), held_out)
    method = method_class(problem)
    return Lesson(
        network.to(device), train, valid, info, method.to(device), teacher, distillation.alpha, distillation.beta
    )


def usable_checkpoint(config: Run, place: TrialDir, device: torch.device) -> Checkpoint | None:
    """The trial's checkpoint; one that cannot be used is said so, and the trial begins again."""
    try:
        return read_checkpoint(place.checkpoint, identity(config), device)
    except CheckpointError as error:
        print(f"warning: {error}; the trial begins again", file=sys.stderr, flush=True)
        return None


def finish(
    config: TeacherConfig | StudentConfig,
    place: TrialDir,
    lesson: Lesson,
    progress: Progress,
    status: Status,
    reason: str,
) -> None:
    """Evaluate the best weights and write weights and result; then the checkpoint is not needed any more."""
    started = time.perf_counter()
    metrics: dict[str, dict[str, float]] = {}
    predictions: dict[str, Predictions] = {}
    checksum = ""
    if progress.best:
        lesson.network.load_state_dict(progress.best)
        splits = {"valid": lesson.valid}
        if config.evaluate_test and status is Status.COMPLETE:
            modalities = list(lesson.valid.x)
            splits["test"] = load_samples(lesson.info.path, "test", modalities, lesson.valid.y.device)
        for split, samples in splits.items():
            metrics[split], predictions[split] = evaluate(lesson.network, samples, lesson.info)
        save_weights(place.weights, progress.best)
        checksum = weights_checksum(place)
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
        standardisation={m: pair for m, pair in read_statistics(lesson.info.path).items() if m in lesson.valid.x},
    )
    write_result(place, result)
    place.checkpoint.unlink(missing_ok=True)


def run_attempt(place: TrialDir, attempt: int, received: Sequence[int], lock: FileLock, *, by_hand: bool) -> int:
    """Run one attempt of a trial, once `lock` is free, and record its story; the exit code.

    Args:
        place: the trial's directory.
        attempt: this attempt's number.
        received: the signals so far; any asks to end, and SIGUSR2 is Slurm's word that the time limit is near.
        lock: the trial's; held when this returns.
        by_hand: whether a user, and no controller, runs this.

    Raises:
        UserError: by hand, while another process runs the trial.
    """
    if place.result.exists():
        print(f"{place.path}: finished already", flush=True)
        return EXIT_FINISHED
    config = from_json(read_json(place.config), place.config)
    started = time.time()
    end, message, code = "complete", "", EXIT_FINISHED
    try:
        acquire_patiently(lock, place, attempt, received)
        record_run(place, attempt, attempt=attempt, started=started, **describe_process(config.device))
        status = run_trial(config, place.path, attempt=attempt, asked_to_end=lambda: bool(received))
        print(f"{place.path}: {status}", flush=True)
    except LockHeld as held:
        if by_hand:
            raise UserError(f"{held}: this trial runs already") from None
        # Mostly on a node that Slurm has lost, and whose processes live.
        end, message, code = Failure.NODE_FAIL, f"{held}: an earlier attempt still runs there", EXIT_GO_ON
    except Preempted as stop:
        end, message, code = why_asked(received), str(stop), EXIT_GO_ON
    except Superseded as stop:
        end, message, code = Failure.CANCELLED, str(stop), EXIT_GO_ON
    except UserError as error:
        end, message, code = Failure.ERROR, str(error), EXIT_BAD_INPUT
    except (MemoryError, torch.OutOfMemoryError) as error:
        end, message, code = Failure.OUT_OF_MEMORY, str(error).splitlines()[0] if str(error) else "", EXIT_ERROR
    except Exception as error:
        # The one place where an unforeseen error of a job is caught: its story must be told before it ends.
        traceback.print_exc()
        of_the_place = isinstance(error, OSError) and error.errno in OF_THE_PLACE
        end, code = Failure.NODE_FAIL if of_the_place else Failure.ERROR, EXIT_ERROR
        message = f"{type(error).__name__}: {error}".splitlines()[0]
    if message:
        print(printable(message), file=sys.stderr, flush=True)
    record_run(place, attempt, end=str(end), message=message, ended=time.time(), seconds=time.time() - started)
    return code


def why_asked(received: Sequence[int]) -> Failure:
    """What the signals that asked a run to end stand for; SIGTERM may be anything but a time limit."""
    return Failure.TIMEOUT if signal.SIGUSR2 in received else Failure.PREEMPTED


def acquire_patiently(lock: FileLock, place: TrialDir, attempt: int, received: Sequence[int]) -> None:
    """Take the trial's lock, waiting for its holder to go.

    Raises:
        LockHeld: it was held for `LOCK_PATIENCE`.
        Superseded, Preempted: meanwhile.
    """
    deadline = time.monotonic() + LOCK_PATIENCE
    while True:
        refuse_superseded(place, attempt)
        try:
            return lock.acquire()
        except LockHeld:
            if time.monotonic() > deadline:
                raise
            if received:
                raise Preempted("asked to end while it waited for an earlier attempt's end") from None
            time.sleep(0.2)


def main(arguments: list[str] | None = None, received: list[int] | None = None) -> int:
    """The command; `received` are signals that have been heard so far, None where nobody listens yet."""
    parser = Parser(
        prog="python -m mmkd.trial",
        description="Run the trial in DIR (its config.json), going on from its checkpoint; what every job runs.",
        epilog="Exit codes: 0 finished (also diverged or pruned), 1 error, 2 bad input, 75 asked to end: call again.",
    )
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--attempt", type=int, help="this attempt's number (default: the one in DIR/attempt)")
    options = parser.parse_args(arguments)
    place = TrialDir(options.directory)
    lock = FileLock(place.lock)
    by_hand = options.attempt is None
    received = listen() if received is None else received
    try:
        if not place.config.exists():
            raise UserError(f"{place.config}: no such file; a trial's directory holds a config.json")
        attempt = current_attempt(place) if by_hand else options.attempt
        return run_attempt(place, attempt, received, lock, by_hand=by_hand)
    except UserError as error:
        complain(error)
        return EXIT_BAD_INPUT
    except OSError as error:
        complain(error)
        return EXIT_ERROR
    finally:
        lock.release()


if __name__ == "__main__":
    sys.exit(main(received=EARLY))
