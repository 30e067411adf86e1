"""A trial runs the code that it was sent with, or refuses."""

import os
import subprocess
import sys
from typing import Any

import pytest

from mmkd.attempts import read_attempts
from mmkd.errors import UserError
from mmkd.provenance import SOURCE, loaded_code, refuse_other_code


@pytest.mark.parametrize("sent", [None, "", f"0123456789ab@{SOURCE}", f"{loaded_code()['code']}@/elsewhere/mmkd"])
def test_the_same_code_runs_wherever_it_is_and_edits_of_it_too(sent: str | None) -> None:
    refuse_other_code(sent)


def test_other_code_refuses_and_names_both_and_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/stripped")
    with pytest.raises(UserError) as refused:
        refuse_other_code("0123456789ab@/root/code/abc/mmkd")
    for words in (str(SOURCE), "/root/code/abc/mmkd", "0123456789ab", "PYTHONPATH is '/stripped'", "extra (export)"):
        assert words in str(refused.value)


def test_a_trial_that_was_sent_with_other_code_ends_before_it_starts(lab: Any) -> None:
    place = lab.place(lab.student())
    command = [sys.executable, "-m", "mmkd.trial", str(place.path), "--attempt", "1"]
    done = subprocess.run(
        [*command, "--code", "0123456789ab@/elsewhere"], capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.returncode == 2
    assert "this job imported mmkd from here" in done.stderr
    assert read_attempts(place) == []
