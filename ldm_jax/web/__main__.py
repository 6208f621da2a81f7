"""Draws in a browser and over HTTP: `python -m ldm_jax.web --models=FOLDER --out=DIR`."""

from ldm_jax.core.command import run_command, run_program

PROGRAM = "ldm_jax.web"


def main(arguments: list[str]) -> int:
    """The command line; returns the process's exit status."""
    return run_command(PROGRAM, serve, arguments)


def serve(arguments: list[str]) -> None:
    """Answers until a signal ends it.

    Raises ValueError, OSError: arguments that cannot be used; nothing was begun.
    """
    import importlib.util

    from ldm_jax.config import ConfigError

    if missing := [n for n in ("starlette", "uvicorn") if importlib.util.find_spec(n) is None]:
        raise ConfigError(f"{' and '.join(missing)} must be installed: pip install 'ldm_jax[web]'")
    from ldm_jax.web.arguments import parse
    from ldm_jax.web.serving import run

    run(parse(arguments))


if __name__ == "__main__":
    run_program(PROGRAM, main)
