"""Settings of diffusers' folders that say what is meant in another way, or that its constructors
override."""

import json
from pathlib import Path

import convert_models as small
import pytest

from ldm_jax import config as cfg
from ldm_jax.convert.diffusers import architectures
from ldm_jax.convert.diffusers.pipeline_folders import read_folder, write_folder
from ldm_jax.convert.diffusers.schedulers import LATENT, STABLE, STABLE_INPAINTING, read_scheduler
from ldm_jax.convert.fields import Fields
from ldm_jax.convert.imported_model import ConvertError

SD1 = small.MODELS["sd1"]


@pytest.fixture
def saved(tmp_path):
    """A folder of the small SD 1, and a function that changes a value of one of its files."""
    folder = tmp_path / "saved"
    write_folder(small.model("sd1", small.make_tokenizer(tmp_path / "source")), folder)

    def change(file, **values):
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
        return folder

    return change


def scheduler(pipeline=STABLE, name="DDIMScheduler", **values):
    return read_scheduler(
        Fields(Path("scheduler_config.json"), {"_class_name": name} | values), pipeline
    )


class TestOverrides:
    def test_steps_offset(self):
        """diffusers' Stable Diffusion pipelines take 1, whatever the file says."""
        for pipeline in (STABLE, STABLE_INPAINTING):
            for offset in (0, 5):
                config, notes = scheduler(pipeline, clip_sample=False, steps_offset=offset)
                assert config.steps_offset == 1
                assert notes == (f"the scheduler's steps_offset is {offset}; diffusers' pipeline "
                                 "takes 1, as is done here",)  # fmt: skip
        assert scheduler(clip_sample=False, steps_offset=1)[1] == ()
        assert scheduler(name="EulerDiscreteScheduler")[1] == ()
        for offset in (0, 1, 5):
            config, notes = scheduler(LATENT, clip_sample=False, steps_offset=offset)
            assert (config.steps_offset, notes) == (offset, ())
        with pytest.raises(ConvertError, match="steps_offset is -1; it must be a timestep, 0 or"):
            scheduler(LATENT, clip_sample=False, steps_offset=-1)

    def test_clip_sample(self):
        """It is overridden for Stable Diffusion but not for its inpainting; few classes have it."""
        _, notes = scheduler(steps_offset=1, clip_sample=True)
        assert "diffusers' pipeline does not clip" in notes[0]
        assert scheduler(steps_offset=1)[1] == notes
        assert scheduler(LATENT, "PNDMScheduler", steps_offset=1, clip_sample=True)[1] == ()
        for pipeline in (LATENT, STABLE_INPAINTING):
            with pytest.raises(ConvertError, match="clip_sample is .*no sampler here clips"):
                scheduler(pipeline, steps_offset=1)

    @pytest.mark.parametrize(
        ("version", "side", "size"),
        [("0.6.0", 32, 128), ("0.8.1", 8, 128), ("0.9.0", 32, 64), ("0.9.0.dev0", 32, 64),
         ("0.42.1", 8, 16), ("0.6.0", 96, 192)],
    )  # fmt: skip
    def test_small_pictures_of_old_files(self, saved, version, side, size):
        folder = saved("unet/config.json", _diffusers_version=version, sample_size=side)
        imported = read_folder(folder)
        assert imported.config.image_size == size
        assert bool(imported.notes) == (size == 128)


class TestOtherWays:
    def test_of_the_u_net(self, saved):
        averages = {
            "decay": 0.9999, "min_decay": 0.0, "optimization_step": 875000, "power": 0.6667,
            "update_after_step": 0, "use_ema_warmup": False, "inv_gamma": 1.0,
        }  # fmt: skip
        folder = saved(
            "unet/config.json", act_fn="swish", only_cross_attention=[False, False], **averages
        )
        saved("vae/config.json", act_fn="swish")
        assert read_folder(folder).config == SD1
        with pytest.raises(ConvertError, match="mid_block_only_cross_attention is"):
            read_folder(saved("unet/config.json", only_cross_attention=True))

    @pytest.mark.parametrize(
        ("side", "size", "words"),
        [([8, 8], 16, None), ([12, 8], (24, 16), None), (None, 48, "as its first stage"),
         (9, 18, None)],
    )  # fmt: skip
    def test_sizes(self, saved, tmp_path, side, size, words):
        folder = saved("unet/config.json", sample_size=side)
        saved("vae/config.json", sample_size=48)
        imported = read_folder(folder)
        assert imported.config.image_size == size
        assert [words in note for note in imported.notes] == [True] * (words is not None)
        write_folder(imported, tmp_path / "again")
        assert read_folder(tmp_path / "again").config == imported.config

    def test_no_size_at_all(self, saved):
        folder = saved("unet/config.json", sample_size=None)
        saved("vae/config.json", sample_size=None)
        imported = read_folder(folder)
        assert imported.config.image_size == 128
        assert "as Stable Diffusion has" in imported.notes[0]

    def test_heads_of_levels_without_attention(self, tmp_path):
        """Heads divide the width of levels that have any, the coarsest in the middle block."""
        wide = cfg.UNet(
            in_channels=4, out_channels=4,
            block_out_channels=(32, 96, 64), layers_per_block=1, attention=(True, False, False),
            num_heads=(4, 4, 4), context_dim=64,
        )  # fmt: skip
        values = architectures.write_unet(wide, 8) | {"attention_head_dim": [4, 5, 4]}
        assert architectures.read_unet(Fields(Path("x"), values)).num_heads == (4, 1, 4)
        values["attention_head_dim"] = [5, 4, 4]
        with pytest.raises(cfg.ConfigError, match="num_heads"):
            architectures.read_unet(Fields(Path("x"), values))
        plain = cfg.UNet(
            in_channels=4, out_channels=4,
            block_out_channels=(32, 48, 64), layers_per_block=1, attention=(True, False, False),
            attention_kind="plain", num_heads=(1, 1, 2), context_dim=None, norm_num_groups=16,
        )  # fmt: skip
        values = architectures.write_unet(plain, 8)
        assert values["attention_head_dim"] == 32
        assert architectures.read_unet(Fields(Path("x"), values)) == plain

    @pytest.mark.parametrize("name", ["LCMScheduler", "DPMSolverSDEScheduler", "TCDScheduler"])
    def test_schedulers(self, saved, name):
        folder = saved(
            "scheduler/scheduler_config.json", _class_name=name, noise_sampler_seed=3,
            original_inference_steps=50, timestep_scaling=10.0,
        )  # fmt: skip
        assert read_folder(folder).config == SD1
