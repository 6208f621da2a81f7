"""The task `likelihood`: a table and a JSON report of a diffusion model's bits per dimension."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import field
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from ldm_jax import config as cfg
from ldm_jax.config.checks import Count, Positive, Seed, Within, require, settings
from ldm_jax.config.command_line import parse

PARTS = 8
"""Equal parts of the timesteps whose terms the table adds up."""


@settings
class Arguments:
    """Measures the bits per dimension of images, or of their latents, under a diffusion model."""

    model: str = ""
    """Work directory, native or diffusers folder or single file of a whole model."""
    out: Path = Path("evaluation/likelihood.json")
    """The report."""
    split: Literal["train", "validation", "test"] = "validation"
    num: Count = 64
    """Images; fewer where the split has fewer."""
    batch_size: Annotated[int, Within(1, 65536)] = 32
    """Images at once."""
    bound: bool = True
    """The variational bound: one evaluation of the network for each timestep. Only discrete
    processes have it."""
    exact: bool = True
    """The exact value by the probability flow, whose divergence Hutchinson's estimator gives."""
    steps: Annotated[int, Within(1, 100_000)] = 100
    """Of the flow, of fourth order."""
    tolerance: Positive | None = None
    """Let the flow choose its steps for this error instead."""
    probe: Literal["rademacher", "gaussian"] = "rademacher"
    """What the estimator draws."""
    probes: Annotated[int, Within(1, 10_000)] = 1
    """How often; with 2 or more the error that it makes is reported by itself."""
    seed: Seed = 0
    """Of all noise."""
    data: cfg.Data = field(default_factory=cfg.Data)

    def __post_init__(self) -> None:
        require(self.bound or self.exact, "--exact", self.exact, "on, or --bound")


def main(program: str, words: list[str]) -> None:
    """Runs the task that a command line describes."""
    run(parse(Arguments(), words, prog=program, description=Arguments.__doc__, model="model"))


def run(arguments: Arguments) -> None:
    """Measures, writes the report and prints the table."""
    # JAX starts only now, so that --help and mistakes answer at once.
    import jax

    from ldm_jax import convert
    from ldm_jax import latent_diffusion as ldm
    from ldm_jax.core.files import check_writable, write_atomically
    from ldm_jax.core.progress import Progress
    from ldm_jax.data.sources import open_source
    from ldm_jax.evaluation.bits_per_dim import measure
    from ldm_jax.evaluation.image_sets import number_of
    from ldm_jax.generation.conditions import open_tokenizer

    data = arguments.data
    check_writable(arguments.out.parent, f"--out={arguments.out}")
    if arguments.out.is_dir():
        raise IsADirectoryError(f"--out={arguments.out} is a folder; name the report's file")
    bundle = convert.load(arguments.model)
    if not isinstance(bundle.config, cfg.Model):
        raise cfg.ConfigError(f"{arguments.model} holds a first stage alone, which has no density")
    if bundle.config.sees_pictures:
        raise cfg.ConfigError(
            f"{arguments.model} is conditioned on {', '.join(bundle.config.inputs)}; likelihoods "
            "are measured of models of captions, of classes, or of nothing"
        )
    tokenizer = open_tokenizer(bundle.config.conditioners, bundle.tokenizer, arguments.model)
    params, frozen = jax.tree.map(
        lambda leaf: jax.device_put(convert.materialize(leaf, "float32")),
        (bundle.params, bundle.frozen),
    )
    source = open_source(data, arguments.split)
    print(f"data: {source.found}")
    count = number_of(arguments.num, arguments.split, len(source))
    with Progress("likelihood", count, images=1) as bar:
        found = measure(
            ldm.build(bundle.config), params, frozen,
            batches(
                bundle.config.conditioners, tokenizer, source, data, count, arguments.batch_size
            ),
            bound=arguments.bound, exact=arguments.exact, seed=arguments.seed,
            steps=arguments.steps, tolerance=arguments.tolerance, probe=arguments.probe,
            probes=arguments.probes, progress=bar.update,
        )  # fmt: skip
    report = {
        "model": arguments.model, "split": arguments.split, "image_size": data.image_size,
        "fingerprint": source.fingerprint, "seed": arguments.seed, "probe": arguments.probe,
        "probes": arguments.probes, "steps": None if arguments.tolerance else arguments.steps,
        "tolerance": arguments.tolerance, **found,
    }  # fmt: skip
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.out, (json.dumps(report, indent=2) + "\n").encode())
    print(table(report))
    print(f"report: {arguments.out}")


def batches(
    conditioners: Sequence[cfg.Conditioner],
    tokenizer: Any,
    source: Any,
    data: cfg.Data,
    count: int,
    size: int,
) -> Iterator[Any]:
    """The first `count` images with what a model is conditioned on.

    Raises:
        ValueError: conditions of several shapes, which CLIP makes of prompts of several lengths.
    """
    import numpy as np

    from ldm_jax.data.loader import in_order
    from ldm_jax.generation.conditions import encode_conditions

    name = next((name for c in conditioners for name in c.inputs), None)
    examples = in_order(source, data, range(count))
    for first in range(0, count, size):
        some = [*islice(examples, size)]
        conditions = [None if name is None else example[name] for example in some]
        groups = encode_conditions(conditioners, tokenizer, conditions, None, False)
        if len(groups) > 1:
            raise ValueError("captions of more than one chunk of CLIP's have no likelihood here")
        yield {
            "image": np.stack([example["image"] for example in some]),
            "inputs": groups[0].of(np.arange(len(some))),
            "index": np.arange(first, first + len(some), dtype=np.uint32),
        }


def table(report: dict[str, Any]) -> str:
    """The report in aligned lines."""
    lines = [f"{report['model']}, {report['images']} images of {report['split']}"]
    unit = "bits per dimension of 8-bit pixels"
    if report["of"] == "latents":
        unit = "bits per dimension of scaled latents; not of pixels, whose bits this does not bound"
    lines.append(f"  {unit}")

    def add(label: str, value: float, note: str = "") -> None:
        lines.append(f"  {label:34}{value:10.4f}{note}")

    if "flow_bits_per_dim" in report:
        error = f" +- {report['flow_standard_error']:.4f}"
        add("exact, by the probability flow", report["flow_bits_per_dim"], error)
        if "flow_probe_error" in report:
            add("  of the error the estimator's", report["flow_probe_error"])
    if "bound_bits_per_dim" in report:
        error = f" +- {report['bound_standard_error']:.4f}"
        terms = report["bound_terms"]
        add("variational bound", report["bound_bits_per_dim"], error)
        add("  prior, L_T", report["bound_prior"])
        for start, stop in parts(len(terms)):
            add(f"  terms of t = {start} to {stop - 1}", sum(terms[start:stop]))
        add("  decoder, L_0", terms[0])
    if "normalization_bits_per_dim" in report:
        bits = report["normalization_bits_per_dim"]
        add("scaling adds", bits, " to what it is of unscaled latents")
    return "\n".join(lines)


def parts(count: int) -> list[tuple[int, int]]:
    """Timesteps 1 to count - 1 in at most PARTS parts, noisiest first, each [start, stop)."""
    edges = [1 + (count - 1) * part // PARTS for part in range(PARTS + 1)]
    pairs = zip(edges, edges[1:], strict=False)
    return [(start, stop) for start, stop in pairs if stop > start][::-1]
