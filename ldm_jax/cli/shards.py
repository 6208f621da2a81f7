"""Writes the pictures of a source into shards of records, which training reads in any order:

python -m ldm_jax.cli.shards --out=DIR --data.source.path=FOLDER
python -m ldm_jax.cli.shards --out=DIR --verify
"""

from ldm_jax.core.command import run_command, run_program
from ldm_jax.core.signals import at_end

PROGRAM = "ldm_jax.cli.shards"


def main(arguments: list[str]) -> int:
    """The command line; returns the process's exit status."""

    def write(words: list[str]) -> None:
        with at_end(lambda: "the same command goes on from here"):
            # The imports take their time, and Ctrl-C may come at any.
            from ldm_jax.cli import shards_task

            shards_task.main(PROGRAM, words)

    return run_command(PROGRAM, write, arguments)


if __name__ == "__main__":
    run_program(PROGRAM, main)
