"""Runs so small that tests can afford them, and the command lines as processes."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ldm_jax import config as cfg
from ldm_jax.data import digit_scenes

ROOT = Path(__file__).parents[1]
PATIENCE = 400
"""Seconds that a process may take; machines are busy at times."""

ENCODER = cfg.TextTransformer(
    vocab_size=64, max_length=16, width=16, layers=1, num_heads=2, pooled_dim=16
)
CAPTION_MAP = cfg.CaptionMapConditioner(size=8, channels=4, width=32)
AUTOENCODER = cfg.Autoencoder(
    block_out_channels=(8,), layers_per_block=1, norm_num_groups=4, mid_attention=False,
    patch_size=2,
)  # fmt: skip
UNET = cfg.UNet(
    block_out_channels=(16,), layers_per_block=1, attention=(True,), num_heads=(2,),
    norm_num_groups=4,
)  # fmt: skip
LOOP = cfg.Loop(
    steps=24, log_every=1, checkpoint_every=4, validate_every=8, validation_batches=1,
    sample_every=24,
)  # fmt: skip


def write_pictures(folder: Path, count: int = 48) -> Path:
    """Scenes of DigitScenes as PNG files in one folder for each first digit, with captions."""
    for i in range(count):
        scene = digit_scenes.example("train", i, 16)
        path = folder / digit_scenes.DIGITS[scene["label"]] / f"{i:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(scene["image"]).save(path)
        path.with_suffix(".txt").write_text(scene["caption"])
    return folder


def write_annotations(folder: Path, count: int = 48) -> Path:
    """Of `write_pictures`, in another folder: class maps in `maps`, which also serve as depth maps,
    negatives in `edits`, as pictures to edit, and `boxes.jsonl`."""
    lines = []
    for i in range(count):
        scene = digit_scenes.example("train", i, 16)
        name = f"{digit_scenes.DIGITS[scene['label']]}/{i:03d}.png"
        path = folder / "maps" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(scene["class_map"]).save(path)
        path = folder / "edits" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(255 - scene["image"]).save(path)
        objects = zip(scene["classes"], scene["boxes"].tolist(), strict=True)
        boxes = [{"class": digit_scenes.DIGITS[c], "box": box} for c, box in objects]
        lines.append(json.dumps({"file_name": name, "boxes": boxes}))
    (folder / "boxes.jsonl").write_text("\n".join(lines))
    return folder


def annotated(data: cfg.Data, annotations: Path) -> cfg.Data:
    """The pictures of `data` with what `write_annotations` wrote of them."""
    source = replace(
        data.source, boxes=str(annotations / "boxes.jsonl"), box_classes=digit_scenes.DIGITS,
        class_maps=str(annotations / "maps"), edit_images=str(annotations / "edits"),
        depth_maps=str(annotations / "maps"),
    )  # fmt: skip
    return replace(data, source=source)


def data(folder: Path, validation: float = 0.2) -> cfg.Data:
    source = cfg.ImageFolder(path=str(folder), validation_fraction=validation)
    return cfg.Data(source=source, image_size=16, batch_size=16)


def autoencoder_run(folder: Path, **changes: Any) -> cfg.AutoencoderRun:
    optim = cfg.Optim(learning_rate=1e-3, ema_decay=0.99)
    return replace(cfg.AutoencoderRun(data(folder), AUTOENCODER, optim=optim, loop=LOOP), **changes)


def diffusion_run(folder: Path, **changes: Any) -> cfg.DiffusionRun:
    run = cfg.DiffusionRun(
        data(folder), UNET, (cfg.TextConditioner(ENCODER),),
        cfg.Diffusion(cfg.Discrete(num_timesteps=100, schedule="cosine"), prediction="v"),
        cfg.Optim(learning_rate=1e-3, ema_decay=0.99), LOOP,
    )  # fmt: skip
    return replace(run, **changes)


def write_config(path: Path, run: cfg.Run) -> Path:
    """A config file for `train.py` that defines `run`."""
    path.write_text(
        "from ldm_jax import config\n\n\ndef get_config():\n"
        f"    return config.from_json({cfg.to_json(run)!r})\n"
    )
    return path


def filled(shapes: Any) -> Any:
    """A tree of those shapes for which nothing is compiled: small numbers where it has
    parameters, zeros for counters and for what an optimiser keeps."""
    import jax

    random = np.random.default_rng(0)

    def fill(path: Any, leaf: Any) -> Any:
        name = jax.tree_util.keystr(path)
        params = jax.numpy.issubdtype(leaf.dtype, np.floating) and "opt_state" not in name
        values = 0.1 * random.standard_normal(leaf.shape) if params else np.zeros(leaf.shape)
        return jax.numpy.asarray(values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)


def mesh():
    """One of the devices."""
    import jax

    from ldm_jax.core.sharding import make_mesh

    return make_mesh(cfg.Mesh(), jax.devices()[:1])


def fit(
    run: cfg.Run,
    workdir: Path,
    *,
    first_stage: Path | None = None,
    init: Path | None = None,
    condition_stage: Path | None = None,
    text_encoder: Path | None = None,
    alone: bool = True,
) -> Any:
    """Trains `run` in this process, as `train.py` does: on one of its devices, for which a program
    is compiled in half the time, or on all."""
    import pytest

    from ldm_jax.cli.train import make_judge, make_stage
    from ldm_jax.training import loop

    paths = {
        "first_stage": first_stage, "init": init, "condition_stage": condition_stage,
        "text_encoder": text_encoder,
    }  # fmt: skip
    models = {name: None if path is None else str(path) for name, path in paths.items()}
    with pytest.MonkeyPatch.context() as patch:
        if alone:
            patch.setattr(loop, "make_mesh", lambda config: mesh())
        return loop.fit(
            run, workdir, lambda mesh: make_stage(run, workdir, mesh, **models),
            judge=make_judge(run, workdir),
        )  # fmt: skip


# -------------------------------------------------------------------------------- command lines


def start(
    *command: str, devices: int = 1, programs: Path | None = None, **variables: str
) -> subprocess.Popen:
    """Starts Python with `command` on so many virtual devices, with more `variables` in its
    environment; output is piped.

    What it compiles is kept in `programs` for others, if that is given.
    """
    flags = f"--xla_force_host_platform_device_count={devices}"
    optimization = os.environ["XLA_FLAGS"].split(maxsplit=1)[1]
    environment = (
        os.environ
        | {
            "XLA_FLAGS": f"{flags} {optimization}",
            "PYTHONPATH": str(ROOT),
        }
        | variables
    )
    if programs is not None:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(programs)
    return subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def train(
    config: Path, workdir: Path, *options: str, devices: int = 1, programs: Path, **variables: str
) -> subprocess.Popen:
    """`train.py` as a process."""
    places = (f"--config={config}", f"--workdir={workdir}")
    return start("train.py", *places, *options, devices=devices, programs=programs, **variables)


def finish(process: subprocess.Popen) -> tuple[int, str]:
    """Exit status and all output of a process."""
    try:
        output, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()  # else a later test is told of it
    return process.returncode, output


def check(process: subprocess.Popen, status: int = 0) -> str:
    """The output of a process that must end with `status`."""
    found, output = finish(process)
    assert found == status, f"exit status {found} instead of {status}:\n{output}"
    return output


def wait_for_step(workdir: Path, step: int, process: subprocess.Popen) -> None:
    """Returns once the metrics of `step` are written, or of a later one."""
    deadline = time.monotonic() + PATIENCE
    while max(losses(workdir), default=0) < step:
        assert process.poll() is None, f"ended before step {step}:\n{finish(process)[1]}"
        assert time.monotonic() < deadline, f"step {step} was not reached in {PATIENCE} s"
        time.sleep(0.002)


# ------------------------------------------------------------------------------------- results


def losses(workdir: Path, name: str = "loss") -> dict[int, float]:
    """Step → loss, as `workdir`'s metrics have it; a line that is being written does not count."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return {record["step"]: record[name] for record in records if name in record}


def trained_alike(one: tuple[Path, Any], other: tuple[Path, Any], rate: float) -> None:
    """Asserts that two runs, each a work directory and its last state, differ by rounding alone.

    They add up the same gradients in another order, an error of some 1e-7 in float32. Adam divides
    each gradient by its own size, so that what is next to nothing, and mostly rounding, moves a
    parameter as well: by less than a tenth of the learning `rate`.
    """
    import pytest

    from ldm_jax.core.tree import flatten

    for name in ("loss", "gradient_norm"):
        found, expected = losses(one[0], name), losses(other[0], name)
        assert len(found) > 1 and found == pytest.approx(expected, rel=1e-5), name
    expected = flatten(other[1].params)
    for path, leaf in flatten(one[1].params).items():
        np.testing.assert_allclose(leaf, expected[path], atol=0.1 * rate, err_msg=path)


def leaves(tree: Any) -> list[np.ndarray]:
    """The arrays of a tree, as NumPy has them."""
    import jax

    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def same_bits(a: Any, b: Any) -> None:
    """Asserts that two trees have the same arrays, bit for bit."""
    import jax

    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert x.dtype == y.dtype and x.tobytes() == y.tobytes(), jax.tree_util.keystr(path)
