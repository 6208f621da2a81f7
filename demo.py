"""The whole path in one command: data, both training stages, sampling, and a score for it.

`make demo` runs this. What a former run has finished is used again.
"""

from ldm_jax.core.command import run_command, run_program
from ldm_jax.core.kept_memory import prepare_to_keep
from ldm_jax.core.signals import at_end


def main(arguments: list[str]) -> int:
    """The command line; returns the process's exit status."""

    def demo(words: list[str]) -> None:
        prepare_to_keep()
        with at_end(lambda: "the same command goes on from here"):
            # The imports take seconds, and Ctrl-C may come at any time.
            from ldm_jax.cli import demo

            demo.main(words)

    return run_command("demo.py", demo, arguments)


if __name__ == "__main__":
    run_program("demo.py", main)
