"""Measures models and images: `python -m ldm_jax.evaluation TASK ...`; --help lists more."""

from ldm_jax.core.command import run_command, run_program

TASKS = {
    "fid": "ldm_jax.evaluation.fid_task",
    "reference": "ldm_jax.evaluation.reference_task",
    "sweep": "ldm_jax.evaluation.sweep_task",
    "table": "ldm_jax.evaluation.table_task",
    "likelihood": "ldm_jax.evaluation.likelihood_task",
    "reconstruction": "ldm_jax.evaluation.reconstruction_task",
}
"""Task → module with `main(program, words)`, which raises what `run_command` says in one line.

A module imports JAX only when it runs, so that --help and mistakes answer at once.
"""
USAGE = f"""Measures models and images:

    python -m ldm_jax.evaluation TASK ...

TASK is one of {", ".join(TASKS)}; TASK --help says more. docs/scores.md explains the first four,
docs/likelihood.md and docs/first_stage.md the others."""


def main(arguments: list[str]) -> int:
    """The command line; returns the process's exit status."""
    return run_command("ldm_jax.evaluation", measure, arguments)


def measure(arguments: list[str]) -> None:
    """Runs the task that the arguments name."""
    # The imports take their time, and Ctrl-C may come at any.
    import importlib

    from ldm_jax.config.checks import ConfigError

    if arguments[:1] in (["--help"], ["-h"]):
        print(USAGE)
        return
    if not arguments or arguments[0] not in TASKS:
        named = repr(arguments[0]) if arguments else "missing"
        raise ConfigError(f"the task is {named}; it must be one of {', '.join(TASKS)}")
    task, *words = arguments
    importlib.import_module(TASKS[task]).main(f"ldm_jax.evaluation {task}", words)


if __name__ == "__main__":
    run_program("ldm_jax.evaluation", main)
