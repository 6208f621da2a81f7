"""The options of `sample.py`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ldm_jax import config as cfg


@dataclass(frozen=True)
class Arguments:
    """Draws pictures with a trained model and says in each file how it was made."""

    model: Path | None = None
    """Work directory of a trained diffusion model, model folder, diffusers folder, or single
    checkpoint file (.safetensors, .ckpt)."""
    out: Path = Path("samples")
    """Folder for the PNG files, grid.png and manifest.json; it must be new or empty."""

    prompt: tuple[str, ...] = ()
    """One or more captions."""
    prompts: Path | None = None
    """Text file with one caption a line."""
    classes: tuple[int, ...] = ()
    """One or more class numbers, for class-conditional models."""
    negative_prompt: str | None = None
    """Caption to be guided away from; the empty one by default."""
    literal_prompts: bool = False
    """Brackets in prompts are letters like others, not emphasis."""
    num: int = 1
    """Pictures for each prompt or class."""
    from_png: Path | None = None
    """A picture whose settings are the defaults of all others but --out."""
    first_prompt: int = 0
    """Number of the first prompt, on which noise depends."""
    first_image: int = 0
    """Number of each prompt's first picture, on which noise depends."""

    sampler: cfg.sampling.SamplerName | None = None
    """ddim unless another is asked for."""
    steps: int | None = None
    """Solver steps; 50 by default."""
    guidance: float | None = None
    """Scale of classifier-free guidance; 1 is none. By default 7.5 for CLIP, 5 for BERT, else 3."""
    guidance_schedule: cfg.sampling.GuidanceSchedule = "constant"
    """How guidance grows while noise falls; the mean stays the scale asked for."""
    guidance_interval: tuple[float, float] | None = None
    """Two noise levels, as sigma / alpha, between which alone guidance acts."""
    guidance_rescale: float | None = None
    """0 to 1: the share of the contrast added by guidance that is taken away; 0.7 is usual."""
    weak_model: Path | None = None
    """A weaker model of the same task, or an earlier checkpoint (WORKDIR/checkpoints/STEP), for
    autoguidance; --guidance is then 1 unless it is given."""
    autoguidance_scale: float | None = None
    """Scale of guidance away from --weak_model; 2 by default, 1 is none."""
    classifier: Path | None = None
    """Work directory of a classifier that guides towards --classes."""
    classifier_scale: float | None = None
    """Scale of the classifier's gradient; 1 by default, 0 is none."""
    classifier_form: cfg.sampling.ClassifierForm | None = None
    """eps, for every sampler, by default; or mean, for those that add noise."""
    threshold: float | None = None
    """0 to 1: quantile of dynamic thresholding, against strong guidance; 0.995 is usual."""
    eta: float | None = None
    """Share of fresh noise of ddim (0, deterministic, by default), and of the ancestral and SDE
    samplers (1): euler_a, dpm2_a, dpmpp_2s_a, dpmpp_sde, dpmpp_2m_sde, dpmpp_3m_sde."""
    corrector: cfg.sampling.CorrectorName | None = None
    """Langevin steps at each level, before the step of a sampler without memory."""
    corrector_steps: int | None = None
    """How many of them; 1 by default."""
    snr: float | None = None
    """Their signal-to-noise ratio; 0.16 by default."""
    spacing: cfg.sampling.Spacing | None = None
    """Which noise levels the solver visits; models and samplers have defaults of their own."""
    sections: tuple[int, ...] = ()
    """Instead of a spacing, so many timesteps in each of equal parts, the least noisy first."""
    timesteps: tuple[float, ...] = ()
    """Instead of a spacing, the timesteps themselves, falling."""
    sigmas: tuple[float, ...] = ()
    """Instead of a spacing, the ratios of noise to signal, falling."""
    seed: int | None = None
    """0 to 4294967295; 0 by default."""
    height: int | None = None
    """Pixels; by default the size of training, or that of the initial picture."""
    width: int | None = None
    """Pixels, as height."""

    init_image: Path | None = None
    """A picture to draw on, resized to height and width."""
    strength: float | None = None
    """How much of the initial picture is given up, 0 to 1; 0.75 by default, 1 with a mask."""
    mask: Path | None = None
    """White where the initial picture is painted anew, of its size."""
    mask_blur: float | None = None
    """Radius in pixels by which the mask's edge is softened; 4 by default."""
    invert_mask: bool = False
    """Paint where the mask is black."""
    only_masked: int | None = None
    """Crop to the mask and so many pixels around it, and paint these at full size."""
    resample: int = 1
    """Draw each stretch of the way so often, for new parts that agree with what is kept."""
    resample_jump: int = 1
    """Length of these stretches in steps."""
    latents: Path | None = None
    """Starting noise, one array [pictures, height, width, channels] in a .npy file."""
    latents_row: int = 0
    """Which of the file's pictures is the first one's."""

    invert: Path | None = None
    """Write OUT/noise.npy instead, for --latents: noise from which the same prompts, sampler and
    steps draw this picture, without guidance."""
    progress_strip: int | None = None
    """Write beside each picture a strip of so many predictions of it, from the first step to the
    last."""
    video: bool = False
    """Write these beside it as an animated WebP too."""

    clip_skip: int | None = None
    """Stop so many layers from CLIP's end; 1 is all of them."""
    tileable: bool = False
    """Opposite edges of the pictures fit each other."""
    tile: int | None = None
    """Decode in overlapping tiles of so many pixels, for large pictures."""
    batch_size: int | None = None
    """Pictures drawn at a time; by default 32 small ones, or 1 of more than 16 x 16 latents."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """What the networks compute in; float32 unless the model was trained in another."""

    weights: Literal["ema", "raw"] | None = None
    """The parameter average, or the parameters as trained last; ema of work directories and raw
    of single files by default."""
    tokenizer: Path | None = None
    """Folder with the tokenizer's files, which single files lack."""
    prediction: Literal["eps", "v", "x0"] | None = None
    """What the U-Net predicts, where a single file cannot tell."""
    original_config: Path | None = None
    """The YAML file that describes a single checkpoint file."""
    overwrite: bool = False
    """Write into a folder that has files already."""

    benchmark: bool = False
    """Draw a fixed set of samples instead (the captions and sampler given, or a few of each), time
    and hash them, and write OUT/record.json and OUT/record.npz."""
    verify: Path | None = None
    """Draw the samples of such a record again, and say whether they are equal bit for bit, or how
    far off; the exit status is 1 if they are not."""
