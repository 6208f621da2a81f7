"""The names in a work directory.

WORKDIR/config.json                     the run's config
WORKDIR/checkpoints/STEP/state          training state (orbax, OCDBT)
WORKDIR/checkpoints/STEP/run            JSON: position of the data, config, validation metrics,
                                        and size and SHA-256 of every frozen file
WORKDIR/checkpoints/STEP/digests.json   size and SHA-256 of every file of the checkpoint
WORKDIR/first_stage/                    config and weights of the frozen autoencoder
WORKDIR/condition_stage/                config and weights of the frozen autoencoder of conditions
WORKDIR/untrained/                      weights that the run began with and leaves as they are
WORKDIR/perceptual/                     LPIPS' weights
WORKDIR/tokenizer.json, tokenizer/      made from the training captions, or a trained model's
WORKDIR/held_out.txt                    names of the examples kept for validation, one a line
WORKDIR/metrics.jsonl, tensorboard/     what the run told
WORKDIR/curves.png                      loss, learning rate and speed, drawn from metrics.jsonl
WORKDIR/samples/step_STEP_NAME.png      what it drew, or reconstructed, as training went on
WORKDIR/profile/                        traces of steps that were asked for
WORKDIR/lock                            who trains here, while someone does
"""

from pathlib import Path

from ldm_jax import config as cfg

CONFIG = "config.json"
CHECKPOINTS = "checkpoints"
FIRST_STAGE = "first_stage"
CONDITION_STAGE = "condition_stage"
UNTRAINED = "untrained"
PERCEPTUAL = "perceptual"
WEIGHTS = "weights"
"""Name of a frozen part's safetensors file, without its suffix."""
TOKENIZER = "tokenizer.json"
TOKENIZER_FILES = "tokenizer"
"""Folder of a tokenizer that has several files."""
HELD_OUT = "held_out.txt"
METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"
CURVES = "curves.png"
SAMPLES = "samples"
PROFILE = "profile"
LOCK = "lock"


def frozen_files(run: cfg.Run, workdir: Path) -> list[str]:
    """The files of `workdir` that belong to every checkpoint of `run` and never change."""
    weights = f"{WEIGHTS}.safetensors"
    files = []
    if keeps_first_stage(run):
        files += [f"{FIRST_STAGE}/{CONFIG}", f"{FIRST_STAGE}/{weights}"]
    if keeps_condition_stage(run):
        files += [f"{CONDITION_STAGE}/{CONFIG}", f"{CONDITION_STAGE}/{weights}"]
    if isinstance(run, cfg.AutoencoderRun) and run.loss.perceptual is not None:
        files.append(f"{PERCEPTUAL}/{weights}")
    if keeps_untrained(run):
        files.append(f"{UNTRAINED}/{weights}")
    if cfg.find(getattr(run, "conditioners", ()), cfg.TextConditioner) is not None:
        folder = workdir / TOKENIZER_FILES
        several = sorted(folder.iterdir()) if folder.is_dir() else []
        files += [f"{TOKENIZER_FILES}/{file.name}" for file in several] or [TOKENIZER]
    return files


def sample_file(workdir: Path, step: int, name: str) -> Path:
    """Where the pictures `name` that were drawn after `step` are."""
    return workdir / SAMPLES / f"step_{step:07d}_{name}.png"


def samples_after(workdir: Path, step: int) -> list[Path]:
    """The pictures in `workdir` that were drawn after a later step than `step`."""
    found = []
    for path in sorted((workdir / SAMPLES).glob("step_*_*.png")):
        number = path.name.split("_")[1]
        if number.isdecimal() and int(number) > step:
            found.append(path)
    return found


def tokenizer_of(workdir: Path) -> Path:
    """Where the run in `workdir` keeps its tokenizer: a folder, or one file."""
    folder = workdir / TOKENIZER_FILES
    return folder if folder.is_dir() else workdir / TOKENIZER


def keeps_untrained(run: cfg.Run) -> bool:
    """Whether `run` leaves parts of its own networks as they are."""
    if isinstance(run, cfg.AutoencoderRun | cfg.DiffusionRun):
        return run.train not in ("all", ("all",))
    return False


def keeps_first_stage(run: cfg.Run) -> bool:
    """Whether `run` is of a stage that keeps an autoencoder beside it."""
    return isinstance(run, cfg.ClassifierRun | cfg.CodeTransformerRun) or (
        isinstance(run, cfg.DiffusionRun) and run.space == "latents"
    )


def keeps_condition_stage(run: cfg.Run) -> bool:
    """Whether `run` keeps an autoencoder of what it is conditioned on."""
    return isinstance(run, cfg.CodeTransformerRun) and cfg.stage_channels(run.condition) is not None
