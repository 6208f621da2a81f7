"""Draws pictures: `python sample.py --model=MODEL --prompt=CAPTION`."""

from ldm_jax.core.command import run_command, run_program


def main(arguments: list[str]) -> int:
    """The command line; returns the process's exit status."""

    def sample(words: list[str]) -> int:
        # Imported only now, so that an interruption is one line from the beginning.
        from ldm_jax.cli import sample

        return sample.main(words)

    return run_command("sample.py", sample, arguments)


if __name__ == "__main__":
    run_program("sample.py", main)
