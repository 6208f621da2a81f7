"""Encodes a data set once, so that stage two trains from latents instead of images:

python -m ldm_jax.cli.encode --first_stage=runs/autoencoder --out=latents --config=CONFIG
python -m ldm_jax.cli.encode --first_stage=MODEL --out=latents --images=FOLDER
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ldm_jax import config as cfg
from ldm_jax.config.checks import require
from ldm_jax.config.command_line import parse

PROGRAM = "ldm_jax.cli.encode"
HELP = """Writes what a first stage makes of every image, with captions, labels and names.
What is there already stays: the same command goes on where it was interrupted."""


@dataclass(frozen=True)
class Arguments:
    first_stage: str = ""
    """Work directory, native or diffusers folder or single file; of a whole model its first
    stage."""
    out: Path | None = None
    """The folder of latents."""
    split: Literal["train", "validation", "test", "both"] = "both"
    """`both` is train, and validation where the data keep images for it."""
    what: Literal["latents", "codes"] = "latents"
    """Moments of the posterior (KL) or latents before quantisation, to train from; or the numbers
    of the codebook's vectors."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """What latents are stored in."""
    compute: Literal["float32", "bfloat16"] = "float32"
    """What the encoder computes in."""
    batch_size: int = 32
    """Images encoded at once."""
    shard_size: int = 4096
    """Images in one file. An interrupted file is begun again."""
    data: cfg.Data = field(default_factory=cfg.Data)
    coordinator: str | None = None
    """HOST:PORT of process 0, where the devices of several processes make one machine (TPU)."""
    num_processes: int = 1
    """Processes that share the work; each writes its own shards."""
    process_id: int = 0
    """Which of them this is."""


def run(arguments: Arguments) -> list[str]:
    """Encodes the splits and returns a line about each."""
    require(arguments.out is not None, "--out", None, "the folder of latents")
    # JAX starts only now, so that --help and mistakes answer at once.
    import jax

    from ldm_jax.generation.encoding import Storage, encode

    index, count = arguments.process_id, arguments.num_processes
    if arguments.coordinator is not None:
        jax.distributed.initialize(arguments.coordinator, count, index)
    storage = Storage(
        arguments.what, arguments.dtype, arguments.compute, arguments.shard_size,
        arguments.batch_size,
    )  # fmt: skip
    lines = []
    done = encode(
        arguments.first_stage, arguments.data, _splits(arguments), arguments.out, storage,
        process_index=index, process_count=count,
    )  # fmt: skip
    for split, written in done.items():
        line = f"{split}: {written.images} images encoded, {written.rate:.1f} images/s"
        if written.missing:
            line += f"; other processes have {written.missing} shards to write"
        lines.append(line)
    return lines


def _splits(arguments: Arguments) -> tuple[Literal["train", "validation", "test"], ...]:
    if arguments.split != "both":
        return (arguments.split,)
    source = arguments.data.source
    if isinstance(source, cfg.ImageFolder) and not source.validation_fraction:
        return ("train",)
    return ("train", "validation")


def main(arguments: list[str]) -> int:
    """The command line; returns the process's exit status."""
    try:
        parsed = parse(Arguments(), arguments, prog=PROGRAM, description=HELP, model="first_stage")
        print("\n".join(run(parsed)))
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
