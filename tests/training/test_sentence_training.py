"""A frozen sentence encoder: captions that it read before, training from its states, drawing."""

import dataclasses

import jax
import numpy as np
import sentence_files
import tiny

from ldm_jax import config as cfg
from ldm_jax.convert.loading import load, read_text_encoder
from ldm_jax.convert.parts import read_first_stage
from ldm_jax.data.sources import open_source
from ldm_jax.generation import encoding
from ldm_jax.generation.caption_encoder import CaptionEncoder
from ldm_jax.generation.pipeline import Pipeline


def test_from_a_folder_of_transformers_to_drawings(pictures, trained_autoencoder, tmp_path):
    data = tiny.data(pictures, validation=0.0)
    words = {word for caption in open_source(data, "train").captions() for word in caption.split()}
    folder = sentence_files.write(tmp_path / "bert", sorted(words))
    storage = encoding.Storage(dtype="float32", shard_size=48, batch_size=16)
    stage, captions = read_first_stage(trained_autoencoder), CaptionEncoder.read(str(folder))
    encoding.encode_split(
        stage, data, open_source(data, "train"), tmp_path / "latents/train", storage,
        encoding.Encoder(stage, storage, captions),
    )  # fmt: skip
    text = dataclasses.replace(read_text_encoder(folder, "")[0], dropout=0.5)
    loop = dataclasses.replace(tiny.LOOP, steps=4, checkpoint_every=4, sample_every=0)
    run = tiny.diffusion_run(
        pictures, data=cfg.Data(cfg.EncodedLatents(str(tmp_path / "latents")), 16, 16),
        conditioners=(text,), train=("unet",), loop=loop,
    )  # fmt: skip
    state = tiny.fit(run, tmp_path / "run", first_stage=trained_autoencoder, text_encoder=folder)
    assert state.params.keys() == {"unet"} and "add_embedding" in state.params["unet"]
    losses = list(tiny.losses(tmp_path / "run").values())
    assert len(losses) == 4 and np.isfinite(losses).all()
    kept = load(tmp_path / "run").params["conditioners"]["text_encoder"]
    tiny.same_bits(jax.device_get(kept), captions.params)
    images = Pipeline(tmp_path / "run").generate(
        ["a red three alone", "a blue seven alone"],
        sampling=cfg.Sampling(steps=2, guidance_scale=2.0),
    )  # fmt: skip
    assert images.shape == (2, 16, 16, 3) and (images[0] != images[1]).any()
