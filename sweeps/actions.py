"""What can be done with a study besides running it; each action imports what it needs when it is asked for."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mmkd.errors import UserError
from sweeps.options import site_changes
from sweeps.recorded import find_recorded
from sweeps.site_file import load_site

if TYPE_CHECKING:
    from sweeps.launch import Launch


def look_after(options: argparse.Namespace) -> int:
    """Do what is asked about a study that was launched; the exit code.

    Raises:
        UserError: there is none, or it cannot be done now.
    """
    if options.dry_run and not options.clean:
        raise UserError("--dry-run: goes with a launch, and with --clean")
    study = find_recorded(options)
    if options.status:
        from sweeps.standing import show_status

        show_status(study)
        return 0
    if options.cancel:
        from sweeps.cancelling import cancel

        return cancel(study, load_site(options.site, site_changes(options)))
    if options.archive:
        from sweeps.archiving import archive

        return archive(study, options.archive)
    from sweeps.cleaning import clean

    return clean(study, dry_run=options.dry_run)


def look_ahead(made: Launch, options: argparse.Namespace) -> int:
    """What is left, what it will take, and on Slurm the scripts of jobs; nothing of the study runs."""
    from sweeps import detaching, estimates, showing
    from sweeps.probing import probe

    left = [estimates.left_of(row, made.root, retry_failed=options.retry == "failed") for row in made.rows]
    runs, teachers = estimates.estimates_of(left, made.root, made.backend.name, prompt=made.backend.prompt)
    if options.probe:
        runs, teachers = probe(left, runs, teachers, made.environment)
    estimates.show_estimate(left, runs, teachers, made.parallel, made.backend.gpus)
    showing.show_script(made.rows[0], made.root, made.backend, made.environment)
    if options.detach:
        print(f"script    of the controller\n\n{detaching.controller_script(made, options)}")
    return 0
