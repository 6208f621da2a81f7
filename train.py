"""Trains the model that a config describes: `python train.py --config=FILE --workdir=DIR`."""

from ldm_jax.core.command import run_command, run_program


def main(arguments: list[str]) -> int:
    """Runs until the configured step; returns the process's exit status."""

    def train(words: list[str]) -> None:
        # The imports take seconds, and Ctrl-C may come at any time.
        from ldm_jax.cli import train

        train.main(words)

    return run_command("train.py", train, arguments)


if __name__ == "__main__":
    run_program("train.py", main)
