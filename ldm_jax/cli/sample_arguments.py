"""The command line of `sample.py`: a request, and what is only about the command."""

import contextlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ldm_jax.cli import options
from ldm_jax.config import ConfigError, ModelChoice, Request, WorkShare
from ldm_jax.config.command_line import check_given
from ldm_jax.config.control_choice import ControlChoice, HintChoice, check_hints
from ldm_jax.config.lora_choice import LoraChoice
from ldm_jax.config.request import LISTED, WITH_STRENGTH, kinds, paths, settings
from ldm_jax.core.reading import FileFormatError, printable, read_lines
from ldm_jax.core.stores import as_path

PROGRAM = "sample.py"


def _internal() -> Any:
    """A field that is no option."""
    return field(default=(), metadata={"hidden": True})


@dataclass(frozen=True)
class Command:
    """Draws pictures with a trained model and says in each file how it was made."""

    request: Request = field(default_factory=Request)
    share: WorkShare = field(default_factory=WorkShare)
    prompts: Path | None = None
    """Text file with one prompt a line."""
    out: Path = Path("samples")
    """New or empty folder for the pictures."""
    overwrite: bool = False
    """Write into a folder that has pictures already, and delete these."""
    from_png: Path | None = None
    """A picture whose settings are used wherever the command line says nothing else: draws it
    again."""
    interactive: bool = False
    """Keep the model loaded, and read prompts line by line from the terminal or a pipe."""
    progress_strip: int | None = None
    """Write beside each picture a strip of N pictures that shows how it came about."""
    video: bool = False
    """Write the strip's pictures as an animated WebP, too."""
    invert: Path | None = None
    """A picture: find the noise from which the same prompt, sampler and steps draw it without
    guidance. Writes OUT/noise.npy, for --latents, and no picture."""
    benchmark: bool = False
    """Draw a fixed set of pictures, measure the time and write OUT/record.json, for --verify."""
    verify: Path | None = None
    """A record of --benchmark: draw its pictures again, and say whether they are the same bit for
    bit. The exit status is 1 if they are not."""
    filled: tuple[str, ...] = _internal()
    """Usual values that a picture was drawn with, which are kept."""
    lines: tuple[int, ...] = _internal()
    """The line in `prompts` of each prompt from there, which are the request's last."""
    of_picture: tuple[str, ...] = _internal()
    """Settings of the request that the picture of `from_png` says, not the command line."""
    hashes: Mapping[str, Mapping[str, str]] = field(default_factory=dict, metadata={"hidden": True})
    """What the picture of `from_png` says of the adapters' files that it was drawn with."""
    typed: tuple[tuple[str, str], ...] = _internal()
    """Fields that the command line says, each with its option as it was typed."""


FIRST = {
    "What to draw": ("prompt", "classes", "negative_prompt", "num", "seed"),
    "How to draw": ("steps", "sampler", "guidance_scale"),
    "Size": ("height", "width"),
    "From a picture": ("init_image", "strength", "mask"),
    "Files": ("model", "out"),
}
"""What most people need: the options that stand first in the help text, one line each."""
MORE = {
    "Prompts": ("prompts", "interactive", "unknown_words", "literal_prompts", "clip_skip"),
    "Adapters (LoRA)": (
        "lora", "lora_dir", "hypernetwork", "hypernetwork_dir", "embeddings", "embeddings_dir",
    ),
    "ControlNet": ("control", "hint", "control_start", "control_end", "guess_mode"),
    "Model": (
        "weights", "variant", "dtype", "tokenizer", "prediction", "original_config", "vae",
        "text_encoder",
    ),
    "Steps and noise levels": (
        "spacing", "sections", "timesteps", "sigmas", "eta", "corrector", "corrector_steps", "snr",
    ),
    "Guidance": (
        "image_guidance_scale", "guidance_schedule", "guidance_interval", "guidance_rescale",
        "threshold", "weak_model", "autoguidance_scale", "classifier", "classifier_scale",
        "classifier_form",
    ),
    "From a picture, in detail": (
        "mask_blur", "invert_mask", "only_masked", "resample", "resample_jump", "latents",
        "latents_row", "invert",
    ),
    "For models conditioned on files": (
        "low_res", "noise_level", "class_map", "boxes", "edit_image", "depth",
    ),
    "Memory and large pictures": ("batch_size", "tile", "unet_tile", "tileable"),
    "What is written": ("overwrite", "progress_strip", "video"),
    "The same pictures again": (
        "from_png", "first_prompt", "first_image", "benchmark", "verify",
    ),
    "Several processes": ("num_processes", "process_id", "coordinator", "single"),
}  # fmt: skip
"""All others."""
TITLE = """Draw pictures with a trained model:

    python sample.py --model=MODEL --prompt="a red three above a blue seven" --num=4

Write --name=VALUE or --name VALUE. N is a whole number, X a number, ... one or more of them.
docs/sample.md explains all of this with pictures. --debug shows where an error came from."""


def known_options() -> dict[str, options.Option]:
    """All options of the command, by the names of their fields."""
    return options.options_of(Command, WorkShare, *kinds())


def help_text() -> str:
    """What `sample.py --help` prints."""
    return options.help_text(TITLE, FIRST, MORE, known_options())


_FILES = ("prompts", "from_png", "invert", "verify")
"""Options of the command that name files which are read."""
_DRAWS_ANYWAY = {
    "prompt", "classes", "negative_prompt", "num", "first_prompt", "first_image", "seed", "model",
}  # fmt: skip
"""Settings on which no usual value of others depends."""
_OPEN_A_MODEL = {f.name for f in fields(ModelChoice)}
"""What `--verify` takes beside a record, which says all else."""


def parse(arguments: Sequence[str]) -> Command:
    """The command line, on top of the settings of the picture that `--from_png` names.

    What a picture says that cannot be used, and which files it names, is written to the error
    output.

    Raises:
        ConfigError: settings that cannot be, or that do not go together.
        FileFormatError: the picture has no settings; a file with captions cannot be read.
        SystemExit: after --help.
    """
    if not {"-h", "--help"}.isdisjoint(arguments):
        print(help_text())
        raise SystemExit(0)
    check_given(arguments, ("out", *paths(), *_FILES))
    given, typed = options.read(arguments, known_options())
    with naming_options(typed):
        return replace(_command(given), typed=tuple(typed.items()))


def _command(given: Mapping[str, Any]) -> Command:
    """The command of `given` options, by the names of their fields."""
    default, filled = Command(), {}
    picture = given.get("from_png")
    if picture is not None:
        request, filled, hashes = _from_png(given)
        default = replace(default, request=request, hashes=hashes)
    own = {name: value for name, value in given.items() if name not in settings()}
    share = {name: own.pop(name) for name in vars(WorkShare()) if name in own}
    own["share"] = WorkShare(**share)
    changes = {name: value for name, value in given.items() if name in settings()}
    command = replace(default, request=default.request.changed(**changes), **own)
    if filled and _changed(command.request, default.request) <= _DRAWS_ANYWAY:
        # As it was drawn, though the usual values have become others since.
        request = command.request.changed(**filled)
        command = replace(command, request=request, filled=tuple(filled))
    if command.prompts is not None:
        numbered = enumerate(read_lines(command.prompts), 1)
        captions = {number: text.strip() for number, text in numbered if text.strip()}
        if not captions:
            raise FileFormatError(command.prompts, "has no caption in it")
        request = replace(command.request, prompt=(*command.request.prompt, *captions.values()))
        command = replace(command, request=request, lines=tuple(captions))
    if picture is not None:
        _say_files(picture, default.request, command.request)
        changed = _changed(command.request, default.request)
        of_picture = tuple(name for name in default.request.to_dict() if name not in changed)
        command = replace(command, of_picture=of_picture)
    check(command)
    return command


@contextlib.contextmanager
def naming_options(typed: Mapping[str, str]) -> Iterator[None]:
    """Settings that are refused inside are named by their options, as they were `typed`."""
    try:
        yield
    except ConfigError as error:
        known = known_options()
        names = {name: typed.get(name, option.shown) for name, option in known.items()}
        words = str(error)
        # A single word is an ordinary one, too, but where the sentence begins with it.
        first = re.match(r"(\w+) (is|are|needs) ", words)
        if first and first[1] in names:
            words = names[first[1]] + words[first.end(1) :]
        for name in (name for name in names if "_" in name):
            words = re.sub(rf"(?<![\w.'-]){name}(?![\w.=])", names[name], words)
        error.args = (words,)
        raise


def check(command: Command) -> None:
    """Raises ConfigError for what cannot work, whatever the model."""
    request, model = command.request, command.request.model
    if command.share.num_processes is not None:
        for name in ("interactive", "invert", "benchmark", "verify"):
            if getattr(command, name):
                raise ConfigError(
                    f"--num_processes shares pictures to draw; leave it out with --{name}"
                )
    if command.verify is not None:
        _check_verification(command)
        return
    if model.model is None:
        raise ConfigError("--model=MODEL is missing: a work directory, model folder or single file")
    if command.progress_strip is not None and not 2 <= command.progress_strip <= 1000:
        raise ConfigError(f"--progress_strip={command.progress_strip}: it must be 2 to 1000")
    if command.video and command.progress_strip is None:
        raise ConfigError("--video needs --progress_strip=K, the number of its pictures")
    if command.interactive:
        asked = {"prompt": request.prompt, "classes": request.classes}
        for name in (*asked, "prompts", "invert", "benchmark"):
            if asked.get(name) or getattr(command, name, None):
                raise ConfigError(f"--interactive draws what is typed; leave out --{name}")
    if command.benchmark:
        for name in ("progress_strip", "invert"):
            if getattr(command, name) is not None:
                raise ConfigError(f"--benchmark writes a record; leave out --{name}")
    check_hints(model.control, request.hints)
    if command.invert is not None:
        values = request.to_dict()
        for name in ("init_image", "mask", "latents", "negative_prompt", "control"):
            if values.get(name):
                raise ConfigError(f"--invert goes from a picture to its noise; leave out --{name}")
        if command.progress_strip is not None:
            raise ConfigError("--invert writes no pictures; leave out --progress_strip")
        if request.num != 1:
            raise ConfigError("--invert finds one noise for each prompt; leave out --num")


def inputs(command: Command) -> list[tuple[str, Path]]:
    """The files and folders that a command reads, each with the option that names it."""
    named = [(name, as_path(p)) for name in ("prompts", "from_png", "invert")
             if (p := getattr(command, name)) is not None]  # fmt: skip
    values = command.request.to_dict()
    kinds = dict.fromkeys(WITH_STRENGTH, LoraChoice)
    kinds |= {"control": ControlChoice, "hint": HintChoice}
    listed = [
        (n, kinds[n].parse(one).file if n in kinds else as_path(one))
        for n in LISTED for one in values.pop(n, ())
    ]  # fmt: skip
    return [*named, *((n, as_path(values[n])) for n in paths() if n in values), *listed]


def _check_verification(command: Command) -> None:
    for name in _changed(command.request, Request()) - _OPEN_A_MODEL:
        raise ConfigError(f"--verify draws what the record says; leave out --{name}")
    for f in fields(command):
        if f.name in ("request", "share", "verify") or f.metadata.get("hidden"):
            continue
        if getattr(command, f.name) != f.default:
            raise ConfigError(f"--verify draws what the record says; leave out --{f.name}")


def _changed(request: Request, before: Request) -> set[str]:
    """The settings in which two requests differ."""
    one, other = request.to_dict(), before.to_dict()
    return {name for name in settings() if one.get(name) != other.get(name)}


# ---------------------------------------------------------------------------------- from a PNG


def _from_png(
    given: Mapping[str, Any],
) -> tuple[Request, dict[str, Any], Mapping[str, Mapping[str, str]]]:
    """The picture's request, the usual values that it was drawn with, and the hashes of files."""
    from ldm_jax.images.picture_text import read_written

    image, picture = given.get("init_image"), given["from_png"]
    also = {} if image is None else {"init_image": str(image)}
    written = read_written(picture, also)
    for problem in written.problems:
        _say(f"{picture}: left out: {problem}")
    other_conditions = not {"prompt", "prompts", "classes"}.isdisjoint(given)
    if not other_conditions and any(problem.startswith("prompt") for problem in written.problems):
        raise FileFormatError(picture, "has a prompt that cannot be used; give --prompt")
    drawn = written.request
    # Usual values that another sampler or model would not have are not carried over to it.
    neutral = Request()
    filled = {name: drawn.setting(name) for name in written.filled}
    request = drawn.changed(**{name: neutral.setting(name) for name in filled})
    if other_conditions:
        request = replace(request, prompt=(), classes=())
    return request, filled, written.hashes


def _say_files(picture: Path, named: Request, used: Request) -> None:
    """Names the files that a picture, not the command line, has chosen."""
    one, other = named.to_dict(), used.to_dict()
    for name in paths():
        if name in other and one.get(name) == other[name]:
            told = " ".join(other[name]) if name in LISTED else other[name]
            _say(f"{picture} names --{name}={told}, which is read")


def _say(text: str) -> None:
    print(f"{PROGRAM}: {printable(text)}", file=sys.stderr, flush=True)
