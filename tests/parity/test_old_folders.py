"""What diffusers' constructors and classes make of a folder's settings, and what is made of them
here."""

import inspect
import json
import os

import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from tiny_pipelines import stable  # noqa: E402

from ldm_jax.convert.diffusers import schedulers  # noqa: E402
from ldm_jax.convert.diffusers.pipeline_folders import read_folder  # noqa: E402
from ldm_jax.convert.imported_model import ConvertError  # noqa: E402

os.environ["HF_HUB_OFFLINE"] = "1"
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.mark.parametrize("name", schedulers.SCHEDULERS)
def test_defaults_are_those_of_the_classes(name):
    cls = getattr(diffusers, name)
    given = inspect.signature(cls.__init__).parameters
    if "beta_start" not in given:
        pytest.skip(f"{name} needs a package that is not installed")
    defaults = schedulers.SCHEDULERS[name]
    for field in ("timestep_spacing", "set_alpha_to_one", "clip_sample", "beta_schedule",
                  "beta_start", "beta_end"):  # fmt: skip
        theirs = given[field].default if field in given else None
        assert getattr(defaults, field) == theirs, field


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    stable(folder, "sd1").save_pretrained(folder / "model")
    return folder / "model"


def changed(folder, file, **values):
    path = folder / file
    found = {n: v for n, v in json.loads(path.read_text()).items() if n not in values}
    path.write_text(json.dumps(found | {n: v for n, v in values.items() if v is not None}))


@pytest.mark.parametrize(
    ("version", "side"), [("0.6.0", 32), ("0.8.9", 63), ("0.9.0", 32), ("0.6.0", 64), (None, 32)]
)
def test_size_and_scheduler_of_an_old_folder(saved, version, side):
    changed(saved, "unet/config.json", _diffusers_version=version, sample_size=side)
    changed(
        saved, "scheduler/scheduler_config.json", _class_name="DDIMScheduler", steps_offset=None,
        clip_sample=None,
    )  # fmt: skip
    peer = diffusers.StableDiffusionPipeline.from_pretrained(saved, safety_checker=None)
    assert (peer.scheduler.config.steps_offset, peer.scheduler.config.clip_sample) == (1, False)
    ours = read_folder(saved)
    assert ours.config.image_size == peer.unet.config.sample_size * peer.vae_scale_factor
    assert ours.config.diffusion.spacing == "leading"
    said = " ".join(ours.notes)
    assert ours.config.diffusion.steps_offset == 1
    assert "steps_offset is 0" in said and "clip_sample is true" in said
    assert ("older than diffusers 0.9.0" in said) == (ours.config.image_size != 2 * side)


def test_inpainting_clips_in_the_peer(saved):
    """Its constructor leaves clip_sample alone; no sampler here clips, so that is refused."""
    changed(saved, "model_index.json", _class_name="StableDiffusionInpaintPipeline")
    changed(saved, "scheduler/scheduler_config.json", clip_sample=True)
    peer = diffusers.StableDiffusionInpaintPipeline.from_pretrained(saved, safety_checker=None)
    assert peer.scheduler.config.clip_sample is True
    with pytest.raises(ConvertError, match="clip_sample is true"):
        read_folder(saved)
