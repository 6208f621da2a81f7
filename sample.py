"""Draws pictures: `python sample.py --model=MODEL --prompt=CAPTION`."""

import sys

from ldm_jax.core.command import run_command


def main(arguments: list[str]) -> int:
    """The command line; returns the process's exit status."""
    # Imported only now, so that an interruption is one line from the beginning.
    from ldm_jax.cli import sample

    return sample.main(arguments)


if __name__ == "__main__":
    interrupted = "interrupted; what was drawn before is in --out, listed in its manifest.json"
    sys.exit(run_command("sample.py", main, sys.argv[1:], interrupted))
