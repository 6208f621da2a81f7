"""Makes the index with which tar files in WebDataset's layout are read in any order:

python -m ldm_jax.cli.webdataset --path=shards/train-{000000..000099}.tar
"""

from ldm_jax.core.command import run_command, run_program
from ldm_jax.core.signals import at_end

PROGRAM = "ldm_jax.cli.webdataset"


def main(arguments: list[str]) -> int:
    """The command line; returns the process's exit status."""

    def index(words: list[str]) -> None:
        with at_end(lambda: "the same command goes on from here"):
            # The imports take their time, and Ctrl-C may come at any.
            from ldm_jax.cli import webdataset_task

            webdataset_task.main(PROGRAM, words)

    return run_command(PROGRAM, index, arguments)


if __name__ == "__main__":
    run_program(PROGRAM, main)
