"""Models that are shown more beside their latents than those that they begin with."""

from dataclasses import replace

import convert_models as small
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ldm_jax import config as cfg
from ldm_jax import latent_diffusion as ldm
from ldm_jax.config.model import fit_unet
from ldm_jax.config.published_models import MODELS
from ldm_jax.convert import imported_model
from ldm_jax.convert.native import write_native
from ldm_jax.convert.parts import initial_params
from ldm_jax.convert.widening import narrowed
from ldm_jax.models.build import build_unet
from ldm_jax.models.conditioners import Condition

TEXT = cfg.TextConditioner(tiny.ENCODER)
MAP = cfg.CaptionMapConditioner(size=8, channels=2, width=8)
CLASS_MAP = small.TASKS["class map"].conditioners[0]
INPAINTING = cfg.InpaintingConditioner("latent_diffusion")
RNG = np.random.default_rng(0)


def model(*conditioners, **unet):
    kind = "transformer" if TEXT in conditioners else "plain"
    fitted = fit_unet(replace(tiny.UNET, attention_kind=kind, **unet), conditioners, 4, False)
    return cfg.Model(small.AUTOENCODER, fitted, conditioners, small.PROCESS, 16)


def write(config, path):
    imported = imported_model.make(config, small.numbers(config))
    write_native(imported, path)
    return imported


@pytest.mark.parametrize(
    ("before", "after", "patch_size"),
    [
        ((), (cfg.InpaintingConditioner(),), 1),
        ((MAP,), (INPAINTING, MAP, cfg.LowResConditioner()), 2),
        ((CLASS_MAP,), (cfg.LowResConditioner(), CLASS_MAP), 1),
    ],
)
def test_the_output_stays_whatever_is_shown_beside(before, after, patch_size, tmp_path):
    """The tolerance is float32's rounding: with zeros among them, sums are taken in other order."""
    texts = (TEXT,) if MAP in before else ()
    narrow, wide = (model(*texts, *parts, patch_size=patch_size) for parts in (before, after))
    imported = write(narrow, tmp_path / "model")
    found = initial_params(tmp_path / "model", wide)
    assert "for" in found.widening
    tiny.same_bits(found.params["conditioners"], imported.params["conditioners"])

    shown = {
        part.name: Condition(
            concat=jnp.asarray(50 * RNG.standard_normal((2, 8, 8, part.slots(4).concat)), "float32")
        )
        for part in after
    }
    states = jnp.asarray(RNG.standard_normal((2, 3, 16)), jnp.float32)
    base = Condition(states, states[:, 0]) if texts else Condition()
    x, t = jnp.asarray(RNG.standard_normal((2, 8, 8, 4)), jnp.float32), jnp.asarray([3, 700])

    def output(config, params, parts):
        condition = base
        for part in parts:
            condition = condition.joined(shown[part.name])
        params = jax.tree.map(lambda leaf: 0.1 * jnp.asarray(leaf), params["unet"])
        return build_unet(config.unet).apply({"params": params}, x, t, condition)

    expected = output(narrow, imported.params, before)
    assert np.std(expected) > 0.01
    np.testing.assert_allclose(
        output(wide, found.params, after), expected, rtol=0, atol=2e-5 * np.abs(expected).max()
    )


@pytest.mark.parametrize("form", ["stable_diffusion", "latent_diffusion"])
def test_stable_diffusion_becomes_an_inpainting_model(form, tmp_path):
    """The first four inputs are the latents, as in published models of nine, whatever the form;
    with a real picture and mask the output stays."""
    imported = write(small.MODELS["sd1"], tmp_path / "model")
    parts = (small.TEXT, cfg.InpaintingConditioner(form))
    unet = replace(small.UNET, concat_channels=5)
    wide = replace(small.MODELS["sd1"], unet=unet, conditioners=parts)
    found = initial_params(tmp_path / "model", wide, "--begin")
    assert found.widening == (
        f"--begin={tmp_path / 'model'}: the U-Net's first convolution is widened from 4 to 9 input "
        "channels, for inpainting; the new ones begin at zero"
    )
    kernel = found.params["unet"]["conv_in"]["kernel"]
    np.testing.assert_array_equal(kernel[:, :, :4], imported.params["unet"]["conv_in"]["kernel"])
    assert kernel.shape[2] == 9 and not kernel[:, :, 4:].any()
    rest = found.params["unet"] | {"conv_in": None}
    tiny.same_bits(rest, imported.params["unet"] | {"conv_in": None})

    inputs = {
        "caption": jnp.ones((1, 8), jnp.int32),
        "mask": jnp.asarray(RNG.integers(0, 2, (1, 16, 16, 1)), jnp.uint8),
        "image": jnp.asarray(RNG.integers(0, 256, (1, 16, 16, 3)), jnp.uint8),
    }
    x, t = jnp.asarray(RNG.standard_normal((1, 8, 8, 4)), jnp.float32), jnp.asarray([300])

    def output(config, params):
        bundle = ldm.build(config)
        params, frozen = jax.tree.map(
            lambda leaf: 0.1 * jnp.asarray(leaf), (params, imported.frozen)
        )
        given = bundle.with_noise(inputs, 0, "test", jnp.zeros(1, jnp.uint32), (8, 8, 4))
        condition = bundle.condition(params, frozen, given)
        return bundle.network(params, x, t, condition), condition.concat

    (expected, _), (widened, beside) = (
        output(imported.config, imported.params),
        output(wide, found.params),
    )
    assert np.isfinite(beside).all() and np.std(expected) > 0.01
    np.testing.assert_allclose(widened, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_what_is_more_than_channels_beside_stays_refused(tmp_path):
    write(model(cfg.InpaintingConditioner()), tmp_path / "nine")
    write(model(), tmp_path / "four")
    noisy = cfg.NoiseAugmentation(cfg.Discrete(30, beta_start=0.01), 30)
    for path, config, complaint in (
        ("nine", model(), r"concat_channels is 5 there, 0 here; conditioners is \(Inp.*\) there"),
        ("nine", model(INPAINTING), r"conditioners\.0\.form is 'stable_diffusion' there"),
        ("four", model(cfg.LowResConditioner(noise=noisy)), "class_count is None there, 30 here"),
        ("four", model(TEXT), "attention_kind is 'plain' there.*context_dim"),
        (
            "four",
            model(cfg.InpaintingConditioner(), block_out_channels=(32,)),
            r"^--init=.*: unet\.block_out_channels\.0 is 16 there, 32 here\. Set",
        ),
    ):
        with pytest.raises(cfg.ConfigError, match=complaint):
            initial_params(tmp_path / path, config)
    # Where nothing is new, nothing is said to be.
    assert not initial_params(tmp_path / "nine", model(cfg.InpaintingConditioner())).widening


def test_published_inpainting_models_are_their_text_models_but_for_the_channels():
    for text, inpainting in (
        ("Stable Diffusion 1", "Stable Diffusion 1 inpainting"),
        ("Stable Diffusion 2 base (512, eps)", "Stable Diffusion 2 inpainting"),
    ):
        narrow = narrowed(MODELS[inpainting], MODELS[text])
        assert narrow.unet == MODELS[text].unet
        assert narrow.conditioners == MODELS[text].conditioners
