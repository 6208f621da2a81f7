"""The names in a work directory.

WORKDIR/config.json                     the run's config
WORKDIR/checkpoints/STEP/state          training state (orbax, OCDBT)
WORKDIR/checkpoints/STEP/run            JSON: position of the data, config, validation metrics,
                                        and size and SHA-256 of every frozen file
WORKDIR/checkpoints/STEP/digests.json   size and SHA-256 of every file of the checkpoint
WORKDIR/first_stage/                    config and weights of the frozen autoencoder
WORKDIR/perceptual/                     LPIPS' weights
WORKDIR/tokenizer.json                  made from the training captions
WORKDIR/metrics.jsonl, tensorboard/     what the run told
WORKDIR/lock                            who trains here, while someone does
"""

from ldm_jax import config as cfg

CONFIG = "config.json"
CHECKPOINTS = "checkpoints"
FIRST_STAGE = "first_stage"
PERCEPTUAL = "perceptual"
WEIGHTS = "weights"
"""Name of a frozen part's safetensors file, without its suffix."""
TOKENIZER = "tokenizer.json"
METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"
LOCK = "lock"


def frozen_files(run: cfg.Run) -> list[str]:
    """The files of a work directory that belong to every checkpoint of `run` and never change."""
    weights = f"{WEIGHTS}.safetensors"
    files = []
    if keeps_first_stage(run):
        files += [f"{FIRST_STAGE}/{CONFIG}", f"{FIRST_STAGE}/{weights}"]
    if isinstance(run, cfg.AutoencoderRun) and run.loss.perceptual is not None:
        files.append(f"{PERCEPTUAL}/{weights}")
    if cfg.find(getattr(run, "conditioners", ()), cfg.TextConditioner) is not None:
        files.append(TOKENIZER)
    return files


def keeps_first_stage(run: cfg.Run) -> bool:
    """Whether `run` is of a stage that keeps an autoencoder beside it."""
    return isinstance(run, cfg.ClassifierRun) or (
        isinstance(run, cfg.DiffusionRun) and run.space == "latents"
    )
