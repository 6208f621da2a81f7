"""Draws pictures code by code, from a transformer over the codes of a first stage:

python -m ldm_jax.cli.sample_codes --model=runs/codes --num=16 --out=samples
python -m ldm_jax.cli.sample_codes --model=cin.ckpt --original_config=cin.yaml --classes 7 --out=out
"""

from ldm_jax.core.command import run_program, run_task

PROGRAM = "ldm_jax.cli.sample_codes"


def main(arguments: list[str]) -> int:
    """The command line; returns the process's exit status."""
    interrupted = "pictures that are finished are in the folder of --out"
    return run_task(PROGRAM, f"{PROGRAM}_task", interrupted, arguments)


if __name__ == "__main__":
    run_program(PROGRAM, main)
