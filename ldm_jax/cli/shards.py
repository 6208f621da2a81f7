"""Writes the pictures of a source into shards of records, which training reads in any order:

python -m ldm_jax.cli.shards --out=DIR --data.source.path=FOLDER
python -m ldm_jax.cli.shards --out=DIR --verify
"""

from ldm_jax.core.command import run_program, run_task

PROGRAM = "ldm_jax.cli.shards"


def main(arguments: list[str]) -> int:
    """The command line; returns the process's exit status."""
    interrupted = "the same command goes on from here"
    return run_task(PROGRAM, f"{PROGRAM}_task", interrupted, arguments)


if __name__ == "__main__":
    run_program(PROGRAM, main)
