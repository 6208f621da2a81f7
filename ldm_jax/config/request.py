"""What is to be drawn, in one place: a `Request`.

The command line of `sample.py`, the text in a PNG, the manifest and the record of a benchmark are
forms of it: `to_dict` and `from_dict` have all its settings, and those of its parts, side by side
under their own names.
"""

import difflib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from ldm_jax.config.checks import ConfigError, check_fields, matches, require, told
from ldm_jax.config.control_choice import ControlChoice, ControlHints
from ldm_jax.config.lora_choice import LoraChoice
from ldm_jax.config.sampling import NEEDS, Sampling, one_of
from ldm_jax.core.stores import as_path

Weights = Literal["ema", "raw"]
Dtype = Literal["float32", "bfloat16", "float16"]
Prediction = Literal["eps", "v", "x0"]
UnknownWordsChoice = Literal["refuse", "skip"]

IMAGES_PER_PROMPT = 1 << 16
"""Image j of prompt p has noise of number `p * IMAGES_PER_PROMPT + j`, whatever else is drawn."""
MAX_IMAGES = 1 << 20
"""Pictures of one request, at most."""


_LOADED = (
    "weights", "variant", "tokenizer", "prediction", "original_config", "vae", "text_encoder"
)  # fmt: skip


@dataclass(frozen=True)
class ModelChoice:
    """Which model draws, and what of it."""

    model: Path | None = None
    """Work directory (or its checkpoints/STEP), model folder, or file."""
    weights: Annotated[str | None, one_of(Weights)] = None
    """The averaged weights or the latest ones; by default ema for work directories and raw for
    single files."""
    variant: str | None = None
    """Which weights of a diffusers folder, such as fp16."""
    dtype: Annotated[str | None, one_of(Dtype)] = None
    """Number type to compute in; by default the one of training, or float32."""
    tokenizer: Path | None = None
    """Folder with the tokenizer's files, for single files, which have none."""
    prediction: Annotated[str | None, one_of(Prediction)] = None
    """What the U-Net predicts, for single files that do not say it."""
    original_config: Path | None = None
    """The YAML file that describes a single checkpoint file."""
    vae: Path | None = None
    """A model whose autoencoder (VAE) is used, for single files without one or in place of
    theirs."""
    text_encoder: Path | None = None
    """A model whose text encoder is used, or the encoder's folder, for single files without
    one."""
    clip_skip: int | None = None
    """CLIP's text encoder without its last layers: 1 uses all, 2 leaves out the last."""
    tileable: bool = False
    """Draw textures: opposite edges of a picture fit each other."""
    literal_prompts: bool = False
    """Take brackets in prompts as text, not as emphasis."""
    lora: tuple[str, ...] = ()
    """Adapters (LoRA and its relatives), each FILE, FILE:STRENGTH, or FILE:TE:UNET with strengths
    for text encoder and U-Net."""
    lora_dir: Path | None = None
    """Folder of the adapters that prompts name as <lora:NAME:STRENGTH>."""
    hypernetwork: tuple[str, ...] = ()
    """Hypernetworks, one after the other, each FILE or FILE:STRENGTH."""
    hypernetwork_dir: Path | None = None
    """Folder of the hypernetworks that prompts name as <hypernet:NAME:STRENGTH>."""
    embeddings: tuple[str, ...] = ()
    """Files of embeddings (textual inversion), whose words prompts may have in them."""
    embeddings_dir: Path | None = None
    """Folder of the embeddings that prompts name as their files are called."""
    control: tuple[str, ...] = ()
    """ControlNets, each MODEL or MODEL:SCALE, which are shown the pictures of --hint in the same
    order."""
    weak_model: Path | None = None
    """Autoguidance: a weaker model of the same task, or an earlier checkpoint
    (WORKDIR/checkpoints/STEP). Without --guidance, that is then 1."""
    classifier: Path | None = None
    """Work directory of a classifier that guides towards --classes."""

    @classmethod
    def of(cls, model: str | Path, **choices: Any) -> "ModelChoice":
        """The model in a file or folder, with choices of other types than fields have, such as
        text for a path.

        Raises:
            ConfigError: a choice that does not exist, of another type, or that is refused.
        """
        hints = typing.get_type_hints(cls, include_extras=False)
        for name in choices:
            if name not in hints:
                raise ConfigError(f"{name!r} is no choice of a model, which are {', '.join(hints)}")
        return cls(as_path(model), **{n: _typed(n, v, hints[n]) for n, v in choices.items()})

    def __post_init__(self) -> None:
        check_fields(self, "")
        for name, names in _NAMES.items():
            value, allowed = getattr(self, name), typing.get_args(names)
            require(value is None or value in allowed, name, value, f"one of {', '.join(allowed)}")
        require(self.clip_skip is None or self.clip_skip >= 1, "clip_skip", self.clip_skip,
                "1 or more")  # fmt: skip
        # One spelling, whichever was written.
        for name in WITH_STRENGTH:
            spelled = tuple(str(LoraChoice.parse(one, name)) for one in getattr(self, name))
            object.__setattr__(self, name, spelled)
        for one in self.hypernetwork:
            choice = LoraChoice.parse(one)
            require(choice.text_encoder == choice.unet, "hypernetwork", one, "FILE:STRENGTH")
        control = tuple(str(ControlChoice.parse(one)) for one in self.control)
        object.__setattr__(self, "control", control)

    def loading(self) -> dict[str, Any]:
        """The choices that say what is loaded of a model, as `convert.load` takes them."""
        return {name: getattr(self, name) for name in _LOADED}


@dataclass(frozen=True)
class PictureInput:
    """Files that drawing starts from, instead of noise of the seed alone."""

    init_image: Path | None = None
    """Image-to-image: the picture to change."""
    mask: Path | None = None
    """Inpainting: a picture of its size, white where to paint anew."""
    mask_blur: float | None = None
    """Soften the mask's edge by so many pixels; by default 4, or a 32nd of the picture's longer
    side, rounded down, if that is less."""
    invert_mask: bool = False
    """Paint where the mask is black, not where it is white."""
    only_masked: int | None = None
    """Crop to the mask and N pixels around it, and paint that part at full size."""
    latents: Path | None = None
    """Starting noise instead of the seed's: a .npy file, [pictures, height, width, channels]."""
    latents_row: int = 0
    """Which row of that file belongs to the first picture."""

    def __post_init__(self) -> None:
        check_fields(self, "")
        require(self.latents_row >= 0, "latents_row", self.latents_row, "0 or more")
        blur, around = self.mask_blur, self.only_masked
        require(blur is None or 0 <= blur < 10_000, "mask_blur", blur, "0 to 10000 pixels")
        require(around is None or around >= 0, "only_masked", around, "0 or more pixels")
        for name, needed in _OF_PICTURE.items():
            absent = getattr(self, name) == _default(type(self), name)
            if not absent and getattr(self, needed) is None:
                raise ConfigError(f"{name} needs {needed}, the name of a file")


@dataclass(frozen=True)
class ConditionFiles:
    """Files that say what is to be seen, for models that are conditioned on such."""

    low_res: Path | None = None
    """Super-resolution: the small picture to enlarge."""
    noise_level: int | None = None
    """How much noise to add to --low_res first, 0 is none; for models that were trained so."""
    class_map: Path | None = None
    """A PNG whose numbers, or palette, say what is where."""
    boxes: Path | None = None
    """A JSON file of boxes: what is where."""
    edit_image: Path | None = None
    """Editing: the picture to edit, as the prompt says."""
    depth: Path | None = None
    """A depth map: a grey PNG of 8 or 16 bits, near is bright, or a .npy file of numbers."""

    def __post_init__(self) -> None:
        check_fields(self, "")
        level = self.noise_level
        require(level is None or level >= 0, "noise_level", level, "0 or more")
        if level is not None and self.low_res is None:
            raise ConfigError("noise_level needs low_res, the name of a file")


WITH_STRENGTH = ("lora", "hypernetwork")
"""Settings that name files with strengths, as `LoraChoice` spells them."""
LISTED = (*WITH_STRENGTH, "embeddings", "control", "hint")
"""Settings that name files with more about each in the same word."""
FILES = ("low_res", "class_map", "boxes", "edit_image", "depth")
"""Settings that name a file for the input of the same name."""
_NAMES = {"weights": Weights, "dtype": Dtype, "prediction": Prediction}
_OF_PICTURE = {
    "mask": "init_image", "mask_blur": "mask", "invert_mask": "mask", "only_masked": "mask",
    "latents_row": "latents",
}  # fmt: skip
"""Settings that have no effect without another."""
_OF_MODELS = {
    "autoguidance_scale": "weak_model", "classifier_scale": "classifier",
    "classifier_form": "classifier",
}  # fmt: skip
"""As `_OF_PICTURE`, of settings that need another model."""


@dataclass(frozen=True)
class Request:
    """Pictures that are wanted, and how; what is None is what model or sampler usually have."""

    prompt: tuple[str, ...] = ()
    """One or more prompts, each in quotes."""
    classes: tuple[int, ...] = ()
    """One or more class numbers, for models that draw classes."""
    negative_prompt: str | None = None
    """What to keep away from; nothing by default."""
    unknown_words: Annotated[str, one_of(UnknownWordsChoice)] = "refuse"
    """Words that the model does not know: refuse the prompt, or skip the words with a warning."""
    num: int = 1
    """Pictures for each prompt or class."""
    first_prompt: int = 0
    """Number of the first prompt; noise depends on seed and numbers."""
    first_image: int = 0
    """Number of each prompt's first picture; noise depends on seed and numbers."""
    sampling: Sampling = field(default_factory=Sampling)
    picture: PictureInput = field(default_factory=PictureInput)
    condition_files: ConditionFiles = field(default_factory=ConditionFiles)
    hints: ControlHints = field(default_factory=ControlHints)
    model: ModelChoice = field(default_factory=ModelChoice)

    def __post_init__(self) -> None:
        check_fields(self, "")
        if self.prompt and self.classes:
            raise ConfigError(
                "classes are given beside captions; give captions or classes, not both"
            )
        allowed = typing.get_args(UnknownWordsChoice)
        require(self.unknown_words in allowed, "unknown_words", self.unknown_words,
                f"one of {', '.join(allowed)}")  # fmt: skip
        for name, value in self.to_dict().items():
            for text in value if isinstance(value, list) else [value]:
                _check_text(name, text)
        check_numbers(len(self.conditions), self.num, self.first_prompt, self.first_image)
        if self.sampling.strength is not None and self.picture.init_image is None:
            raise ConfigError("strength needs init_image, the picture that is drawn on")
        if self.sampling.resample > 1 and self.picture.mask is None:
            raise ConfigError(
                "resample is for painting under a mask; it needs mask, the name of a file"
            )
        if self.negative_prompt and self.sampling.guidance_scale == 1:
            raise ConfigError(
                "negative_prompt needs guidance; with guidance_scale 1 nothing leads away from it"
            )
        for name, needed in _OF_MODELS.items():
            if getattr(self.model, needed) is None and getattr(self.sampling, name) is not None:
                raise ConfigError(f"{name} needs {needed}, the name of a model")
        if self.model.classifier is not None and not self.classes:
            raise ConfigError(
                "classes are missing, towards which a classifier guides; name them in the setting "
                "classes"
            )

    @property
    def conditions(self) -> list[str | int | None]:
        """The captions, the classes or, for neither, one None."""
        return [*self.prompt] or [*self.classes] or [None]

    def one(self, place: int, image: int) -> "Request":
        """The request for one of the pictures alone: `image` of the condition at `place`."""
        row = self.picture.latents_row + place * self.num + image
        picture = self.picture
        if picture.latents is not None:
            picture = replace(picture, latents_row=row)
        return replace(
            self, prompt=self.prompt[place : place + 1], classes=self.classes[place : place + 1],
            num=1, first_prompt=self.first_prompt + place, first_image=self.first_image + image,
            picture=picture,
        )  # fmt: skip

    def setting(self, name: str) -> Any:
        """The value of a setting, of whichever part."""
        return getattr(_part(self, name), name)

    def changed(self, **values: Any) -> "Request":
        """With other values of settings, by their names, of whichever part.

        Raises ConfigError as `from_dict`.
        """
        return _build(self, values)

    @classmethod
    def usable(cls, values: Mapping[str, Any]) -> tuple["Request", list[str]]:
        """The request with those of `values` that can be, and what is wrong with the others."""
        found, problems = cls(), {}
        waiting = dict(values)
        while waiting:
            for name, value in waiting.items():
                try:
                    cls.from_dict({name: value} if name not in settings() else {})
                    found = _build(found, {name: _typed(name, value, settings()[name])})
                    break
                except ConfigError as error:
                    problems[name] = str(error)
            else:
                return found, [problems[name] for name in waiting]
            del waiting[name]
        return found, []

    def to_dict(self) -> dict[str, Any]:
        """All settings by their names, as JSON has them; those that are None or empty are left
        out."""
        found = {}
        for name in settings():
            value = self.setting(name)
            if value is not None and value != ():
                found[name] = _plain(value)
        return found

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], model: ModelChoice | None = None) -> "Request":
        """The request that `to_dict` wrote, or one to another `model`; what is left out has its
        default.

        Raises:
            ConfigError: a setting that does not exist, of another type, or that is refused.
        """
        hints = settings()
        for name in values:
            if name not in hints:
                close = difflib.get_close_matches(name, hints, n=1)
                hint = f"perhaps you meant {close[0]!r}" if close else f"it has {', '.join(hints)}"
                raise ConfigError(f"{name!r} is no setting of a drawing; {hint}")
        start = cls(model=model or ModelChoice())
        return _build(start, {n: _typed(n, v, hints[n]) for n, v in values.items()})


def check_numbers(conditions: int, num: int, first_prompt: int, first_image: int) -> None:
    """Raises ConfigError unless every picture has a number, and noise, of its own."""
    require(num >= 1, "num", num, "1 or more")
    require(first_prompt >= 0, "first_prompt", first_prompt, "0 or more")
    require(first_image >= 0, "first_image", first_image, "0 or more")
    if max(first_prompt + conditions, first_image + num) > IMAGES_PER_PROMPT:
        raise ConfigError(
            f"num is {num} from first_image {first_image} on, for {conditions} prompts from "
            f"first_prompt {first_prompt} on; at most {IMAGES_PER_PROMPT} of each have noise of "
            "their own"
        )
    if conditions * num > MAX_IMAGES:
        raise ConfigError(
            f"num is {num} for each of {conditions} prompts; at most {MAX_IMAGES} pictures are "
            "drawn at once"
        )


@cache
def settings() -> dict[str, Any]:
    """The type of each setting of a request and its parts, by name, in their order."""
    return {
        name: hint for kind in kinds() for name, hint in typing.get_type_hints(kind).items()
        if not is_dataclass(hint)
    }  # fmt: skip


@cache
def needs() -> dict[str, str]:
    """Settings that need another one beside them, each with that one's name."""
    of_sampling = {name: needed for name, _, needed, _ in NEEDS}
    of_request = {"strength": "init_image", "resample": "mask", "noise_level": "low_res"}
    of_request |= dict.fromkeys(("control_start", "control_end", "guess_mode"), "hint")
    return _OF_PICTURE | of_request | of_sampling | _OF_MODELS


def paths() -> list[str]:
    """The settings that name files or folders, those of `LISTED` with more about each."""
    hints = settings()
    return [name for name in hints if name in LISTED or Path in typing.get_args(hints[name])]


def kinds() -> list[type]:
    """A request and its parts."""
    hints = typing.get_type_hints(Request)
    return [Request, *(hint for hint in hints.values() if is_dataclass(hint))]


def _part(request: Request, name: str) -> Any:
    """The request, or that part of it, which has the setting."""
    for f in fields(request):
        part = getattr(request, f.name)
        if is_dataclass(part) and name in {own.name for own in fields(part)}:
            return part
    return request


def _build(start: Request, values: Mapping[str, Any]) -> Request:
    """`start` with other values, checked only once all are in their places."""
    groups: dict[str, dict[str, Any]] = {"": {}}
    for f in fields(start):
        if is_dataclass(getattr(start, f.name)):
            groups[f.name] = {}
    for name, value in values.items():
        part = _part(start, name)
        home = next((g for g in groups if g and getattr(start, g) is part), "")
        groups[home][name] = value
    parts = {g: replace(getattr(start, g), **own) for g, own in groups.items() if g and own}
    return replace(start, **groups[""], **parts)


def _check_text(name: str, value: Any) -> None:
    """Raises ConfigError for text that cannot be written anywhere."""
    try:
        if isinstance(value, str):
            value.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{name} {ascii(value)} is not text that UTF-8 can hold") from error


def _default(kind: type, name: str) -> Any:
    return next(f.default for f in fields(kind) if f.name == name)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _typed(name: str, value: Any, hint: Any) -> Any:
    """What JSON has as what the dataclass has; raises ConfigError for another type."""
    kinds = {kind for part in (hint, *typing.get_args(hint))
             for kind in (part, *typing.get_args(part))}  # fmt: skip
    found = tuple(value) if isinstance(value, list) else value
    if isinstance(found, str) and Path in kinds:
        found = as_path(found)
    if not matches(found, hint):
        raise ConfigError(told(name, value, hint))
    # JSON's 1 may be meant for 1.0.
    if float in kinds and found is not None:
        try:
            found = tuple(map(float, found)) if isinstance(found, tuple) else float(found)
        except OverflowError as error:
            raise ConfigError(f"{name} is larger than any number that is computed with") from error
    return found
