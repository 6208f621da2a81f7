"""Scores of drawings: the files of their networks, and what is measured as training goes on."""

from dataclasses import field

from ldm_jax.config.checks import Count, CountOrNone, settings
from ldm_jax.core.names import EvaluatorName


@settings
class FeatureFiles:
    """Weights of the networks in whose features images are compared; none are downloaded."""

    inception: str = ""
    """pt_inception-2015-12-05-6726825d.pth; or name it in LDM_JAX_INCEPTION."""
    vgg: str = ""
    """vgg16-397923af.pth of torchvision, for precision_recall of torch-fidelity and for prdc."""
    clip: str = ""
    """Folder of a CLIP as transformers saves it, or work directory of one that was trained here:
    for cmmd, clipscore, torchmetrics."""
    dinov2: str = ""
    """Folder of a DINOv2 as transformers saves it, for dgm-eval."""
    rater: str = ""
    """rater.npz of DigitScenes, for digit-scenes; without, one is trained in a minute."""


@settings
class DrawnScores:
    """Scores of what the model draws, measured as training goes on, with the averaged weights and
    the same noise each time."""

    every: Count = 5000
    """Steps between two measurements."""
    evaluator: EvaluatorName = "torch-fidelity"
    """The program whose numbers these are to equal; see docs/scores.md."""
    scores: tuple[str, ...] = ()
    """Which of its scores; by default those of its first network."""
    num: Count = 2000
    """Drawings, with the conditions of as many images of the data."""
    reference: str = ""
    """Images or statistics to compare with, as --reference of the task fid has them, but that those
    of a folder are fitted to the size of training; by default the images that are trained on."""
    reference_num: CountOrNone = 10_000
    """Of these at most so many, evenly spread; 0: all."""
    best_by: str = ""
    """Keep the best checkpoint by this score, such as fid, instead of by the validation loss."""
    files: FeatureFiles = field(default_factory=FeatureFiles)
