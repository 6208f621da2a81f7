"""Encodes a data set once, so that stage two trains from latents instead of images:

python -m ldm_jax.cli.encode --first_stage=runs/autoencoder --out=latents --config=CONFIG
python -m ldm_jax.cli.encode --first_stage=MODEL --out=latents --images=FOLDER
"""

from ldm_jax.core.command import run_command, run_program
from ldm_jax.core.signals import at_end

PROGRAM = "ldm_jax.cli.encode"


def main(arguments: list[str]) -> int:
    """The command line; returns the process's exit status."""

    def encode(words: list[str]) -> None:
        with at_end(lambda: "the same command goes on from here"):
            # The imports take their time, and Ctrl-C may come at any.
            from ldm_jax.cli import encode_task

            encode_task.main(PROGRAM, words)

    return run_command(PROGRAM, encode, arguments)


if __name__ == "__main__":
    run_program(PROGRAM, main)
