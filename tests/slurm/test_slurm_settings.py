"""What a site wants to be told about each job: read, checked, and turned into sbatch's options."""

import pytest
from pydantic import ValidationError

from slurm.settings import SlurmSettings, megabytes, seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [("16G", 16384), ("500M", 500), ("4096", 4096), ("1.5g", 1536), ("2T", 2 * 1024**2), ("512KB", 0.5)],
)
def test_memory_is_read_as_slurm_writes_it(text: str, expected: float) -> None:
    assert megabytes(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 5400),
        ("1:30", 90),
        ("2:00:00", 7200),
        ("1-0", 86400),
        ("1-2:30", 95400),
        ("1-2:03:04", 93784),
        ("0", 0),
    ],
)
def test_a_time_is_read_as_sbatch_reads_it(text: str, expected: int) -> None:
    assert seconds(text) == expected
    assert SlurmSettings(time=text, grace=1).time == text


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("mem", "16 gigs", "write 16G or 4096M"),
        ("mem_limit", "much", "write 16G or 4096M"),
        ("time", "tomorrow", "write minutes, hours:minutes:seconds or days-hours"),
        ("time", "1:", "write minutes"),
        ("gpus", "two", "write a number, type:number"),
        ("gpus", "h200", "write a number, type:number"),
        ("gpus", "-1", "write a number, type:number"),
        ("cpus", 0, "greater than or equal to 1"),
        ("partition", "gpu\n#SBATCH --uid=0", "a single line"),
        ("extra", {"Reservation": "lab"}, "long name without dashes"),
        ("extra", {"comment": "a\nb"}, "one line"),
        ("partitoin", "gpu", "Extra inputs are not permitted"),
        ("partition", "g pu", "a name, or several with commas and no space"),
        ("account", "lab 42", "no space"),
        ("nodelist", "n1, n2", "no space"),
        ("nodelist", "n1,n2", "--slurm.exclude with the other nodes"),
        ("nodelist", "n[1-2]", "Slurm would give each job all of these nodes"),
        ("exclude", "n1\tn2", "a single line"),
        ("constraint", "a\nb", "a single line"),
        ("mem", 16, 'write "16G", or "16M" if you mean that'),
        ("mem", "16", 'write "16G"'),
        ("mem", 1.5, 'write "1.5G"'),
        ("mem", True, 'write "16G"'),
        ("mem_limit", "64", 'write "64G"'),
        ("extra", {"array": "0-3"}, "array cannot be given: each trial is one process in one job"),
        ("extra", {"ntasks": "2"}, "ntasks cannot be given: each trial is one process"),
        ("extra", {"requeue": ""}, "requeue cannot be given: the controller decides"),
        ("extra", {"dependency": "afterok:1"}, "dependency cannot be given: the controller decides"),
        ("extra", {"output": "x"}, "output cannot be given: mmkd finds its jobs and their logs by it"),
        ("extra", {"job-name": "x"}, "job-name cannot be given: mmkd finds"),
        ("extra", {"parsable": ""}, "parsable cannot be given: sbatch would not just submit"),
        ("extra", {"wait": ""}, "wait cannot be given: sbatch would not"),
        ("extra", {"wrap": "ls"}, "wrap cannot be given: sbatch would not"),
        ("extra", {"mem-per-cpu": "2G"}, "mem-per-cpu cannot be given: mem_per_cpu decides it"),
        ("extra", {"gpus-per-task": "1"}, "gpus-per-task cannot be given: gpus decides it"),
        ("extra", {"signal": "TERM@9"}, "signal cannot be given: grace decides it"),
        ("extra", {"partition": "gpu"}, "partition cannot be given: it has its own key"),
        ("extra", {"gres": "lscratch:10,gpu:1"}, "gpus decides it"),
    ],
)
def test_a_wrong_value_is_refused_and_the_right_form_is_said(field: str, value: object, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SlurmSettings.model_validate({field: value})


def test_a_time_limit_within_the_grace_is_refused_and_no_limit_is_none() -> None:
    with pytest.raises(ValidationError, match="time 1 is not above the grace of 90 s"):
        SlurmSettings(time="1")
    assert SlurmSettings(time="1", grace=30).time == "1"
    assert SlurmSettings(time="0").time == "0"


@pytest.mark.parametrize(
    ("gpus", "count", "options"),
    [
        ("1", 1, {"gpus-per-node": "1"}),
        ("h200:2", 2, {"gpus-per-node": "h200:2"}),
        ("gpu:1", 1, {"gres": "gpu:1"}),
        ("gpu:volta:4", 4, {"gres": "gpu:volta:4"}),
        ("0", 0, {}),
    ],
)
def test_gpus_are_asked_for_in_the_sites_own_way(gpus: str, count: int, options: dict[str, str]) -> None:
    settings = SlurmSettings(gpus=gpus)
    assert (settings.gpu_count, settings.gpu_options()) == (count, options)


def test_memory_grows_after_each_loss_up_to_a_limit() -> None:
    usual = SlurmSettings(mem="10G")
    assert [usual.memory_options(factor)["mem"] for factor in (1, 2, 4, 8, 64)] == [
        "10240M",
        "20480M",
        "40960M",
        "40960M",
        "40960M",
    ]
    bounded = SlurmSettings(mem="10G", mem_limit="15G")
    assert [bounded.memory_options(factor)["mem"] for factor in (1, 2, 4)] == ["10240M", "15360M", "15360M"]
    with pytest.raises(ValidationError, match="mem_limit 1G is below mem 10G: raise one or lower the other"):
        SlurmSettings(mem="10G", mem_limit="1G")


@pytest.mark.parametrize(("value", "asked"), [(16000, "16000M"), ("4096", "4096M"), ("64M", "64M"), ("0", "0M")])
def test_memory_without_a_unit_is_megabytes_where_nobody_can_mean_gigabytes(value: object, asked: str) -> None:
    assert SlurmSettings.model_validate({"mem": value}).memory_options(1) == {"mem": asked}


def test_a_gres_that_is_no_gpu_may_stand_beside_gpus_that_are_asked_for_by_type() -> None:
    extra = {"gres": "lscratch:10"}
    assert SlurmSettings(gpus="h200:1", extra=extra).extra == extra
    with pytest.raises(ValidationError, match="beside another gres write gpus as type:number"):
        SlurmSettings(gpus="gpu:h200:1", extra=extra)


def test_options_of_sbatch_are_written_as_toml_would_have_them() -> None:
    given = {"exclusive": True, "nice": 100, "reservation": "lab"}
    expected = {"exclusive": "", "nice": "100", "reservation": "lab"}
    assert SlurmSettings.model_validate({"extra": given}).extra == expected


def test_an_empty_name_is_none_so_that_an_option_can_take_the_sites_away() -> None:
    assert SlurmSettings(account="", nodelist="").account is None


def test_one_setup_line_may_stand_without_a_list() -> None:
    assert SlurmSettings.model_validate({"setup": "module load cuda"}).setup == ("module load cuda",)


def test_memory_is_requested_as_the_site_wants_it() -> None:
    per_cpu = SlurmSettings(cpus=4, mem_per_cpu="2G", mem_limit="12G")
    assert [per_cpu.memory_options(factor) for factor in (1, 2)] == [{"mem-per-cpu": "2048M"}, {"mem-per-cpu": "3072M"}]
    assert SlurmSettings.model_validate({"mem": "None"}).memory_options(4) == {}
    with pytest.raises(ValidationError, match="mem 8G and mem_per_cpu 2G: give one of them"):
        SlurmSettings(mem="8G", mem_per_cpu="2G")
    with pytest.raises(ValidationError, match="below 4 cpus times mem_per_cpu 2G"):
        SlurmSettings(cpus=4, mem_per_cpu="2G", mem_limit="7G")
    SlurmSettings(mem="none", mem_per_cpu="2G")
