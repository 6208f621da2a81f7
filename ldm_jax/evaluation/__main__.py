"""Measures models: `python -m ldm_jax.evaluation --task=TASK --model=MODEL`; --help lists more."""

import argparse
import importlib
import sys

from ldm_jax.config.command_line import parse

TASKS = {
    "likelihood": "ldm_jax.evaluation.likelihood_task",
    "reconstruction": "ldm_jax.evaluation.reconstruction_task",
}
"""Task → module with `Arguments()`, whose docstring says what is measured, and `run(arguments)`.

`Arguments` has the fields `model` and `data`. The module imports JAX only when it runs.
"""


def main(arguments: list[str]) -> int:
    """The command line; returns the process's exit status."""
    parser = argparse.ArgumentParser(
        prog="ldm_jax.evaluation", add_help=False, allow_abbrev=False,
        usage=f"%(prog)s --task={{{','.join(TASKS)}}} ...; --task=TASK --help says more",
    )  # fmt: skip
    parser.add_argument("--task", choices=TASKS, required=True)
    chosen, rest = parser.parse_known_args(arguments)
    task = importlib.import_module(TASKS[chosen.task])
    program = f"ldm_jax.evaluation --task={chosen.task}"
    try:
        task.run(
            parse(
                task.Arguments(),
                rest,
                prog=program,
                description=task.Arguments.__doc__,
                model="model",
            )  # fmt: skip
        )
    except (ValueError, OSError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
