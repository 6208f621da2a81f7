"""What `Arguments` ask for, refused where it cannot work with any model."""

from dataclasses import fields

from ldm_jax.cli.arguments import Arguments

_OPEN_A_MODEL = {
    "model", "weights", "dtype", "tokenizer", "prediction", "original_config", "clip_skip",
    "tileable", "literal_prompts", "weak_model", "classifier",
}  # fmt: skip


def read_conditions(arguments: Arguments) -> list[str | int | None]:
    """The captions, classes or (for neither) one None that the arguments ask for."""
    conditions: list[str | int | None] = [*arguments.prompt]
    if arguments.prompts is not None:
        if not arguments.prompts.is_file():
            raise FileNotFoundError(f"--prompts={arguments.prompts}: there is no such file")
        try:
            lines = arguments.prompts.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"--prompts={arguments.prompts} is not UTF-8 text: {error}") from error
        conditions += [line.strip() for line in lines if line.strip()]
        if not conditions:
            raise ValueError(f"--prompts={arguments.prompts} has no caption in it")
    if conditions and arguments.classes:
        raise ValueError("give captions or --classes, not both: a model takes one of them")
    return conditions or [*arguments.classes] or [None]


def check(arguments: Arguments) -> None:
    """Raises ValueError for what cannot work, whatever the model."""
    if arguments.model is None:
        raise ValueError("--model=MODEL is missing: a work directory, model folder or single file")
    if arguments.num < 1:
        raise ValueError(f"--num={arguments.num}: it must be 1 or more")
    if arguments.negative_prompt and arguments.guidance == 1:
        raise ValueError("--negative_prompt needs --guidance; at 1 there is none to lead away")
    if arguments.benchmark and (arguments.init_image, arguments.latents) != (None, None):
        raise ValueError("--benchmark draws from seeds; leave out --init_image and --latents")
    if arguments.progress_strip is not None and arguments.progress_strip < 2:
        raise ValueError(f"--progress_strip={arguments.progress_strip}: it must be 2 or more")
    if arguments.video and arguments.progress_strip is None:
        raise ValueError("--video needs --progress_strip=K, the number of its pictures")
    _check_inversion(arguments)
    for name, usual in (("corrector_steps", 1), ("snr", 0.16)):
        # A picture says what is usual too.
        if arguments.corrector is None and getattr(arguments, name) not in (None, usual):
            raise ValueError(f"--{name} needs --corrector")
    for name in ("first_prompt", "first_image", "latents_row"):
        if getattr(arguments, name) < 0:
            raise ValueError(f"--{name}={getattr(arguments, name)}: it must be 0 or more")
    about_mask = {"mask_blur": None, "only_masked": None, "invert_mask": False}
    for name, absent in about_mask.items():
        if arguments.mask is None and getattr(arguments, name) != absent:
            raise ValueError(f"--{name} needs --mask")
    if arguments.mask is not None and arguments.init_image is None:
        raise ValueError("--mask needs --init_image, the picture that is painted on")
    if arguments.strength is not None and arguments.init_image is None:
        raise ValueError("--strength needs --init_image, the picture that is drawn on")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise ValueError(f"--out={arguments.out} is a file; name a folder")
    if arguments.out.exists() and any(arguments.out.iterdir()) and not arguments.overwrite:
        raise ValueError(f"--out={arguments.out} is not empty; choose another, or --overwrite")


def check_verification(arguments: Arguments) -> None:
    """Raises ValueError for options that say what is drawn, which the record does."""
    for field in fields(arguments):
        given = getattr(arguments, field.name) != field.default
        if given and field.name not in _OPEN_A_MODEL | {"verify"}:
            raise ValueError(f"--verify draws what the record says; leave out --{field.name}")


def _check_inversion(arguments: Arguments) -> None:
    others = ("init_image", "mask", "latents", "negative_prompt", "progress_strip", "benchmark")
    for name in others:
        if arguments.invert is not None and getattr(arguments, name) not in (None, "", False):
            raise ValueError(f"--invert goes from a picture to its noise; leave out --{name}")
    if arguments.invert is not None and arguments.num != 1:
        raise ValueError("--invert finds one noise for each prompt; leave out --num")
