"""What a first stage gives back of images, as a set of images that is scored (rFID)."""

from collections.abc import Iterator, Sequence

import jax

from ldm_jax import config as cfg
from ldm_jax.convert.parts import FirstStage
from ldm_jax.evaluation.first_stage_quality import FirstStageProgram
from ldm_jax.evaluation.image_sets import Batch, ImageSet
from ldm_jax.evaluation.provenance import sha256_of


class ReconstructedImages:
    """The reconstructions of `images`, from the posteriors' modes and rounded to 8 bits, computed
    `batch_size` at once over all devices."""

    def __init__(self, stage: FirstStage, images: ImageSet, batch_size: int) -> None:
        self._images, self._factor = images, stage.config.factor
        self._program = FirstStageProgram(stage, batch_size)
        self.about = {
            "kind": "reconstructed", "images": len(images), "of": images.about,
            "model": stage.name, "uint8": "round((x + 1) * 127.5)",
            "parameters_sha256": sha256_of(*jax.tree.leaves(stage.params)),
        }  # fmt: skip
        self.warnings = images.warnings
        self.sorted_by_class = images.sorted_by_class

    def __len__(self) -> int:
        return len(self._images)

    def batches(self, rows: Sequence[int]) -> Iterator[Batch]:
        """As `ImageSet.batches`; raises ConfigError for images that the stage cannot halve so
        often."""
        for batch in self._images.batches(rows):
            height, width = batch.images.shape[1:3]
            if height % self._factor or width % self._factor:
                raise cfg.ConfigError(
                    f"images of {height} x {width} pixels have no reconstruction: the first stage "
                    f"needs multiples of {self._factor} (--data.image_size)"
                )
            for start in range(0, len(batch.images), self._program.rows):
                some = slice(start, start + self._program.rows)
                found = self._program(batch.images[some])
                yield Batch(batch.rows[some], found.reconstruction)

    def captions(self, rows: range) -> Sequence[str] | None:
        """As `ImageSet.captions`."""
        return self._images.captions(rows)
