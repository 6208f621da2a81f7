"""What `sample.py` does: drawing, inverting, and benchmarks that can be repeated."""

import contextlib
import itertools
import logging
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ldm_jax.cli.sample_arguments import (
    PROGRAM,
    Command,
    check,
    inputs,
    naming_options,
    parse,
)
from ldm_jax.config import ConfigError, ModelChoice, Request
from ldm_jax.config.command_line import check_model
from ldm_jax.config.control_choice import ControlChoice
from ldm_jax.config.lora_choice import LoraChoice, is_strength
from ldm_jax.config.request import WITH_STRENGTH
from ldm_jax.core.cluster import Place, find_share
from ldm_jax.core.command import FAILED
from ldm_jax.core.distributed import together
from ldm_jax.core.reading import printable
from ldm_jax.core.signals import at_end
from ldm_jax.core.stores import as_path
from ldm_jax.data.unknown_words import UnknownWordsError
from ldm_jax.images.sample_writer import GRID, SampleWriter, check_folder
from ldm_jax.images.shared_folder import SharedFolder

if TYPE_CHECKING:
    from ldm_jax.generation.pipeline import Drawn, Pipeline
    from ldm_jax.generation.resolve import ResolvedRequest


def main(arguments: list[str]) -> int:
    """The command line; returns the process's exit status.

    Raises ValueError, OSError, as `parse` and the task.
    """
    # Before libraries choose a form of their own for what is logged.
    logging.basicConfig(format=f"{PROGRAM}: %(message)s")
    command = parse(arguments)
    if command.verify is not None:
        return 0 if verify(command) else FAILED
    tasks = {invert: command.invert, benchmark: command.benchmark, interact: command.interactive}
    task = next((task for task, asked in tasks.items() if asked), draw)
    with (
        at_end(lambda: "nothing was written"),
        naming_lines(command),
        naming_options(dict(command.typed)),
    ):
        path = task(command)
    if path is not None:
        print(printable(str(path)))
    return 0


@contextlib.contextmanager
def naming_lines(command: Command) -> Iterator[None]:
    """Prompts of a file that are refused inside are told with their lines."""
    try:
        yield
    except UnknownWordsError as error:
        first = len(command.request.prompt) - len(command.lines)
        for place, line in enumerate(command.lines, first):
            error.names[place] = f"{command.prompts}, line {line}"
        raise


def draw(command: Command) -> Path | None:
    """Draws and writes everything, or of several processes this one's part; returns the path of the
    grid, or None where others have parts to draw still."""
    check(command)
    _check_files(command, stored=True)
    place = find_share(**vars(command.share))
    with together(PROGRAM, place):
        return _draw(command, place)


def _draw(command: Command, place: Place) -> Path | None:
    # JAX starts only now, so that --help and mistakes answer at once.
    from ldm_jax.generation.pipeline import versions
    from ldm_jax.generation.resolve import resolve_request
    from ldm_jax.generation.used_files import other_files

    pipeline = open_pipeline(command.request.model, optional=command.of_picture)
    asked_for = {"caption": "--prompt", "label": "--classes"}
    missing = [asked_for[name] for name in pipeline.config.inputs if name in asked_for]
    if missing and command.request.conditions == [None]:
        _say(f"note: without {' or '.join(missing)} this model draws whatever it has learnt")
    resolved = resolve_request(pipeline, command.request)
    for word in pipeline.unused_embeddings(resolved.plan):
        _say(f"note: no prompt has {word!r} in it, the word of an embedding")
    for line in other_files(command.hashes, resolved.hashes):
        _say(f"note: {line}")
    request = resolved.request
    filled = {*command.filled, *resolved.filled}

    def writer(out: Path, total: int) -> SampleWriter:
        return SampleWriter(
            out, request, total, filled=filled, hashes=resolved.hashes, origin=pipeline.origin,
            versions=versions(),
        )  # fmt: skip

    if place.count > 1:
        return _draw_part(pipeline, resolved, writer, command, place)
    with writer(command.out, len(request.conditions) * request.num) as whole:
        _draw_and_write(pipeline, resolved, whole, command)
    return whole.grid


def _draw_part(
    pipeline: "Pipeline",
    resolved: "ResolvedRequest",
    writer: Callable[[Path, int], SampleWriter],
    command: Command,
    place: Place,
) -> Path | None:
    """Draws what is this process's part, and puts all parts together if it is the last to end."""
    from ldm_jax.generation.pipeline import shares

    pictures, index = shares(resolved.plan, place.count), place.index
    folder = SharedFolder(command.out, resolved.request, pictures)
    if not pictures[index]:
        _say(f"note: other processes draw all of the batches; process {index} has none")
        return None
    if folder.has(index):
        _say(f"note: the part of process {index} is drawn already")
    else:
        folder.clear(index)
        with writer(folder.part(index), pictures[index]) as own:
            _draw_and_write(pipeline, resolved, own, command, share=(index, place.count))
    with folder.alone(index) as alone:
        if alone and (left := folder.left()):
            _say(f"note: {left} other processes draw still; the last one writes {command.out}")
            return None
        if alone:
            with writer(command.out, sum(pictures)) as whole:
                folder.put_together(whole)
            folder.remove_parts()
    return command.out / GRID


def _draw_and_write(
    pipeline: "Pipeline",
    resolved: "ResolvedRequest",
    writer: SampleWriter,
    command: Command,
    brief: bool = False,
    share: tuple[int, int] = (0, 1),
) -> list[Path]:
    """Draws under a bar of steps and pictures, which `brief` is as in `Progress`, and writes each
    picture as soon as it is drawn; returns their paths. `share` is as in `Pipeline.watch`."""
    from ldm_jax.core.progress import Progress
    from ldm_jax.generation.pipeline import Drawn

    paths: list[Path] = []
    events = pipeline.watch(resolved.plan, previews=command.progress_strip or 0, share=share)
    first = next(events)
    per_step = first.pictures / max(1, first.steps)
    bar = Progress("sampling", first.steps, images=per_step, brief=brief)
    with bar, contextlib.ExitStack() as compiling:
        for event in itertools.chain([first], events):
            compiling.close()
            if isinstance(event, Drawn):
                paths += _write(event, resolved, writer, command)
                bar.update(0, images=len(paths))
                continue
            bar.update(event.steps_done - bar.done, images=len(paths))
            if event.stage == "compiling":
                compiling.enter_context(bar.waiting("compiling"))
    return paths


def _write(
    drawn: "Drawn", resolved: "ResolvedRequest", writer: SampleWriter, command: Command
) -> list[Path]:
    import numpy as np

    paths = []
    for i, (row, image) in enumerate(zip(drawn.rows, drawn.images, strict=True)):
        place, number = divmod(int(row), resolved.request.num)
        seen = drawn.previews
        if seen is not None:
            seen = np.stack([resolved.paste(preview) for preview in seen[i]])
        paths.append(writer.write(resolved.paste(image), place, number, seen, command.video))
    return paths


def interact(command: Command) -> Path | None:
    """Draws what lines of the standard input ask for; returns the path of the grid, or None where
    nothing was drawn."""
    check(command)
    _check_files(command)

    from ldm_jax.cli import sample_interactive
    from ldm_jax.generation.pipeline import versions
    from ldm_jax.generation.resolve import resolve_request, with_own_batch

    pipeline = open_pipeline(command.request.model, optional=command.of_picture)

    def resolve(request: Request) -> "ResolvedRequest":
        return resolve_request(pipeline, with_own_batch(pipeline, request))

    resolve(replace(command.request, prompt=(), negative_prompt=None))
    writer = SampleWriter(
        command.out, command.request, None, origin=pipeline.origin, versions=versions()
    )

    def draw(resolved: "ResolvedRequest") -> list[str]:
        writer.turn_to(resolved.request, resolved.filled, resolved.hashes)
        paths = _draw_and_write(pipeline, resolved, writer, command, brief=True)
        return [str(path) for path in paths]

    with writer:
        session = sample_interactive.Session(command.request, resolve, draw)
        sample_interactive.run(session, sample_interactive.lines())
    return writer.grid if writer.count else None


def _check_files(command: Command, own: Collection[str] = (), stored: bool = False) -> None:
    """Refuses, before JAX starts, a folder that cannot be written into and models that are not
    there. `own` and `stored` are as in `check_folder`."""
    check_folder(command.out, command.overwrite, inputs(command), own, stored)
    for name in ("model", "vae", "text_encoder", "weak_model", "classifier"):
        path = getattr(command.request.model, name)
        if path is not None:
            check_model(str(path), name)
    for name in WITH_STRENGTH:
        for one in getattr(command.request.model, name):
            _check_adapter(name, LoraChoice.parse(one).file)
    for one in command.request.model.control:
        _check_adapter("control", ControlChoice.parse(one).file)
    for one in command.request.model.embeddings:
        _check_adapter("embeddings", as_path(one))
    for name, what in (
        ("lora_dir", "adapters"), ("hypernetwork_dir", "hypernetworks"),
        ("embeddings_dir", "embeddings"),
    ):  # fmt: skip
        folder = getattr(command.request.model, name)
        if folder is not None and not folder.is_dir():
            raise ConfigError(f"{name} is {folder}, which is no folder; name one with {what}")


def _check_adapter(name: str, path: Path) -> None:
    """Raises ConfigError for an adapter, which the option `name` names, that is not there."""
    if path.exists():
        return
    before, _, last = str(path).rpartition(":")
    hint = ""
    if before:
        more = "there are two strengths at most, FILE:TE:UNET"
        hint = f", and {more if is_strength(last) else f'{last!r} is no strength'}"
    raise ConfigError(f"{name} is {path}; there is no such file or folder{hint}")


def invert(command: Command) -> Path:
    """Writes the noise of a picture; returns the path of the file."""
    check(command)
    _check_files(command, ("noise.npy",))

    import io

    import numpy as np

    from ldm_jax.core.files import write_atomically
    from ldm_jax.generation.resolve import read_inverted

    pipeline = open_pipeline(command.request.model, optional=command.of_picture)
    sampling, images = read_inverted(pipeline, command.request, command.invert)
    request = command.request
    noise = pipeline.invert(
        images, request.conditions, sampling=sampling, unknown_words=request.unknown_words
    )
    command.out.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    np.save(content, noise)
    write_atomically(command.out / "noise.npy", content.getvalue())
    return command.out / "noise.npy"


def benchmark(command: Command) -> Path:
    """Times and hashes samples; returns the path of the record."""
    check(command)
    _check_files(command, ("record.json", "record.npz"))

    from ldm_jax.evaluation import repeatability

    pipeline = open_pipeline(command.request.model, optional=command.of_picture)
    requests = repeatability.usual_requests(pipeline.config, command.request)
    record = command.out / "record.json"
    command.out.mkdir(parents=True, exist_ok=True)
    for line in repeatability.benchmark(pipeline, record, requests):
        print(line, flush=True)
    return record


def verify(command: Command) -> bool:
    """Draws the samples of a record again and says what came of it; whether all are bit-equal."""
    from ldm_jax.evaluation import repeatability

    check(command)
    record = repeatability.read(command.verify)
    chosen = record.requests[0].model
    # The record says which model; what the command line says of it goes before that.
    named, neutral = vars(command.request.model), vars(ModelChoice())
    changes = {name: value for name, value in named.items() if value != neutral[name]}
    for name, path in inputs(replace(command, request=record.requests[0], verify=None)):
        if name not in changes:
            _say(f"{command.verify} names --{name}={path}, which is read")
    equal = True
    pipeline = open_pipeline(replace(chosen, **changes))
    for same, line in repeatability.verify(pipeline, record):
        equal &= same
        print(line, flush=True)
    return equal


def open_pipeline(choice: ModelChoice, optional: Collection[str] = ()) -> "Pipeline":
    """The model; says what its importer notes. `optional` is as in `Pipeline`."""
    from ldm_jax.generation.pipeline import Pipeline

    pipeline = Pipeline.open(choice, optional)
    for note in pipeline.notes:
        _say(f"note: {note}")
    return pipeline


def _say(text: str) -> None:
    print(f"{PROGRAM}: {printable(text)}", file=sys.stderr, flush=True)
