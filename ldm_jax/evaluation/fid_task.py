"""The task `fid`: scores of a model's drawings, or of images, against a reference."""

import json
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import tyro

from ldm_jax import config as cfg
from ldm_jax.config.checks import ConfigError, Count, CountOrNone, Within, require, settings
from ldm_jax.config.command_line import LineParser, parse
from ldm_jax.core import distributed
from ldm_jax.core.cluster import ALONE, Place, find_share
from ldm_jax.core.files import check_writable, write_atomically
from ldm_jax.core.names import EvaluatorName
from ldm_jax.core.reading import FileFormatError, read_json
from ldm_jax.core.stores import as_path

ABOUT = """Scores of images against a reference: FID and its kin, as a named program computes them.

The images are drawn by --model, or are those of --samples; the reference is --reference, or the
data set that the model was trained on (--split). Features are kept in OUT, so that the same command
goes on where it was interrupted. The numbers, and all that decided them, are in OUT/scores.json,
which --verify=FILE computes again."""

DRAWN = 50_000
"""Images that are drawn where nobody says how many, as in papers."""


@settings
class Arguments:
    samples: Path | None = None
    """Images instead of a model's drawings: a folder, or an .npz file with arr_0 (ADM's form)."""
    reconstructions: bool = False
    """Score what the first stage of --model gives back of the data set's images (rFID)."""
    reference: Path | None = None
    """Images to compare with: a folder, an .npz file with arr_0, or statistics (mu, sigma) of ADM,
    pytorch-fid, clean-fid, EDM, or of the task `reference`."""
    evaluator: EvaluatorName = "torch-fidelity"
    """The program whose numbers these are to equal."""
    scores: tuple[str, ...] = ()
    """Which of its scores, such as fid, kid, precision_recall, fid_infinity; by default those of
    its first network. docs/scores.md has all."""
    num: Count | None = None
    """Images in each run: drawn, by default 50000; or of --samples or --reconstructions, by default
    all."""
    runs: Annotated[int, Within(1, 1000)] = 1
    """Repeat with as many further images, and give mean, spread and minimum."""
    bootstrap: CountOrNone = 0
    """Give the spread over so many sets drawn from the images with replacement."""
    out: Path = Path("evaluation/scores")
    """Folder of scores.json and the features."""
    feature_batch: Annotated[int, Within(1, 65536)] = 50
    """Images whose features are computed at once."""
    split: Literal["train", "validation", "test"] = "train"
    """Of the data set: what captions and, without --reference, the images are of."""
    reference_num: Count | None = None
    """Images of the data set to compare with, evenly spread over it; by default all."""
    classes: tuple[int, ...] = ()
    """Classes to draw, in turn; by default those of the data set's images, else all."""
    samples_npz: Path | None = None
    """Write the images, too, as other programs read them: arr_0 in an .npz file."""
    share: Annotated[cfg.WorkShare, tyro.conf.arg(name="")] = field(default_factory=cfg.WorkShare)
    choice: Annotated[cfg.ModelChoice, tyro.conf.arg(name="")] = field(
        default_factory=cfg.ModelChoice
    )
    sampling: Annotated[cfg.Sampling, tyro.conf.arg(name="")] = field(default_factory=cfg.Sampling)
    files: Annotated[cfg.FeatureFiles, tyro.conf.arg(name="")] = field(
        default_factory=cfg.FeatureFiles
    )
    data: cfg.Data | None = None

    def __post_init__(self) -> None:
        require(self.bootstrap != 1, "--bootstrap", self.bootstrap,
                "0, or 2 or more, of which there is a spread")  # fmt: skip


def main(program: str, words: Sequence[str]) -> None:
    """Scores what a command line says, or what the report of --verify says."""
    first = LineParser(add_help=False, allow_abbrev=False)
    first.add_argument("--verify", type=as_path)
    given, rest = first.parse_known_args(words)
    if given.verify is None:
        run(_parsed(program, rest), rest)
        return
    recorded = read_json(given.verify)
    command = recorded.get("command")
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        raise FileFormatError(given.verify, "is no report of this task: it has no command")
    check_writable(given.verify.parent, f"--verify={given.verify}")
    # Nothing that is there already is believed, and nothing is written over.
    with TemporaryDirectory(dir=given.verify.parent, prefix=".verify_") as folder:
        share = ("num_processes", "process_id", "coordinator")
        alone = ["--single", *(f"--{name}=None" for name in share)]
        alone += [f"--out={folder}", "--samples_npz=None"]
        report = run(_parsed(program, [*command, *alone, *rest]), command)
    compare(recorded, report, given.verify)


def _parsed(program: str, words: Sequence[str]) -> Arguments:
    return parse(
        Arguments(), words, prog=program, description=ABOUT, model="model", required=False
    )  # fmt: skip


def run(arguments: Arguments, command: Sequence[str]) -> dict[str, Any] | None:
    """Scores and writes the report; None where other processes have features still to compute.

    Raises:
        ValueError, OSError: what cannot be, in words.
    """
    check_sets(arguments)
    out = arguments.out
    check_writable(out, f"--out={out}")
    place = find_share(**vars(arguments.share))
    with distributed.together("ldm_jax.evaluation fid", place):
        scorer, left = open_scorer(arguments, out / "features" / "reference", place)
        report = score(arguments, scorer, open_samples(arguments), out, left, place)
    if report is None:
        return None
    report["command"] = list(command)
    write_atomically(out / "scores.json", (json.dumps(report, indent=2) + "\n").encode())
    print(table(report))
    print(f"report: {out / 'scores.json'}")
    return report


def open_scorer(arguments: Arguments, folder: Path, place: Place = ALONE) -> tuple[Any, int]:
    """The evaluator with its reference, whose features are in `folder`; and how many files of them
    are left to other processes."""
    from ldm_jax.core.progress import Progress
    from ldm_jax.evaluation.evaluators import chosen
    from ldm_jax.evaluation.network_files import read_extractors
    from ldm_jax.evaluation.scoring import Processes, Scorer, extract

    file, images = open_reference(arguments)
    count = None if images is None else len(images)
    nothing = file is None and images is None
    scores, problems = chosen(
        arguments.evaluator, arguments.scores, images_in_a_run(arguments), count,
        images is not None or nothing,
    )  # fmt: skip
    for problem in problems:
        print(f"note: {problem}", flush=True)
    if file is not None and all(one.compares_with != "images" for one in scores.values()):
        images = None
    extractors = read_extractors(scores, arguments.files, arguments.feature_batch)
    scorer = Scorer(arguments.evaluator, scores, extractors, file, problems)
    if images is None:
        return scorer, 0
    with Progress("reference", len(images), images=1) as bar:
        own = Processes(place.index, place.count)
        shards, left = extract(images, scorer.extractors, folder, own, bar.update)
    scorer.compare_with(images, shards)
    return scorer, left


def score(
    arguments: Arguments,
    scorer: Any,
    samples: Any,
    out: Path,
    left: int = 0,
    place: Place = ALONE,
) -> dict[str, Any] | None:
    """The report about a set of images, whose features are kept in `out`; None where files are
    `left` to other processes."""
    from ldm_jax.core.progress import Progress
    from ldm_jax.evaluation.scoring import Processes, extract

    folder, own = out / "features" / "samples", Processes(place.index, place.count)
    with Progress("samples", len(samples), images=1) as bar:
        shards, more = extract(samples, scorer.extractors, folder, own, bar.update)
    if left + more:
        print(f"{left + more} files of features are left to other processes; once they are done, "
              "run this command again for the scores")  # fmt: skip
        return None
    if arguments.samples_npz is not None:
        samples.write_npz(arguments.samples_npz)
    return scorer.report(samples, shards, runs=arguments.runs, bootstrap=arguments.bootstrap)


def check_sets(arguments: Arguments) -> None:
    """Refuses, before anything is loaded, arguments that leave out one of the two sets."""
    from ldm_jax.evaluation.evaluators import compares

    drawn = arguments.choice.model is not None
    require(drawn != (arguments.samples is not None), "--samples", arguments.samples,
            "given, or --model, and not both")  # fmt: skip
    require(not arguments.reconstructions or (drawn and arguments.data is not None),
            "--reconstructions", True,
            "given with --model and a data set, --config=FILE or --images=FOLDER")  # fmt: skip
    usual = cfg.Sampling(batch_size=arguments.sampling.batch_size)
    draws = arguments.sampling != usual or arguments.classes
    require(not (arguments.reconstructions and draws), "--reconstructions", True,
            "given without --classes and settings of sampling, for nothing is drawn")  # fmt: skip
    if arguments.reference is None and compares(arguments.evaluator, arguments.scores):
        if arguments.data is None:
            raise ConfigError(
                "nothing to compare with: give --reference=FOLDER or FILE.npz, or a data set with "
                "--config=FILE or --images=FOLDER"
            )
        if isinstance(arguments.data.source, cfg.EncodedLatents):
            raise ConfigError(
                f"data.source.path={arguments.data.source.path} holds latents, not images; name "
                "the images with --config=FILE, --images=FOLDER or --reference=FOLDER"
            )


def open_reference(arguments: Arguments) -> tuple[Any, Any]:
    """The statistics and the images of the reference, each None where there is none."""
    from ldm_jax.data.sources import open_source
    from ldm_jax.evaluation.evaluators import compares
    from ldm_jax.evaluation.image_sets import DataImages, has_images, open_images
    from ldm_jax.evaluation.reference_files import is_reference, read_reference

    path = arguments.reference
    if not compares(arguments.evaluator, arguments.scores):
        return None, None
    if path is None:
        source = open_source(arguments.data, arguments.split)
        print(f"reference: {source.found}")
        return None, DataImages(source, arguments.data, arguments.split, arguments.reference_num)
    if not is_reference(path):
        return None, open_images(path)
    return read_reference(path), open_images(path) if has_images(path) else None


def open_samples(arguments: Arguments, pipeline: Any = None) -> Any:
    """The images that are scored; drawn by `pipeline`, or else by the model that is named."""
    from ldm_jax.evaluation.drawn_images import DrawnImages
    from ldm_jax.evaluation.image_sets import First, Kept, open_images

    count = images_in_a_run(arguments) * arguments.runs
    if arguments.reconstructions:
        images = _reconstructions(arguments, count)
    elif arguments.samples is not None:
        images = First(open_images(arguments.samples), count, f"--samples={arguments.samples}")
    else:
        pipeline = pipeline or open_pipeline(arguments)
        captions, labels = conditions_of(arguments, pipeline.config)
        classes = arguments.classes or labels
        images = DrawnImages(pipeline, arguments.sampling, count, captions, classes)
    if arguments.samples_npz is not None:
        images = Kept(images, arguments.out / "images")
    return images


def _reconstructions(arguments: Arguments, count: int) -> Any:
    from ldm_jax.convert.parts import read_first_stage
    from ldm_jax.data.sources import open_source
    from ldm_jax.evaluation.image_sets import DataImages, number_of
    from ldm_jax.evaluation.reconstructed_images import ReconstructedImages

    stage = read_first_stage(arguments.choice.model, **arguments.choice.loading())
    source = open_source(arguments.data, arguments.split)
    count = number_of(count, arguments.split, len(source))
    images = DataImages(source, arguments.data, arguments.split, count)
    return ReconstructedImages(stage, images, arguments.sampling.batch_size or 16)


def images_in_a_run(arguments: Arguments) -> int:
    """How many samples each run has."""
    from ldm_jax.data.sources import open_source
    from ldm_jax.evaluation.image_sets import open_images

    if arguments.num is not None:
        return arguments.num
    if arguments.reconstructions:
        return len(open_source(arguments.data, arguments.split)) // arguments.runs
    if arguments.samples is None:
        return DRAWN
    return len(open_images(arguments.samples)) // arguments.runs


def open_pipeline(arguments: Arguments) -> Any:
    """The model that is named."""
    from ldm_jax.generation.pipeline import Pipeline

    return Pipeline.open(arguments.choice)


def conditions_of(arguments: Arguments, model: cfg.Model) -> tuple[Sequence[str], Sequence[int]]:
    """Captions and classes of the data set's split that the model is drawn with, in one order that
    mixes a sorted set."""
    from ldm_jax.data.example_order import mixed_rows
    from ldm_jax.data.sources import open_source

    if arguments.data is None or not {"caption", "label"}.intersection(model.inputs):
        return (), ()
    source = open_source(arguments.data, arguments.split)
    captions = list(source.captions()) if "caption" in model.inputs else []
    labels = list(source.labels()) if "label" in model.inputs else []
    order = mixed_rows(len(captions or labels))
    return [captions[i] for i in order if captions], [labels[i] for i in order if labels]


def table(report: dict[str, Any]) -> str:
    """The report in aligned lines."""
    samples = report["samples"]
    what = samples.get("path") or samples.get("model") or samples["request"]["model"]
    lines = [f"{report['evaluator']}: {samples['images']} images of {what}"]
    for name, entry in report["scores"].items():
        spread = next(((entry[key], said) for key, said in SPREADS.items() if key in entry), None)
        text = f"  {name:18}{entry['value']:12.5g}"
        if spread is not None:
            text += f" +- {spread[0]:.3g} ({spread[1]})"
        if "minimum" in entry:
            text += f", minimum {entry['minimum']:.5g}"
        lines.append(text)
    return "\n".join(lines + [f"note: {warning}" for warning in report["warnings"]])


SPREADS = {
    "std": "over runs", "bootstrap_std": "bootstrap", "spread": "over parts of the images",
    "standard_error": "standard error",
}  # fmt: skip
"""Kind of spread in a report → in words; the first that is there is shown."""


def compare(recorded: dict[str, Any], report: dict[str, Any], path: Path) -> None:
    """Says what differs between a report and a new one.

    Raises:
        Failed: something does.
    """
    from ldm_jax.core.command import Failed
    from ldm_jax.evaluation.provenance import differences

    found = list(differences(
        {k: v for k, v in recorded.items() if k != "command"},
        {k: v for k, v in json.loads(json.dumps(report)).items() if k != "command"},
    ))  # fmt: skip
    for line in found:
        print(line)
    if found:
        raise Failed(f"{path} was not measured again: {len(found)} things differ")
    print(f"{path}: measured again, all the same")
