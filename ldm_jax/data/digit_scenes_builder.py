"""TensorFlow Datasets builder of DigitScenes: writes array_record files without TensorFlow.
`python -m ldm_jax.data.digit_scenes_builder --data_dir=DIR --size=16` builds one size."""

if __name__ == "__main__":  # what is imported below takes seconds
    from ldm_jax.core import signals

    signals.stay("ldm_jax.data.digit_scenes_builder")

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf.json_format import ParseError
from jaxtyping import UInt8
from PIL import Image
from tqdm import tqdm

from ldm_jax.config.command_line import LineParser, check_given
from ldm_jax.core.command import run_command, run_program
from ldm_jax.core.files import writing
from ldm_jax.core.stores import as_path, local_path
from ldm_jax.data import digit_scenes
from ldm_jax.data.sources import DataError

PROGRAM = "ldm_jax.data.digit_scenes_builder"
EXAMPLES = {"train": 24_576, "validation": 1_024, "test": 1_024}


@dataclass(kw_only=True)
class DigitScenesConfig(tfds.core.BuilderConfig):
    """One picture size and the number of examples per split. The name is made of them, so that
    data of other sizes never passes for the standard one: '16px', or '16px_24_3_3'."""

    name: str = ""
    size: int = 16
    train: int = EXAMPLES["train"]
    validation: int = EXAMPLES["validation"]
    test: int = EXAMPLES["test"]

    def __post_init__(self):
        if self.size not in digit_scenes.SIZES:
            raise ValueError(f"size of DigitScenes is {self.size}; use one of {digit_scenes.SIZES}")
        for split, count in self.examples.items():
            if count < 1:
                raise ValueError(f"{split} of DigitScenes has {count} examples; give at least 1")
        counts = "".join(f"_{n}" for n in self.examples.values())
        self.name = f"{self.size}px{'' if self.examples == EXAMPLES else counts}"
        self.description = f"{self.size} x {self.size} pixels"

    @property
    def examples(self) -> dict[str, int]:
        return {"train": self.train, "validation": self.validation, "test": self.test}


def encode_png(image: UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]) -> bytes:
    """PNG bytes of a grey or RGB image; lightly compressed, for speed."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png", compress_level=1)
    return buffer.getvalue()


# Under `python -m` this file is imported twice; only the importable class may be registered.
class DigitScenes(tfds.core.GeneratorBasedBuilder, skip_registration=__name__ == "__main__"):
    """Coloured scenes of one to three handwritten digits. Features as in `digit_scenes.example`;
    the class map has a last axis of length 1."""

    VERSION = tfds.core.Version(digit_scenes.VERSION)
    RELEASE_NOTES = {digit_scenes.VERSION: "First version."}
    # Nothing is downloaded. Said here because TFDS 4.9.10's own look for a checksum file imports
    # importlib_resources, which it does not install.
    url_infos = {}
    BUILDER_CONFIGS = [DigitScenesConfig(size=size) for size in digit_scenes.SIZES]

    def _info(self) -> tfds.core.DatasetInfo:
        side = self.builder_config.size
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(side, side, 3), encoding_format="png"),
                "caption": tfds.features.Text(),
                "label": tfds.features.ClassLabel(names=digit_scenes.DIGITS),
                "boxes": tfds.features.Tensor(shape=(None, 4), dtype=np.float32),
                "classes": tfds.features.Tensor(shape=(None,), dtype=np.int64),
                "class_map": tfds.features.Image(shape=(side, side, 1), encoding_format="png"),
                "count": tfds.features.Scalar(dtype=np.int64),
                "index": tfds.features.Scalar(dtype=np.int64),
            }
        )
        return tfds.core.DatasetInfo(
            builder=self,
            description=(
                "Real handwriting (scikit-learn's scanned digits) composed into small coloured "
                "scenes with captions, boxes and class maps. Splits share no scan and no caption."
            ),
            features=features,
            supervised_keys=None,
            disable_shuffling=True,  # examples are drawn independently: their order is random
            homepage="https://archive.ics.uci.edu/dataset/80",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing is downloaded
        counts = self.builder_config.examples
        return {split: self._generate_examples(split, n) for split, n in counts.items()}

    def _generate_examples(self, split: str, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
        size = self.builder_config.size
        for index in tqdm(range(count), desc=f"DigitScenes {size} px, {split}", unit="image"):
            found = digit_scenes.example(split, index, size)
            for name in ("image", "class_map"):
                found[name] = encode_png(found[name])  # bytes need no TensorFlow to be written
            yield index, found


def builder(
    data_dir: str | os.PathLike,
    size: int = 16,
    *,
    train: int = EXAMPLES["train"],
    validation: int = EXAMPLES["validation"],
    test: int = EXAMPLES["test"],
) -> DigitScenes:
    """The builder of one size and count under `data_dir`, built or not.

    Raises:
        DataError: what is built says no longer what it is; names the folder.
    """
    folder = local_path(data_dir, "DigitScenes")
    config = DigitScenesConfig(size=size, train=train, validation=validation, test=test)
    chosen = config.name if config.name in DigitScenes.builder_configs else config
    try:
        return DigitScenes(data_dir=folder, config=chosen, file_format="array_record")
    except (ParseError, AssertionError) as error:  # as TFDS says that versions differ
        folder = folder / DigitScenes.name / config.name / digit_scenes.VERSION
        raise DataError(
            f"{folder / 'dataset_info.json'} is damaged ({str(error).strip()}); delete {folder}, "
            "which is then built anew"
        ) from error


def is_built(found: DigitScenes) -> bool:
    """Whether the files are there and complete: TFDS renames a finished folder into place."""
    return Path(found.data_path).is_dir()


def prepare(found: DigitScenes) -> DigitScenes:
    """Builds what is not yet built, without network, and returns the builder; read it with
    `.as_data_source(split)`.

    Raises:
        OSError: the files cannot be written; names the folder and the reason.
    """
    if not is_built(found):
        config = tfds.download.DownloadConfig(try_download_gcs=False)
        # TFDS speaks of downloads and nests four bars; `_generate_examples` has one of its own.
        tfds.disable_progress_bar()
        try:
            folder = Path(found.data_path)
            with contextlib.redirect_stdout(io.StringIO()), writing(folder):
                found.download_and_prepare(download_config=config)
        finally:
            tfds.enable_progress_bar()
    return found


def main(arguments: list[str]) -> int:
    """The command line; returns the process's exit status."""
    return run_command(PROGRAM, build, arguments)


def build(arguments: list[str]) -> None:
    """Builds what the arguments name, where it is not there yet."""
    parser = LineParser(
        prog=PROGRAM, description="Build the DigitScenes dataset.", allow_abbrev=False
    )
    parser.add_argument("--data_dir", type=as_path, required=True, help="folder of TFDS datasets")
    parser.add_argument("--size", type=int, default=16, choices=digit_scenes.SIZES, help="pixels")
    for split, count in EXAMPLES.items():
        parser.add_argument(f"--{split}", type=int, default=count, help=f"{split} examples")
    check_given(arguments, ("data_dir",))
    given = vars(parser.parse_args(arguments))
    found = builder(given.pop("data_dir"), given.pop("size"), **given)
    if is_built(found):
        print(f"DigitScenes is already built: {found.data_path}")
    else:
        prepare(found)
        print(f"DigitScenes is built: {found.data_path}")


if __name__ == "__main__":
    from ldm_jax.data import digit_scenes_builder

    run_program(PROGRAM, digit_scenes_builder.main)
