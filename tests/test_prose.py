"""The project's prose avoids phrases that readers stumble over: in docs, docstrings, comments and messages."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]
PACKAGES = ("mmkd", "sweeps", "slurm", "analysis")
THING = "row|trial|job|seed|study|class|step|sample|line|launch|epoch|entry|modality|minute|second|attempt|run"

BANNED = {
    rf"\b(a|an|one) ({THING}) (a|an|each) ({THING})\b": "one job per trial",
    r"\btold (exactly )?(to Optuna|once)\b": "reported to Optuna",
    r"\bfailed for good\b": "failed (no retries left)",
    r"\bhas to wait\b": "waiting: Slurm says ...",
    r"\bwithout a word\b|\bheard of \S+ s ago": "not responding (last heartbeat 300 s ago)",
    r"\blies? in\b": "is in, is stored in",
    r"\b(goes|going|gone|went) on\b": "resumes, retries, continues",
    r"\bof (its|their|our|one's) own\b": "its own ..., a separate ...",
    r"\bmend(ed|s|ing)?\b": "fix",
    r"\bwhole or not at all\b": "written atomically",
    r"\btold apart\b": "distinguished, significantly different",
    r"\banew\b": "again",
    r"\bcommonest class\b": "most frequent class",
    r"\bwho pays\b": "account to charge",
    r"\bcost in use\b": "inference cost",
    r"\bthe real thing\b": "to use your own data",
    r", for (?!.*\b(that|which|who)\b)(a|the|it|they|its|no|nothing|nobody|there|this|these)\b[^,.;:]* "
    r"(is|are|was|were|has|have|may|can|cannot|does|do|would|will)\b": "because",
}
"""A regular expression of each phrase, and its replacement."""
CLAUSE = re.compile(r"(What|Which|How|Who|Whose|Whether|Why)\b|(A|An|One) \w+ (a|an) \w+\b")
"""Openings of a docstring that is not a noun phrase or an imperative."""


def documents() -> list[Path]:
    names = ("*.md", "docs/*.md", "docs/*.ipynb", "sweeps/*/*.toml", "analysis/*/*.html")
    return sorted(path for name in names for path in HERE.glob(name))


def modules() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (HERE / package).rglob("*.py"))


def phrases(text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), start=1):
        for pattern, better in BANNED.items():
            found = re.search(pattern, line, re.IGNORECASE)
            if found:
                yield f"{number}: {found[0]!r}; write: {better}"


def clauses(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found = CLAUSE.match(ast.get_docstring(node) or "")
            if found:
                yield f"{getattr(node, 'lineno', 1)}: opens with {found[0]!r}; write an imperative or a noun phrase"


def test_documents_and_modules_avoid_the_banned_phrases() -> None:
    found = [f"{path.relative_to(HERE)}:{hit}" for path in documents() + modules() for hit in phrases(path.read_text())]
    assert not found, "\n".join(found)


def test_no_docstring_opens_with_a_clause() -> None:
    found = [f"{path.relative_to(HERE)}:{hit}" for path in modules() for hit in clauses(path.read_text())]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "sbatch starts a job a trial",
        "Each trial is told to Optuna.",
        "trial 3 failed for good",
        "It has to wait, for the scheduler says: full",
        "gone without a word",
        "heard of 300 s ago",
        "Everything lies in runs.",
        "the same command goes on where it was",
        "each job in a folder of its own",
        "Mend it.",
        "appears whole or not at all",
        "computed anew, for the file is of no use",
        "The copy is used, for the cache may be gone",
    ],
)
def test_a_banned_phrase_is_found(text: str) -> None:
    assert list(phrases(text))


@pytest.mark.parametrize(
    "text",
    [
        "options for the jobs that are pending",
        "one job per trial",
        "your own data",
        "recommended for it",
        "line by line",
    ],
)
def test_plain_prose_passes(text: str) -> None:
    assert not list(phrases(text))


@pytest.mark.parametrize("opening", ["What a trial is.", "Whether it runs.", "How jobs end.", "A line a trial."])
def test_a_clause_at_the_start_of_a_docstring_is_found(opening: str) -> None:
    assert list(clauses(f'def f():\n    """{opening}"""\n'))
