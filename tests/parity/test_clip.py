"""CLIP and DINOv2 beside transformers, live, in folders that one writes and the other reads.

Everything is float32; sums in another order make errors of some 1e-7 of embeddings of length 1, and
of some 1e-6 of states of length 1 for each number.
"""

import clip_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from torch_state import randomize  # noqa: E402
from transformers import (  # noqa: E402
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
)

from benchmarks import torchvision_python  # noqa: E402, F401
from ldm_jax import config as cfg  # noqa: E402
from ldm_jax.convert.clip.clip_folders import read_clip, read_dinov2, write_clip  # noqa: E402
from ldm_jax.evaluation.features.clip import (  # noqa: E402
    CLASS_TOKEN,
    read_clip_embedder,
    read_dinov2_extractor,
)
from ldm_jax.losses.contrastive import softmax_loss  # noqa: E402
from ldm_jax.models.clip_model import CLIP, normalised_pixels, similarities  # noqa: E402
from ldm_jax.models.dinov2 import DINOv2, interpolated_positions  # noqa: E402

# Torch and transformers warn of their own future.
pytestmark = pytest.mark.filterwarnings("default")
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
SIDE = 16
SHARED = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def clip_config(act="quick_gelu", tokens=600, end=None):
    end = tokens - 1 if end is None else end
    return CLIPConfig(
        text_config={**SHARED, "hidden_size": 24, "vocab_size": tokens, "hidden_act": act,
                     "max_position_embeddings": 12, "bos_token_id": 1, "eos_token_id": end,
                     "pad_token_id": 0},
        vision_config={**SHARED, "hidden_size": 32, "image_size": SIDE, "patch_size": 4,
                       "hidden_act": act},
        projection_dim=20,
    )  # fmt: skip


def peer(folder, **settings):
    """transformers' CLIP with random weights, saved with a tokenizer beside them."""
    clip_files.write_clip(folder)
    model = randomize(CLIPModel(clip_config(**settings)))
    model.logit_scale.data = torch.tensor(1.5)
    model.save_pretrained(folder)
    return model


def inputs(tokens=600, end=None):
    pixels = normal(0, 5, SIDE, SIDE, 3)
    ids = np.random.default_rng(1).integers(3, tokens - 1, (5, 12)).astype(np.int32)
    for row, place in enumerate((11, 4, 7, 2, 9)):
        ids[row, place:] = tokens - 1 if end is None else end
    return pixels, ids


def theirs(model, pixels, ids):
    with torch.no_grad():
        found = model(
            input_ids=torch.from_numpy(ids.astype(np.int64)),
            pixel_values=torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()),
        )
    return found


def compare(config, params, pixels, ids):
    return jax.jit(CLIP(config).apply)({"params": params}, pixels, ids)


@pytest.mark.parametrize(
    "settings", [{}, {"act": "gelu", "end": 2}, {"end": 5}], ids=["", "old", "another end"]
)
def test_embeddings_and_logits(settings, tmp_path):
    model = peer(tmp_path, **settings)
    end = settings.get("end")
    # In old files the end is where the largest token is, whatever they say.
    pixels, ids = inputs(end=None if end == 2 else end)
    ours = read_clip(tmp_path)
    assert ours.config.end_token == {None: 599, 2: None, 5: 5}[end]
    compared = compare(ours.config, ours.params, pixels, ids)
    expected = theirs(model, pixels, ids)
    np.testing.assert_allclose(compared.images, expected.image_embeds, **CLOSE)
    np.testing.assert_allclose(compared.texts, expected.text_embeds, **CLOSE)
    np.testing.assert_allclose(similarities(compared), expected.logits_per_image, **CLOSE)


def test_what_is_written_is_read_there(tmp_path):
    model = peer(tmp_path / "theirs")
    ours = read_clip(tmp_path / "theirs")
    write_clip(ours, tmp_path / "ours")
    again = CLIPModel.from_pretrained(tmp_path / "ours", local_files_only=True).eval()
    pixels, ids = inputs()
    for name in ("image_embeds", "text_embeds", "logits_per_text"):
        a, b = (getattr(theirs(one, pixels, ids), name) for one in (model, again))
        np.testing.assert_array_equal(a, b)
    assert read_clip(tmp_path / "ours").weights_sha256 == ours.weights_sha256
    tokenizer = read_clip(tmp_path / "ours").open_tokenizer()
    assert (
        tokenizer.encode(["a red cat"], 12) == ours.open_tokenizer().encode(["a red cat"], 12)
    ).all()


def test_a_pickled_file_is_the_same(tmp_path):
    model = peer(tmp_path / "safe")
    clip_files.write_clip(tmp_path / "pickled")
    model.config.save_pretrained(tmp_path / "pickled")
    torch.save(model.state_dict(), tmp_path / "pickled/pytorch_model.bin")
    found = [read_clip(tmp_path / name).weights_sha256 for name in ("safe", "pickled")]
    assert found[0] == found[1]


def test_pixels(tmp_path):
    images = np.random.default_rng(2).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    processor = CLIPImageProcessorPil(do_resize=False, do_center_crop=False)
    expected = processor(list(images), return_tensors="np")["pixel_values"]
    ours = normalised_pixels(jnp.asarray(images, jnp.float32))
    np.testing.assert_allclose(ours, expected.transpose(0, 2, 3, 1), atol=1e-6)


def test_loss_and_its_gradient(tmp_path):
    model = peer(tmp_path)
    pixels, ids = inputs()
    ours = read_clip(tmp_path)

    def loss(params):
        compared = compare(ours.config, params, pixels, ids)
        return softmax_loss(similarities(compared), jnp.eye(len(ids)))

    value, gradient = jax.value_and_grad(loss)(ours.params)
    model.requires_grad_(True)
    expected = model(
        input_ids=torch.from_numpy(ids.astype(np.int64)), return_loss=True,
        pixel_values=torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()),
    ).loss  # fmt: skip
    expected.backward()
    np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
    for name in ("text_projection", "visual_projection"):
        there = getattr(model, name).weight.grad.numpy().T
        np.testing.assert_allclose(gradient[name]["kernel"], there, atol=2e-6, rtol=1e-4)
    there = model.logit_scale.grad.item()
    np.testing.assert_allclose(gradient["logit_scale"], there, rtol=1e-4)
    there = model.vision_model.embeddings.class_embedding.grad.numpy()
    kept = gradient["vision_model"]["embeddings"]["class_embedding"]
    np.testing.assert_allclose(kept, there, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("sides", [(28, 28), (42, 28), (14, 56)], ids=str)
def test_dinov2(sides, tmp_path):
    settings = Dinov2Config(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=7
    )
    model = randomize(Dinov2Model(settings))
    model.save_pretrained(tmp_path)
    ours = read_dinov2(tmp_path)
    assert ours.config == cfg.DINOv2(28, 7, 24, 2, 2, 96)
    pixels = normal(3, 2, *sides, 3)
    with torch.no_grad():
        expected = model(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())).pooler_output
    found = jax.jit(DINOv2(ours.config).apply)({"params": ours.params}, pixels)
    np.testing.assert_allclose(found, expected, **CLOSE)


def test_positions_as_the_authors_interpolate_them():
    table, old, new = normal(4, 37 * 37, 5), 37, 16
    grid = torch.from_numpy(table).reshape(1, old, old, 5).permute(0, 3, 1, 2)
    scale = (new + 0.1) / old
    expected = torch.nn.functional.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
    expected = expected.permute(0, 2, 3, 1).reshape(-1, 5).numpy()
    found = interpolated_positions(jnp.asarray(table), old, (new, new), 0.1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_embedder(tmp_path):
    """From files, and pictures of any size, as transformers' processor and model make them."""
    # The end token of the tokenizer beside the weights.
    model = peer(tmp_path, end=521)
    images = np.random.default_rng(5).integers(0, 256, (3, 40, 24, 3), dtype=np.uint8)
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    pixels = processor(list(images), return_tensors="pt")["pixel_values"]
    embedder = read_clip_embedder(tmp_path, batch_size=2)
    with torch.no_grad():
        expected = model.get_image_features(pixel_values=pixels).pooler_output
    expected = expected / expected.norm(dim=-1, keepdim=True)
    np.testing.assert_allclose(embedder.images(images), expected, atol=1e-5)
    texts = ["a red cat", "three red"]
    ids = embedder.clip.open_tokenizer().encode(texts, 12)
    expected = theirs(model, inputs()[0][:2], ids).text_embeds
    np.testing.assert_allclose(embedder.texts(texts), expected, atol=1e-5)


def test_dinov2_features(tmp_path):
    settings = Dinov2Config(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=224, patch_size=56
    )
    model = randomize(Dinov2Model(settings))
    model.save_pretrained(tmp_path)
    images = np.random.default_rng(6).integers(0, 256, (3, 40, 24, 3), dtype=np.uint8)
    squeezed = [
        np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC))
        for image in images
    ]
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    pixels = ((np.stack(squeezed) / 255 - mean) / deviation).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())).pooler_output
    found = read_dinov2_extractor(tmp_path, batch_size=2).features(images)
    np.testing.assert_allclose(found[CLASS_TOKEN], expected, atol=1e-4)
