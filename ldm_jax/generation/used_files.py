"""Which files of adapters, hypernetworks, embeddings and ControlNets pictures are drawn with, by
their names, and their short hashes."""

from collections.abc import Iterator, Mapping, Sequence

from ldm_jax.config.control_choice import ControlChoice
from ldm_jax.config.lora_choice import LoraChoice
from ldm_jax.convert.file_hashes import short_hash
from ldm_jax.convert.named_folder import stem_of
from ldm_jax.generation.pipeline import Pipeline, Plan

Hashes = Mapping[str, Mapping[str, str]]
"""By kind (`lora`, `hypernetwork`, `embeddings`, `control`) and name; kinds of which there is
nothing are left out."""


def used_hashes(pipeline: Pipeline, plan: Plan) -> tuple[Hashes, ...]:
    """Of each condition of a plan, the short hashes of the files that it is drawn with."""
    found: dict[int, Hashes] = {}
    controls = [ControlChoice.parse(one).file for one in pipeline.choice.control]
    for group in plan.groups:
        worn = {"lora": group.worn.lora, "hypernetwork": group.worn.hypernetwork}
        named = {
            kind: {stem_of(path): path for path in (LoraChoice.parse(one).file for one in chosen)}
            for kind, chosen in worn.items()
        } | {"control": {stem_of(path): path for path in controls}}
        for place, row in enumerate(group.rows):
            tokens = [one[place : place + 1] for n, one in group.inputs.items() if n == "caption"]
            tokens += [one for n, one in group.uncond.items() if n == "caption"]
            files = named | {"embeddings": pipeline.embeddings.used(tokens)}
            hashes = {
                kind: {n: short for n, path in own.items()
                       if path is not None and (short := short_hash(path, kind)) is not None}
                for kind, own in files.items()
            }  # fmt: skip
            found[int(row)] = {kind: own for kind, own in hashes.items() if own}
    return tuple(found[row] for row in sorted(found))


def other_files(written: Hashes, here: Sequence[Hashes]) -> Iterator[str]:
    """A line for each file of which other hashes were `written` than those of the files here."""
    found = {
        (name, written.get(kind, {}).get(name, short), short)
        for one in here for kind, own in one.items() for name, short in own.items()
    }  # fmt: skip
    for name, then, now in sorted(found):
        if then != now:
            yield f"{name!r} was another file when this was drawn: its hash is {now}, not {then}"
