"""Draws pictures code by code, from a transformer over the codes of a first stage:

python -m ldm_jax.cli.sample_codes --model=runs/codes --num=16 --out=samples
python -m ldm_jax.cli.sample_codes --model=cin.ckpt --original_config=cin.yaml --classes 7 --out=out
"""

from ldm_jax.core.command import run_command, run_program
from ldm_jax.core.signals import at_end

PROGRAM = "ldm_jax.cli.sample_codes"


def main(arguments: list[str]) -> int:
    """The command line; returns the process's exit status."""

    def draw(words: list[str]) -> None:
        with at_end(lambda: "pictures that are finished are in the folder of --out"):
            # The imports take their time, and Ctrl-C may come at any.
            from ldm_jax.cli import sample_codes_task

            sample_codes_task.main(PROGRAM, words)

    return run_command(PROGRAM, draw, arguments)


if __name__ == "__main__":
    run_program(PROGRAM, main)
