"""Draws pictures: `python sample.py --model=MODEL --prompt=CAPTION`."""

import sys
from dataclasses import asdict, replace
from pathlib import Path

from ldm_jax.cli.arguments import Arguments
from ldm_jax.cli.checks import check, check_verification, read_conditions
from ldm_jax.cli.drawing import (
    given,
    open_pipeline,
    read_inverted,
    read_picture,
    said,
    sampling_of,
)
from ldm_jax.cli.parsing import parse


def run(arguments: Arguments) -> Path:
    """Draws and writes everything; returns the path of the grid."""
    check(arguments)
    conditions = read_conditions(arguments)

    # JAX starts only now, so that --help and mistakes answer at once.
    import numpy as np
    from tqdm import tqdm

    from ldm_jax.generation.defaults import batch_size
    from ldm_jax.generation.pipeline import IMAGES_PER_PROMPT, versions
    from ldm_jax.images.sample_writer import Drawings

    pipeline = open_pipeline(arguments)
    last = max(arguments.first_image + arguments.num, arguments.first_prompt + len(conditions))
    if last > IMAGES_PER_PROMPT:
        raise ValueError(
            f"--num={arguments.num} for {len(conditions)} prompts; at most {IMAGES_PER_PROMPT} of "
            "each have noise of their own"
        )
    pipeline.check_conditions(conditions)
    pipeline.check_conditions([arguments.negative_prompt])
    numbers = [
        (arguments.first_prompt + p, arguments.first_image + j)
        for p in range(len(conditions))
        for j in range(arguments.num)
    ]
    wanted = [condition for condition in conditions for _ in range(arguments.num)]
    index = np.array([p * IMAGES_PER_PROMPT + j for p, j in numbers], np.uint32)
    sampling, picture, paste = read_picture(arguments, pipeline, wanted)
    settings = asdict(pipeline.settle(sampling)) | said(arguments)
    settings |= {"model": str(arguments.model), "origin": pipeline.origin}
    together = batch_size(pipeline.config, pipeline.settle(sampling))
    if arguments.init_image is None:
        del settings["strength"]
    drawn = pipeline.draw(
        wanted, index, sampling=sampling, negative=arguments.negative_prompt, picture=picture,
        previews=arguments.progress_strip or 0,
    )  # fmt: skip
    bar = tqdm(total=len(wanted), unit="image", desc="sampling")
    with bar, Drawings(arguments.out, settings, versions()) as drawings:
        for rows, images, previews in drawn:
            for i, (row, image) in enumerate(zip(rows, images, strict=True)):
                prompt, number = numbers[row]
                wish = {
                    "condition": wanted[row], "prompt_number": prompt, "image_number": number,
                    "batch_size": together,
                }  # fmt: skip
                if arguments.latents is not None:
                    wish["latents_row"] = arguments.latents_row + int(row)
                seen = previews if previews is None else np.stack([*map(paste, previews[i])])
                drawings.write(paste(image), wish, seen, arguments.video)
            bar.update(len(rows))
    return drawings.grid


def invert(arguments: Arguments) -> Path:
    """Writes the noise of a picture; returns the path of the file."""
    check(arguments)
    conditions = read_conditions(arguments)

    import numpy as np

    pipeline = open_pipeline(arguments)
    sampling, images = read_inverted(arguments, pipeline, conditions)
    noise = pipeline.invert(images, conditions, sampling=sampling)
    arguments.out.mkdir(parents=True, exist_ok=True)
    np.save(arguments.out / "noise.npy", noise)
    return arguments.out / "noise.npy"


def benchmark(arguments: Arguments) -> Path:
    """Times and hashes samples; returns the path of the record."""
    check(arguments)
    conditions = read_conditions(arguments)

    from ldm_jax.evaluation import repeatability

    pipeline = open_pipeline(arguments)
    if conditions == [None]:
        conditions = repeatability.usual_conditions(pipeline.config)
    sampling = replace(sampling_of(arguments), steps=given(arguments.steps, repeatability.STEPS))
    record = arguments.out / "record.json"
    arguments.out.mkdir(parents=True, exist_ok=True)
    samplings = repeatability.usual_samplings(sampling, arguments.sampler)
    wanted = [condition for condition in conditions for _ in range(arguments.num)]
    for line in repeatability.benchmark(pipeline, record, samplings, wanted, str(arguments.model)):
        print(line, flush=True)
    return record


def verify(arguments: Arguments) -> bool:
    """Draws the samples of a record again and says what came of it; whether all are bit-equal."""
    from ldm_jax.evaluation import repeatability

    check_verification(arguments)
    if arguments.model is None:
        arguments = replace(arguments, model=Path(repeatability.read(arguments.verify)["model"]))
    if arguments.dtype is None:
        arguments = replace(arguments, dtype=repeatability.read(arguments.verify)["dtype"])
    equal = True
    for same, line in repeatability.verify(open_pipeline(arguments), arguments.verify):
        equal &= same
        print(line, flush=True)
    return equal


def main() -> int:
    """The command line; returns the process's exit status."""
    try:
        arguments = parse(sys.argv[1:])
        if arguments.verify is not None:
            return 0 if verify(arguments) else 1
        task = invert if arguments.invert else benchmark if arguments.benchmark else run
        print(task(arguments))
    except KeyboardInterrupt:
        print("sample.py: interrupted; what was drawn before is in --out", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"sample.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
