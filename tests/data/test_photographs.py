"""The photographs of scikit-learn as a folder to train from."""

from dataclasses import replace

import numpy as np
import tiny

from ldm_jax import config as cfg
from ldm_jax.data import photographs
from ldm_jax.data.sources import open_source


def test_tiles_make_a_folder_with_validation(tmp_path, capsys):
    from sklearn.datasets import load_sample_images

    assert photographs.main([f"--out={tmp_path / 'tiles'}"]) == 0
    assert "96 tiles" in capsys.readouterr().out
    run = cfg.load(tiny.ROOT / "configs" / "photographs_kl_f4.py")
    folder = replace(run.data.source, path=str(tmp_path / "tiles"))
    train, held_out = (
        open_source(replace(run.data, source=folder), split) for split in ("train", "validation")
    )
    # Enough for more than one batch, of both photographs, and nothing in both splits.
    assert len(train) + len(held_out) == 96 and len(held_out) >= 2 * run.data.batch_size
    assert {name.split("_")[0] for name in held_out.names()} == {"china", "flower"}
    sizes = {example["image"].shape for example in (held_out[i] for i in range(len(held_out)))}
    assert min(min(shape[:2]) for shape in sizes) >= run.data.image_size

    # Together the tiles are the photographs.
    pixels = sum(tile.astype(int).sum() for _, tile in photographs.tiles())
    assert pixels == sum(np.sum(image, dtype=int) for image in load_sample_images().images)
