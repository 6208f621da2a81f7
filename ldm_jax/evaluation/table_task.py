"""The task `table`: several reports of the task `fid` side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ldm_jax.config.checks import ConfigError
from ldm_jax.core.reading import FileFormatError, read_json

USAGE = """Prints reports of the task fid as one table in Markdown:

    python -m ldm_jax.evaluation table REPORT.json [REPORT.json ...]

Reports of different evaluators, weights, references or numbers of images are not put together."""


def main(program: str, words: Sequence[str]) -> None:
    """Prints the table of the reports that a command line names.

    Raises ConfigError, FileFormatError: reports whose numbers cannot be compared; why.
    """
    if not words or words[0] in ("--help", "-h"):
        print(USAGE)
        return
    reports = {Path(word): _read(Path(word)) for word in words}
    print(table(reports))


def table(reports: dict[Path, dict[str, Any]]) -> str:
    """The reports as a table in Markdown. Raises ConfigError: they cannot stand together."""
    check_alike(reports)
    names = list(dict.fromkeys(name for one in reports.values() for name in one["scores"]))
    rows = [
        [str(path)] + [cell(one["scores"].get(name)) for name in names]
        for path, one in reports.items()
    ]
    return markdown(["report", *names], rows)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def check_alike(reports: dict[Path, dict[str, Any]]) -> None:
    """Raises ConfigError unless the numbers of all reports can be compared."""
    first_path, first = next(iter(reports.items()))
    for path, one in reports.items():
        for what, of in _ALIKE.items():
            if of(one) != of(first):
                raise ConfigError(
                    f"{path} has another {what} than {first_path}, {of(one)!r}, not {of(first)!r}; "
                    "their numbers cannot be compared"
                )


def _reference(report: dict[str, Any]) -> Any:
    about = report["reference"] or {}
    return {name: value for name, value in about.items() if name != "found"}


_ALIKE = {
    "evaluator": lambda report: report["evaluator"],
    "network": lambda report: sorted(
        (one["extractor"], one["weights_sha256"]) for one in report["extractors"]
    ),
    "number of images": lambda report: report["samples"]["images"] // report["runs"],
    "reference": _reference,
}


def cell(entry: dict[str, Any] | None) -> str:
    """A score as a table has it, with its spread over runs or of the bootstrap."""
    if entry is None:
        return ""
    spread = entry.get("std", entry.get("bootstrap_std"))
    return f"{entry['value']:.4g}" + ("" if spread is None else f" ± {spread:.2g}")


def _read(path: Path) -> dict[str, Any]:
    report = read_json(path)
    needed = ("evaluator", "scores", "runs", "samples", "reference", "extractors")
    missing = [name for name in needed if name not in report]
    if missing:
        raise FileFormatError(path, f"is no report of the task fid: it has no {missing[0]}")
    return report
