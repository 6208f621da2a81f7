"""Encodes a data set once, so that stage two trains from latents instead of images:

python -m ldm_jax.cli.encode --first_stage=runs/autoencoder --out=latents --config=CONFIG
python -m ldm_jax.cli.encode --first_stage=MODEL --out=latents --images=FOLDER
"""

from ldm_jax.core.command import run_program, run_task

PROGRAM = "ldm_jax.cli.encode"


def main(arguments: list[str]) -> int:
    """The command line; returns the process's exit status."""
    interrupted = "the same command goes on from here"
    return run_task(PROGRAM, f"{PROGRAM}_task", interrupted, arguments)


if __name__ == "__main__":
    run_program(PROGRAM, main)
