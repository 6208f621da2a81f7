"""The whole path in one command: data, both training stages, sampling, and a score for it.

`make demo` runs this. What a former run has finished is used again.
"""

import sys

from ldm_jax.core.command import run_command


def main(arguments: list[str]) -> int:
    """The command line; returns the process's exit status."""

    def demo(words: list[str]) -> None:
        # The imports take seconds, and Ctrl-C may come at any time.
        from ldm_jax.cli import demo

        demo.main(words)

    return run_command(
        "demo.py", demo, arguments, "interrupted; the same command goes on from here"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
