"""Bottlenecks in configs: JSON there and back, the command line, what is refused."""

import dataclasses

import pytest
import tiny
import tyro

from ldm_jax import config as cfg

KINDS = [
    cfg.KL(), cfg.VQ(16, ema_decay=0.99, revive_after=20), cfg.VQ(16, weighting="legacy"),
    cfg.Gumbel(8, temperature=0.5), cfg.FSQ((5, 4, 3, 3)), cfg.LFQ(entropy_weight=0.2),
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_json_gives_every_kind_back(kind):
    config = dataclasses.replace(tiny.AUTOENCODER, bottleneck=kind)
    assert cfg.from_json(cfg.to_json(config)) == config
    unet = dataclasses.replace(tiny.UNET, in_channels=3, out_channels=3, context_dim=16)
    classes = cfg.ClassConditioner(context_dim=16)
    model = cfg.Model(cfg.Pixels(), unet, conditioners=(classes,), image_size=16)
    assert cfg.from_json(cfg.to_json(model)) == model


def test_codes_and_channels_follow_the_kind():
    wanted = [None, 16, 16, 8, 180, 16]
    configs = [dataclasses.replace(tiny.AUTOENCODER, bottleneck=kind) for kind in KINDS]
    assert [config.codes for config in configs] == wanted
    assert [config.encoded_channels for config in configs] == [8, 4, 4, 4, 4, 4]


def test_the_command_line_sets_fields_of_the_kind_or_another_kind():
    vq = dataclasses.replace(tiny.AUTOENCODER, bottleneck=cfg.VQ(16))
    fields = tyro.cli(
        tyro.conf.AvoidSubcommands[cfg.Autoencoder], default=vq,
        args=["--bottleneck.size=8", "--bottleneck.weighting=legacy"],
    )  # fmt: skip
    assert fields.bottleneck == cfg.VQ(8, weighting="legacy")
    other = tyro.cli(
        cfg.Autoencoder, default=vq, args=["bottleneck:fsq", "--bottleneck.levels", *"3333"]
    )
    assert other.bottleneck == cfg.FSQ((3, 3, 3, 3))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: cfg.VQ(0), "VQ.size is 0; it must be a whole number of at least 1"),
        (lambda: cfg.VQ(ema_decay=1.0), "VQ.ema_decay is 1.0; .* of at least 0 and below 1"),
        (lambda: cfg.VQ(ema_decay=0.9, weighting="legacy"), "VQ.weighting is 'legacy'; it must be"),
        (lambda: cfg.VQ(revive_after=0), "VQ.revive_after is 0; it must be None or a whole"),
        (lambda: cfg.Gumbel(temperature=0.0), "Gumbel.temperature is 0.0"),
        (lambda: cfg.FSQ((8, 1)), r"FSQ.levels is \(8, 1\); .* each entry a whole number of at"),
        (lambda: cfg.FSQ((2048,) * 3), "FSQ.levels is .* of a product below"),
        (lambda: cfg.LFQ(beta=-1.0), "LFQ.beta is -1.0; it must be a number of at least 0"),
        (lambda: cfg.Autoencoder(bottleneck=cfg.FSQ((8, 5))), "bottleneck.levels .* 4 entries"),
        (lambda: cfg.Autoencoder(latent_channels=31, bottleneck=cfg.LFQ()), "below 31 with LFQ"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_by_name(make, complaint):
    with pytest.raises(cfg.ConfigError, match=complaint):
        make()


def test_an_old_config_is_refused_with_the_fields_that_there_are():
    text = cfg.to_json(tiny.AUTOENCODER).replace('"image_channels"', '"codebook_size"')
    with pytest.raises(cfg.ConfigError, match="codebook_size is no field of .*bottleneck"):
        cfg.from_json(text)
