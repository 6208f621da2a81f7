"""Which files of adapters, hypernetworks and embeddings pictures are drawn with, by the names that
prompts have for them, and their short hashes."""

from collections.abc import Mapping

from ldm_jax.config.lora_choice import LoraChoice
from ldm_jax.convert.file_hashes import short_hash
from ldm_jax.convert.named_folder import stem_of
from ldm_jax.generation.pipeline import Pipeline, Plan

Hashes = Mapping[str, Mapping[str, str]]
"""By kind (`lora`, `hypernetwork`, `embeddings`) and name; kinds of which there is nothing are left
out."""


def used_hashes(pipeline: Pipeline, plan: Plan) -> tuple[Hashes, ...]:
    """Of each condition of a plan, the short hashes of the files that it is drawn with."""
    found: dict[int, Hashes] = {}
    for group in plan.groups:
        worn = {"lora": group.worn.lora, "hypernetwork": group.worn.hypernetwork}
        named = {
            kind: {stem_of(path): path for path in (LoraChoice.parse(one).file for one in chosen)}
            for kind, chosen in worn.items()
        }
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
