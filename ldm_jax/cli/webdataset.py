"""Makes the index with which tar files in WebDataset's layout are read in any order:

python -m ldm_jax.cli.webdataset --path=shards/train-{000000..000099}.tar
"""

from ldm_jax.core.command import run_program, run_task

PROGRAM = "ldm_jax.cli.webdataset"


def main(arguments: list[str]) -> int:
    """The command line; returns the process's exit status."""
    interrupted = "the same command goes on from here"
    return run_task(PROGRAM, f"{PROGRAM}_task", interrupted, arguments)


if __name__ == "__main__":
    run_program(PROGRAM, main)
