"""The task `reference`: statistics of a reference set as a file, with what they were made of."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from ldm_jax import config as cfg
from ldm_jax.config.checks import ConfigError, Count, Within, settings
from ldm_jax.config.command_line import parse
from ldm_jax.core.names import EvaluatorName

ABOUT = """Writes the statistics of a data set, or of --samples, that FID (and ADM's sFID) compare
with, for `fid --reference=FILE.npz`. pytorch-fid, clean-fid and ADM's evaluator read the file too.
"""


@settings
class Arguments:
    samples: Path | None = None
    """Images instead of a data set: a folder, or an .npz file with arr_0."""
    evaluator: EvaluatorName = "torch-fidelity"
    """The program whose statistics these are to equal."""
    out: Path = Path("reference.npz")
    """The file. The features are kept in a folder beside it until it is written."""
    num: Count | None = None
    """Images; by default all."""
    inception: Path | None = None
    """pt_inception-2015-12-05-6726825d.pth; or name it in LDM_JAX_INCEPTION."""
    feature_batch: Annotated[int, Within(1, 65536)] = 50
    """Images whose features are computed at once."""
    split: Literal["train", "validation", "test"] = "train"
    """Of the data set."""
    model: str = ""
    """Work directory of a model: its data set is taken."""
    data: cfg.Data | None = None


def main(program: str, words: Sequence[str]) -> None:
    """Writes what a command line says."""
    run(
        parse(Arguments(), words, prog=program, description=ABOUT, model="model", required=False)
    )  # fmt: skip


def run(arguments: Arguments) -> None:
    """Computes the statistics and writes the file. Raises ValueError, OSError."""
    if arguments.samples is None and arguments.data is None:
        raise ConfigError(
            "no images are named: give --samples=FOLDER, --config=FILE or --images=FOLDER"
        )
    # JAX starts only now, so that --help and mistakes answer at once.
    from ldm_jax.core.files import check_writable, remove
    from ldm_jax.core.progress import Progress
    from ldm_jax.data.sources import open_source
    from ldm_jax.evaluation import scoring
    from ldm_jax.evaluation.evaluators import EVALUATORS, layer_of
    from ldm_jax.evaluation.feature_shards import FeatureSet
    from ldm_jax.evaluation.features.extractors import read_extractor
    from ldm_jax.evaluation.image_sets import DataImages, First, open_images
    from ldm_jax.evaluation.provenance import surroundings
    from ldm_jax.evaluation.reference_files import KEYS, write_reference

    out = arguments.out
    check_writable(out.parent, f"--out={out}")
    known = {score.tap for score in EVALUATORS[arguments.evaluator].values()}
    taps = tuple(tap for tap in KEYS if tap in known)
    if not taps:
        raise ConfigError(f"{arguments.evaluator} compares no statistics, only images")
    extractor = read_extractor(
        arguments.evaluator, arguments.inception, taps=taps, batch_size=arguments.feature_batch
    )
    if arguments.samples is not None:
        images = open_images(arguments.samples)
        if arguments.num is not None:
            images = First(images, arguments.num, f"--samples={arguments.samples}")
    else:
        source = open_source(arguments.data, arguments.split)
        print(f"data: {source.found}")
        images = DataImages(source, arguments.data, arguments.split, arguments.num)
    folder = out.with_name(f"{out.name}.features")
    with Progress("features", len(images), images=1) as bar:
        shards, _ = scoring.extract(
            images, [extractor], folder, scoring.Processes(), bar.update
        )  # fmt: skip
    features = FeatureSet(shards)
    moments = {tap: features.moments(layer_of(extractor.name, tap)) for tap in taps}
    provenance = {
        "evaluator": arguments.evaluator, "images": len(images), "set": images.about,
        "extractors": [extractor.describe()], "surroundings": surroundings(),
        "warnings": images.warnings,
    }  # fmt: skip
    write_reference(out, moments, provenance)
    remove(folder)
    print(f"statistics of {len(images)} images: {out}")
