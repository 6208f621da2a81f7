"""Converts adapters (LoRA and its relatives) between the forms of other programs:

python -m ldm_jax.convert.adapters ADAPTER TARGET --model=MODEL --to=diffusers
python -m ldm_jax.convert.adapters ADAPTER --model=MODEL --inspect
python -m ldm_jax.convert.adapters WORKDIR TARGET           of a run that trains an adapter
"""

from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ldm_jax.core.command import run_command, run_program
from ldm_jax.core.files import check_writable
from ldm_jax.core.reading import shown

if TYPE_CHECKING:
    from ldm_jax.adapters.adapter import Adapter

TAGS = 20
"""Of the captions that an adapter was trained on, so many of the most frequent tags are shown."""


@dataclass(frozen=True)
class AdapterArguments:
    """Converts an adapter from one form to another, or says what it is."""

    adapter: Annotated[Path, tyro.conf.Positional]
    """Its file, its folder, or the work directory that it was trained in."""
    target: Annotated[Path | None, tyro.conf.Positional] = None
    """What to write: a file called *.safetensors, or for peft a folder."""
    model: Path | None = None
    """A model that it is made for, which tells what its modules are called; a work directory has
    its own."""
    to: Literal["kohya", "diffusers", "peft"] = "kohya"
    """The form of the target; kohya's, which the web UI and LyCORIS read, holds all kinds."""
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    """What the target's numbers are stored in; left out, each stays as it is."""
    inspect: bool = False
    """Only say what it is."""
    overwrite: bool = False
    """Replace the target if it is there."""


def run(arguments: AdapterArguments) -> str:
    """Converts or inspects; returns what to print."""
    from ldm_jax.config.command_line import check_model

    if (arguments.target is None) != arguments.inspect:
        raise ValueError("name a TARGET to convert to, or give --inspect alone")
    if not arguments.adapter.exists():
        raise ValueError(f"{arguments.adapter}: there is no such file or folder")
    if arguments.model is not None:
        check_model(str(arguments.model), "model")
    if arguments.target is not None:
        check_writable(arguments.target.parent, f"the target {arguments.target}")
    # JAX starts only now, so that --help and mistakes answer at once.
    from ldm_jax import config as cfg
    from ldm_jax.convert.adapters.adapter_files import read_adapter
    from ldm_jax.convert.adapters.adapter_writer import write_adapter
    from ldm_jax.convert.adapters.module_names import ModuleNames
    from ldm_jax.convert.adapters.trained_adapter import is_run
    from ldm_jax.convert.loading import load

    if arguments.model is None and not is_run(arguments.adapter):
        raise ValueError("--model=MODEL is missing: a model that the adapter is made for")
    model = load(arguments.model or arguments.adapter)
    if not isinstance(model.config, cfg.Model):
        raise ValueError(f"--model={arguments.model} is a first stage alone, which has no adapters")
    adapter = read_adapter(arguments.adapter, ModuleNames.of(model.config, model.params))
    told = describe(adapter)
    if arguments.target is None:
        return told
    write_adapter(
        adapter, arguments.target, arguments.to, dtype=arguments.dtype,
        overwrite=arguments.overwrite,
    )  # fmt: skip
    return f"{told}\nwrote {arguments.target}"


def describe(adapter: "Adapter") -> str:
    """What an adapter is, in a few lines."""
    from ldm_jax.adapters.dora import DoRA
    from ldm_jax.convert.adapters.adapter_files import tag_counts

    lines = [f"name: {adapter.name}"]
    if adapter.family:
        lines.append(f"made for: {adapter.family}")
    if adapter.words:
        lines.append(f"words: {', '.join(adapter.words)}")
    if tags := tag_counts(adapter.metadata):
        most = [f"{shown(tag)} {count}" for tag, count in islice(tags.items(), TAGS)]
        more = ", ..." if len(tags) > TAGS else ""
        lines.append(f"captions it was trained on: {', '.join(most)}{more}")
    for component, modules in adapter.components.items():
        kinds: Counter[str] = Counter()
        ranks = set()
        for one in (one for all_ in modules.values() for one in all_):
            inner = one.change if isinstance(one, DoRA) else one
            kinds[f"dora of {inner.name}" if inner is not one else one.name] += 1
            ranks |= {inner.rank} if getattr(inner, "rank", None) else set()
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        rank = f"; ranks {', '.join(map(str, sorted(ranks)))}" if ranks else ""
        lines.append(f"{component}: {len(modules)} modules ({told}){rank}")
    return "\n".join([*lines, *(f"note: {note}" for note in adapter.notes)])


def main(words: list[str]) -> int:
    """The command line; returns the process's exit status, as docs/import.md lists them."""

    def convert(words: list[str]) -> None:
        from ldm_jax.config.command_line import parse_positional

        print(run(parse_positional(AdapterArguments, words, "adapters", __doc__, paths=("model",))))

    return run_command("adapters", convert, words)


if __name__ == "__main__":
    run_program("adapters", main)
