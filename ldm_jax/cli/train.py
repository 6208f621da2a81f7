"""What `train.py` does."""

import argparse
import shlex
import textwrap
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldm_jax import config as cfg
from ldm_jax.config.checks import allowed
from ldm_jax.config.choices import choose, parts
from ldm_jax.config.command_line import LineParser, check_given, check_model, overridden
from ldm_jax.config.conditioning import WITH_EMPTY
from ldm_jax.config.request import FILES
from ldm_jax.core import distributed
from ldm_jax.core.cluster import check_options, find_place
from ldm_jax.core.command import say
from ldm_jax.core.files import check_apart
from ldm_jax.core.kept_memory import keep_freed_memory, prepare_to_keep
from ldm_jax.core.stores import as_path, is_stored
from ldm_jax.workdir.record import has_checkpoints

if TYPE_CHECKING:  # JAX starts later, so that --help and mistakes answer at once
    from jax.sharding import Mesh

    from ldm_jax.training.stage import Stage

PROGRAM = "train.py"
USAGE = """usage: train.py --config=CONFIG --workdir=DIR [options]

Trains what a config describes, and goes on from where it stopped.

  --config=CONFIG         a shipped config by its name (below), or a Python file
  --workdir=DIR           where checkpoints, metrics and pictures go
  --first_stage=MODEL     the trained autoencoder that a new run of stage two builds on
  --condition_stage=MODEL the trained autoencoder of the class maps, or of the depth, that a
                          transformer over codes is conditioned on
  --latents=DIR           images that were encoded before, in place of the config's images
  --init=MODEL            a trained model that a new run begins with
  --text_encoder=MODEL    a model whose text encoder and tokenizer a new run begins with
  --coordinator=HOST:PORT --num_processes=N --process_id=I
                          for a run of several processes, on each of them; where Slurm, Open MPI,
                          Kubernetes or a TPU pod starts them, they find each other
  --single                this process alone, though it stands in such a cluster
  --profile=STEP:COUNT    trace so many training steps from this one on, for xprof or TensorBoard
  --debug                 show where an error comes from

MODEL is a work directory, a model folder, or a single file. Every setting of a config can be
changed, as --loop.steps=2000 or --optim.learning_rate=1e-4:

  train.py --config=CONFIG --help
"""


def parse(arguments: list[str]) -> tuple[cfg.Run, argparse.Namespace]:
    """The config with its overrides, and the places of this run."""
    check_given(arguments, PLACES)
    parser = LineParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    parser.add_argument("--workdir")
    parser.add_argument("--first_stage")
    parser.add_argument("--condition_stage")
    parser.add_argument("--latents")
    parser.add_argument("--init")
    parser.add_argument("--text_encoder")
    parser.add_argument("--coordinator")
    parser.add_argument("--num_processes", type=_number)
    parser.add_argument("--process_id", type=_number)
    parser.add_argument("--single", action="store_true")
    parser.add_argument("--profile", type=_steps)
    places, overrides = parser.parse_known_args(arguments)
    if places.config is None:
        if not {"-h", "--help"}.isdisjoint(overrides):
            print(f"{USAGE}\n{_shipped()}")
            raise SystemExit(0)
        raise cfg.ConfigError("--config=CONFIG is missing; --help lists those there are")
    file = cfg.open_config(places.config)
    given = {"init": _beginning(places)} if "init" in file.options else {}
    config, overrides = file.take(overrides, **given)
    if places.latents is not None:
        if any(word.startswith("--data.source") for word in overrides):
            raise cfg.ConfigError(
                f"--latents={places.latents} takes the place of the images; leave out --latents to "
                "train on images, or leave out --data.source"
            )
        latents = replace(config.data, source=cfg.EncodedLatents(places.latents))
        config = replace(config, data=latents)
    others = (*PLACES, *file.options)
    config, overrides = choose(config, overrides, others)
    if not {"-h", "--help"}.isdisjoint(overrides):
        print(_description(file, config))  # as it is written, which tyro would wrap anew
    config = overridden(
        config, overrides, f"train.py --config={places.config} --workdir=DIR", others=others
    )
    if places.workdir is None:
        raise cfg.ConfigError("--workdir=DIR is missing: where checkpoints and metrics go")
    several = places.coordinator, places.num_processes, places.process_id
    check_options(*several, places.single)
    if places.profile is not None and sum(places.profile) - 1 > config.loop.steps:
        raise cfg.ConfigError(
            f"--profile={places.profile[0]}:{places.profile[1]} ends at step "
            f"{sum(places.profile) - 1}, but loop.steps is {config.loop.steps}"
        )
    return config, places


def _beginning(places: argparse.Namespace) -> cfg.Model:
    """What the model is made of that a run begins with, for configs that take it over; a run that
    goes on is its own."""
    from ldm_jax.convert.parts import model_config

    if places.workdir is not None and has_checkpoints(as_path(places.workdir)):
        return model_config(places.workdir, "--workdir")
    if places.init is None:
        raise cfg.ConfigError(
            f"--init=MODEL is missing: the model that --config={places.config} trains further"
        )
    check_model(places.init, "init")
    return model_config(places.init)


def _shipped() -> str:
    """The configs of this project, with a line each."""
    lines = ["Configs:", ""]
    for name, about in cfg.shipped().items():
        lines += [f"  {name}", *textwrap.wrap(about, 96, initial_indent=" " * 6,
                                              subsequent_indent=" " * 6)]  # fmt: skip
    return "\n".join(lines)


def _description(file: cfg.ConfigFile, config: cfg.Run) -> str:
    """What `--help` says of a config before it lists its settings."""
    options = [
        f"--{name}={'VALUE' if option.default is option.empty else option.default}: "
        f"{allowed(option.annotation)}"
        for name, option in file.options.items()
        if name not in PLACES
    ]
    chosen = [f"--{part.path}={part.now}: {part.allowed}" for part in parts(config).values()]
    blocks = [file.about]
    if options:
        blocks.append(
            "\n".join(["Options of this config, from which the others follow:", *options])
        )
    blocks.append("\n".join(["Parts that can be of another kind, or left out:", *chosen]))
    blocks.append("train.py --help lists the options for models and folders. All settings:")
    return "\n\n".join(blocks) + "\n"


PLACES = (
    "config", "workdir", "first_stage", "condition_stage", "latents", "init", "text_encoder",
)  # fmt: skip


MODELS = ("first_stage", "init", "text_encoder", "condition_stage")


def check_places(run: cfg.Run, places: argparse.Namespace) -> None:
    """Refuses, before anything heavy is loaded, models that are not there and a work directory in
    the folder of the data, which would be read as data too.

    Raises:
        cfg.ConfigError, ValueError: names the option.
    """
    workdir = as_path(places.workdir)
    if places.profile is not None and is_stored(workdir):
        raise cfg.ConfigError(
            f"--profile writes to this machine alone, and --workdir is {workdir}; leave it out, or "
            "name a local folder"
        )
    for folder in cfg.folders_of(run.data.source):
        check_apart(workdir, "--workdir", folder, "the training data")
    for option in MODELS:
        path = getattr(places, option)
        # A run that goes on has its own parts, and what it began with may be gone.
        if path is not None and not has_checkpoints(workdir):
            check_model(path, option)


def _number(word: str) -> int:
    if not word.isascii() or not word.isdecimal():
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number")
    return int(word)


def _steps(word: str) -> tuple[int, int]:
    first, _, count = word.partition(":")
    if not all(n.isascii() and n.isdecimal() and int(n) > 0 for n in (first, count)):
        raise argparse.ArgumentTypeError(
            f"{word!r} is not STEP:COUNT, the first step and how many, such as 100:5"
        )
    return int(first), int(count)


def make_stage(
    run: cfg.Run,
    workdir: Path,
    mesh: "Mesh",
    first_stage: str | None = None,
    init: str | None = None,
    text_encoder: str | None = None,
    condition_stage: str | None = None,
) -> "Stage":
    """What `run` trains, begun with the models that are named; see `fit`.

    Raises:
        cfg.ConfigError, ValueError, OSError: as the stage's own function.
    """
    from ldm_jax.training.autoencoder_stage import autoencoder_stage
    from ldm_jax.training.classifier_stage import classifier_stage
    from ldm_jax.training.code_stage import code_stage
    from ldm_jax.training.contrastive_stage import contrastive_stage
    from ldm_jax.training.diffusion_stage import diffusion_stage

    named = {
        "--first_stage": first_stage, "--init": init, "--text_encoder": text_encoder,
        "--condition_stage": condition_stage,
    }  # fmt: skip
    _check_models(run, workdir, {option: path for option, path in named.items() if path})
    match run:
        case cfg.AutoencoderRun(loss=loss):
            perceptual = None if loss.perceptual is None else partial(lpips, loss.perceptual)
            return autoencoder_stage(run, workdir, init, perceptual)
        case cfg.ClassifierRun():
            return classifier_stage(run, workdir, mesh, first_stage)
        case cfg.CodeTransformerRun():
            return code_stage(run, workdir, first_stage, condition_stage, init)
        case cfg.ContrastiveRun():
            return contrastive_stage(run, workdir, init)
        case cfg.DiffusionRun():
            return diffusion_stage(run, workdir, mesh, first_stage, init, text_encoder)


def make_judge(run: cfg.Run, workdir: Path) -> Any:
    """What scores the drawings of `run` as it is trained, or None.

    Raises:
        ValueError, OSError: as `TrainingScores`.
    """
    if getattr(run, "evaluation", None) is None:
        return None
    from ldm_jax.evaluation.training_scores import TrainingScores

    return TrainingScores(run, workdir)


_NO_USE = {
    (cfg.AutoencoderRun, "--first_stage"): "this config trains a first stage",
    (cfg.AutoencoderRun, "--text_encoder"): "this config trains a first stage",
    (cfg.ClassifierRun, "--init"): "a classifier begins with fresh weights",
    (cfg.ClassifierRun, "--text_encoder"): "a classifier reads no text",
    (cfg.CodeTransformerRun, "--text_encoder"): "a transformer over codes reads no text",
    (cfg.ContrastiveRun, "--first_stage"): "CLIP sees images themselves",
    (cfg.ContrastiveRun, "--text_encoder"): "a run begins with a whole CLIP, by --init",
} | {
    (kind, "--condition_stage"): "only a transformer over codes has a condition made of codes"
    for kind in (cfg.AutoencoderRun, cfg.ClassifierRun, cfg.ContrastiveRun, cfg.DiffusionRun)
}


def _check_models(run: cfg.Run, workdir: Path, named: dict[str, str]) -> None:
    """Refuses models that are no use to `run`, and says where they are no longer any."""
    for option, path in named.items():
        if reason := _NO_USE.get((type(run), option)):
            raise cfg.ConfigError(f"{option}={path}: {reason}")
        if has_checkpoints(workdir):
            say(f"{option} was for the beginning of this run, which goes on from its own parts")


def lpips(config: cfg.Perceptual) -> Any:
    """LPIPS' parameters from the files that the config names, or those of an installed package."""
    from ldm_jax.convert.lpips_weights import (
        HOW_TO_GET,
        installed,
        read_installed_lpips,
        read_lpips,
    )

    if config.vgg:
        return read_lpips(config.vgg, config.heads or None)
    if installed() is None:
        raise cfg.ConfigError(
            f"loss.perceptual.vgg is missing. {HOW_TO_GET}: name them with "
            "--loss.perceptual.vgg=FILE --loss.perceptual.heads=FILE, or write a config whose "
            "loss.perceptual is None"
        )
    return read_installed_lpips()


def main(arguments: list[str]) -> None:
    """Trains until the configured step.

    Raises:
        Failed, ValueError, OSError: as `fit`.
    """
    config, places = parse(arguments)
    check_places(config, places)
    several = places.coordinator, places.num_processes, places.process_id
    place = find_place(*several, places.single)
    prepare_to_keep()
    with distributed.together(PROGRAM, place):
        # JAX starts only now, so that --help and mistakes answer at once.
        from ldm_jax.training.loop import fit

        keep_freed_memory()
        workdir = as_path(places.workdir)
        _draw_classes(config, workdir, places.init)
        models = {option: getattr(places, option) for option in MODELS}
        fit(
            config, workdir, lambda mesh: make_stage(config, workdir, mesh, **models),
            judge=make_judge(config, workdir), profile=places.profile,
        )  # fmt: skip
        if place.index == 0:
            say(next_step(config, workdir))


def _draw_classes(run: cfg.Run, workdir: Path, init: str | None) -> None:
    """Draws what a new run lacks of the pictures of classes, with the model that it begins with."""
    source = run.data.source
    if not isinstance(source, cfg.DreamBooth) or has_checkpoints(workdir):
        return
    import jax

    from ldm_jax.core.distributed import wait_for_all
    from ldm_jax.core.progress import Progress
    from ldm_jax.data.concepts import check_subjects
    from ldm_jax.generation.class_images import draw_class_images, missing_class_images
    from ldm_jax.generation.pipeline import Pipeline

    check_subjects(source)  # before minutes are spent on classes
    missing = sum(count for _, count in missing_class_images(source).values())
    if missing and init is None:
        raise cfg.ConfigError(
            f"{missing} pictures of classes are missing in {source.class_path}; name the model "
            "that draws them with --init=MODEL"
        )
    if missing and jax.process_index() == 0:
        say(f"{missing} pictures of classes are drawn with {init}, loaded and compiled first …")
        with Progress("drawing pictures of classes", missing, images=1) as bar:
            draw_class_images(Pipeline(init), source, run.data.sides, run.loop.seed, bar.update)
    wait_for_all("pictures of classes")


def next_step(run: cfg.Run, workdir: Path) -> str:
    """What to do with what was trained, in a line."""
    folder = shlex.quote(str(workdir))
    match run:
        case cfg.AutoencoderRun(maps=cfg.ClassMaps()):
            return (
                "next, train a transformer over codes: python train.py --config=CONFIG "
                f"--workdir=ANOTHER --first_stage=MODEL --condition_stage={folder}"
            )
        case cfg.AutoencoderRun():
            return (
                "next, encode the images: python -m ldm_jax.cli.encode --out=latents "
                f"--first_stage={folder}; then train a diffusion model: python train.py "
                f"--config=CONFIG --workdir=ANOTHER --first_stage={folder} --latents=latents"
            )
        case cfg.ClassifierRun():
            return f"guide a model by it: python sample.py --model=MODEL --classifier={folder}"
        case cfg.ContrastiveRun():
            return (
                "draw with its text encoder: python train.py --config=CONFIG --workdir=ANOTHER "
                f"--first_stage=MODEL --text_encoder={folder}; or write it for other programs: "
                f"python -m ldm_jax.convert.clip {folder} TARGET"
            )
        case cfg.CodeTransformerRun(condition=condition):
            words = {
                cfg.ClassPrefix: " --classes 0",
                cfg.ClassMapPrefix: " --class_map=FILE",
                cfg.DepthPrefix: " --depth=FILE",
            }
            return (
                "draw with the last checkpoint: python -m ldm_jax.cli.sample_codes "
                f"--model={folder} --num=8{words.get(type(condition), '')}"
            )
    inputs = [name for conditioner in run.conditioners for name in conditioner.inputs]
    options = []
    if "caption" in inputs:
        prompt = shlex.quote(run.loop.prompts[0]) if run.loop.prompts else '"…"'
        options.append(f"--prompt={prompt}")
    if "label" in inputs:
        options.append("--classes=0")
    if "mask" in inputs:
        options.append("--init_image=FILE --mask=FILE")
    options += [f"--{name}=FILE" for name in FILES if name in inputs]
    if not WITH_EMPTY.isdisjoint(inputs):
        options.append(f"--guidance={run.loop.sample_guidance:g}")
    match run.adapter:
        case cfg.TextualInversion():
            options.append(f"--embeddings={folder}")
        case cfg.Hypernetwork():
            options.append(f"--hypernetwork={folder}")
        case cfg.ControlNet(hint=hint):
            picture = "canny:FILE" if hint == "canny" else "FILE"
            options.append(f"--control={folder} --hint={picture}")
    what = " ".join(options) or "--num=8"
    return f"draw with the last checkpoint: python sample.py --model={folder} {what}"
