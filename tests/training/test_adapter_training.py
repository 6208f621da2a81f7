"""Runs that train an adapter beside a model."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny

from ldm_jax import config as cfg
from ldm_jax.adapters.adapter import AdapterUse
from ldm_jax.adapters.hypernetwork import fresh_nets
from ldm_jax.adapters.merging import merge
from ldm_jax.convert import load
from ldm_jax.convert.adapters.adapter_files import read_adapter
from ldm_jax.convert.adapters.adapter_writer import write_adapter
from ldm_jax.convert.adapters.module_names import ModuleNames
from ldm_jax.convert.adapters.trained_adapter import read_trained_adapter
from ldm_jax.convert.hypernetworks.hypernetwork_files import read_hypernetwork, write_hypernetwork
from ldm_jax.convert.imported_model import materialize
from ldm_jax.core import tree
from ldm_jax.generation.pipeline import Pipeline

LOOP = dataclasses.replace(tiny.LOOP, steps=2, checkpoint_every=1, sample_every=0)
RATE = 1e-2


@pytest.fixture(scope="module")
def run(pictures):
    """A DoRA of attention and text encoder, with all kinds of dropout."""
    adapter = cfg.ModuleAdapter(
        cfg.LoRA(rank=2, alpha=1.0, rank_dropout=0.5), modules=("attention", "text_attention"),
        ranks=("text_encoder/.*=3",), magnitude=True, dropout=0.1, module_dropout=0.1,
    )  # fmt: skip
    return tiny.diffusion_run(
        pictures, data=tiny.data(pictures, validation=0.0), loop=LOOP, adapter=adapter,
        train=("adapter",), optim=cfg.Optim(learning_rate=RATE, ema_decay=None),
        mesh=cfg.Mesh(data=2, fsdp=4),
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(run, trained_text2img, tmp_path_factory):
    """The work directory and the state of the whole run, on eight devices; each four of them share
    the model's frozen weights, as `run.mesh` says."""
    workdir = tmp_path_factory.mktemp("adapter") / "run"
    return workdir, tiny.fit(run, workdir, init=trained_text2img, alone=False)


def test_one_device_trains_as_eight_do(run, trained, trained_text2img, tmp_path):
    alone = tiny.fit(run, tmp_path / "run", init=trained_text2img)
    tiny.trained_alike((tmp_path / "run", alone), trained, RATE)


def test_only_the_adapter_trains_its_files_say_the_same_and_it_goes_on(
    run, trained, trained_text2img, tmp_path
):
    workdir, state = trained
    assert all("/adapters/0/modules/" in path for path in tree.flatten(state.params))
    base, drawn = load(trained_text2img), load(workdir)
    adapter = read_trained_adapter(workdir)
    assert adapter.components.keys() == {"unet", "text_encoder"}
    expected = merge(materialize(base.params), [AdapterUse(adapter)])
    tiny.same_bits(materialize(drawn.params), expected)
    assert not np.array_equal(*(
        one.params["unet"]["mid_block"]["attentions"]["0"]["transformer_blocks"]["0"]["attn1"]
        ["to_q"]["kernel"] for one in (base, drawn)
    ))  # fmt: skip
    names = ModuleNames.of(base.config, base.params)
    file = tmp_path / "adapter.safetensors"
    write_adapter(adapter, file, "kohya")
    for path in (file, workdir):
        again = read_adapter(path, names)
        tiny.same_bits(merge(materialize(base.params), [AdapterUse(again)]), expected)
    assert again.metadata["ss_steps"] == "2"

    short = dataclasses.replace(run, loop=dataclasses.replace(LOOP, steps=1))
    tiny.fit(short, tmp_path / "parts", init=trained_text2img, alone=False)
    resumed = tiny.fit(run, tmp_path / "parts", alone=False)
    tiny.same_bits(jax.device_get(resumed.params), jax.device_get(state.params))


@pytest.fixture(scope="module")
def hypernetwork_run(run):
    form = cfg.Hypernetwork(activation="relu", layer_norm=True, dropout=(0.0, 0.2, 0.0))
    return dataclasses.replace(run, adapter=form, mesh=cfg.Mesh())


@pytest.fixture(scope="module")
def trained_hypernetwork(hypernetwork_run, trained_text2img, tmp_path_factory):
    """The work directory and the state of the whole run, on one device."""
    workdir = tmp_path_factory.mktemp("hypernetwork") / "run"
    return workdir, tiny.fit(hypernetwork_run, workdir, init=trained_text2img)


def test_eight_devices_train_a_hypernetwork_as_one_does(
    hypernetwork_run, trained_hypernetwork, trained_text2img, tmp_path
):
    eight = tiny.fit(hypernetwork_run, tmp_path / "run", init=trained_text2img, alone=False)
    tiny.trained_alike((tmp_path / "run", eight), trained_hypernetwork, RATE)


def test_a_hypernetwork_trains_alone_and_is_drawn_with(
    hypernetwork_run, trained_hypernetwork, trained_text2img, tmp_path
):
    run, form, (workdir, state) = hypernetwork_run, hypernetwork_run.adapter, trained_hypernetwork
    assert all("/adapters/hypernetworks/0/nets/" in path for path in tree.flatten(state.params))
    base, whole = load(trained_text2img), load(workdir)
    tiny.same_bits(materialize(whole.params), materialize(base.params))
    assert any("--hypernetwork" in note for note in whole.notes)
    one = read_hypernetwork(workdir, base.config)
    assert one.step == 2 and {*one.nets} == {str(width) for width in one.form.widths}
    before = fresh_nets(form, one.form.widths, run.loop.seed)
    moved = tree.flatten(one.nets)
    assert all(not np.array_equal(moved[p], leaf) for p, leaf in tree.flatten(before).items())
    write_hypernetwork(one, tmp_path / "mine.pt")
    tiny.same_bits(read_hypernetwork(tmp_path / "mine.pt").nets, jax.tree.map(np.asarray, one.nets))
    sampling = cfg.Sampling(steps=2, guidance_scale=1.0, batch_size=1)
    plain, strong = (
        Pipeline(trained_text2img, hypernetwork=chosen).generate(["a red three"], sampling=sampling)
        for chosen in ([], [f"{tmp_path / 'mine.pt'}:50"])
    )
    assert not np.array_equal(plain, strong)
