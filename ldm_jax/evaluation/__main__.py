"""Measures models: `python -m ldm_jax.evaluation --task=TASK --model=MODEL`; --help lists more."""

from ldm_jax.core.command import run_command, run_program

TASKS = {
    "likelihood": "ldm_jax.evaluation.likelihood_task",
    "reconstruction": "ldm_jax.evaluation.reconstruction_task",
}
"""Task → module with `Arguments()`, whose docstring says what is measured, and `run(arguments)`.

`Arguments` has the fields `model` and `data`. The module imports JAX only when it runs.
"""


def main(arguments: list[str]) -> int:
    """The command line; returns the process's exit status."""
    return run_command("ldm_jax.evaluation", measure, arguments)


def measure(arguments: list[str]) -> None:
    """Runs the task that the arguments name."""
    # The imports take their time, and Ctrl-C may come at any.
    import importlib

    from ldm_jax.config.command_line import LineParser, parse

    parser = LineParser(
        prog="ldm_jax.evaluation", add_help=False, allow_abbrev=False,
        usage=f"%(prog)s --task={{{','.join(TASKS)}}} ...; --task=TASK --help says more",
    )  # fmt: skip
    parser.add_argument("--task", choices=TASKS, required=True)
    chosen, rest = parser.parse_known_args(arguments)
    task = importlib.import_module(TASKS[chosen.task])
    program = f"ldm_jax.evaluation --task={chosen.task}"
    described = task.Arguments.__doc__
    task.run(parse(task.Arguments(), rest, prog=program, description=described, model="model"))


if __name__ == "__main__":
    run_program("ldm_jax.evaluation", main)
