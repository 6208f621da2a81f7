"""Says what a hypernetwork is, or writes one in the web UI's form:

python -m ldm_jax.convert.hypernetworks WORKDIR_OR_FILE TARGET.pt
python -m ldm_jax.convert.hypernetworks WORKDIR_OR_FILE --inspect
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ldm_jax.core.command import run_command, run_program
from ldm_jax.core.files import check_writable


@dataclass(frozen=True)
class HypernetworkArguments:
    """Says what a hypernetwork is, or writes one in the web UI's form."""

    hypernetwork: Annotated[Path, tyro.conf.Positional]
    """Its file, or the work directory that it was trained in."""
    target: Annotated[Path | None, tyro.conf.Positional] = None
    """What to write: a file called *.pt."""
    inspect: bool = False
    """Only say what it is."""
    overwrite: bool = False
    """Replace the target if it is there."""


def run(arguments: HypernetworkArguments) -> str:
    """Writes or inspects; returns what to print."""
    if (arguments.target is None) != arguments.inspect:
        raise ValueError("name a TARGET to write, or give --inspect alone")
    if arguments.target is not None:
        check_writable(arguments.target.parent, f"the target {arguments.target}")
    # JAX starts only now, so that --help and mistakes answer at once.
    from ldm_jax.convert.hypernetworks.hypernetwork_files import (
        read_hypernetwork,
        write_hypernetwork,
    )

    one = read_hypernetwork(arguments.hypernetwork)
    form = one.form
    layers = ", ".join(f"{size:g}" for size in form.layer_structure)
    told = (
        f"name: {one.name}\nsteps: {one.step}\nwidths: {', '.join(map(str, form.widths))}\n"
        f"layers: {layers} times the width; activation {form.activation}"
        f"{', normalised' if form.layer_norm else ''}"
    )
    if arguments.target is None:
        return told
    write_hypernetwork(one, arguments.target, overwrite=arguments.overwrite)
    return f"{told}\nwrote {arguments.target}"


def main(words: list[str]) -> int:
    """The command line; returns the process's exit status, as docs/import.md lists them."""

    def convert(words: list[str]) -> None:
        from ldm_jax.config.command_line import parse_positional

        print(run(parse_positional(HypernetworkArguments, words, "hypernetworks", __doc__, ())))

    return run_command("hypernetworks", convert, words)


if __name__ == "__main__":
    run_program("hypernetworks", main)
