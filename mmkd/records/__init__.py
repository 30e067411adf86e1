"""Schemas of the records under a root: one per file, shared by controller, monitor and analysis."""

from mmkd.records.differences import differences, leaves
from mmkd.records.rows import (
    CodeRecord,
    CodeVersion,
    RowData,
    RowIdentity,
    RowRecord,
    SearchRange,
    SnapshotRecord,
    TeacherChoice,
    WinnerRecord,
    code_versions,
)
from mmkd.records.schema import FileName, Line, Percent, Record, as_written, find_record, read_record, write_record
from mmkd.records.splits import SplitRecord, store_split
from mmkd.records.studies import (
    PaperFigures,
    StudyRecord,
    StudyRow,
    compared_with,
    read_study,
    select_rows,
    study_names,
)
from mmkd.records.trials import AttemptRecord, FinishedTrial, RunRecord, SubmissionRecord, TrialFacts
from mmkd.records.workers import AssignmentRecord, ProcessRecord, WorkerRecord, assign

__all__ = [
    "AssignmentRecord",
    "AttemptRecord",
    "CodeRecord",
    "CodeVersion",
    "FileName",
    "FinishedTrial",
    "Line",
    "PaperFigures",
    "Percent",
    "ProcessRecord",
    "Record",
    "RowData",
    "RowIdentity",
    "RowRecord",
    "RunRecord",
    "SearchRange",
    "SnapshotRecord",
    "SplitRecord",
    "StudyRecord",
    "StudyRow",
    "SubmissionRecord",
    "TeacherChoice",
    "TrialFacts",
    "WinnerRecord",
    "WorkerRecord",
    "as_written",
    "assign",
    "code_versions",
    "compared_with",
    "differences",
    "find_record",
    "leaves",
    "read_record",
    "read_study",
    "select_rows",
    "store_split",
    "study_names",
    "write_record",
]
