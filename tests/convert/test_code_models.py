"""Transformers over codes in this project's form and that of taming-transformers, there and back;
and as the beginning of a run."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny
import tiny_codes

from ldm_jax import config as cfg
from ldm_jax.config.autoregressive import code_model
from ldm_jax.convert.__main__ import Arguments, run
from ldm_jax.convert.code_models import load_code_model
from ldm_jax.convert.compvis.settings import METADATA
from ldm_jax.convert.imported_codes import ImportedCodes
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.convert.loading import load
from ldm_jax.convert.native import write_native
from ldm_jax.formats.safetensors_file import read_safetensors, write_safetensors
from ldm_jax.training.code_stage import code_stage

CONFIGS = {
    "classes": tiny_codes.config(n_unmasked=1, residual_dropout=0.1),
    "class_maps": tiny_codes.of_class_maps(),
}


@pytest.fixture(scope="module", params=CONFIGS)
def folder(request, tmp_path_factory):
    """A native folder, and what it holds."""
    config = CONFIGS[request.param]
    made = ImportedCodes(config, *tiny_codes.params_of(config), {"source": "made"})
    path = tmp_path_factory.mktemp(request.param) / "native"
    write_native(made, path)
    return path, made


def same(found, made):
    assert found.config == made.config
    tiny.same_bits(found.params, made.params)
    tiny.same_bits(found.frozen, made.frozen)


def test_native_and_single_files_hold_the_whole_model(folder, tmp_path):
    path, made = folder
    same(load_code_model(path), made)
    file = tmp_path / "model.safetensors"
    told = run(Arguments(path, file, to="compvis"))
    assert "transformer: CodeTransformer: vocab_size 12" in told and str(file) in told
    same(load_code_model(file), made)  # with the settings in its metadata
    tensors, metadata = read_safetensors(file)
    if made.config.condition_stage is not None:
        assert tensors.pop("cond_stage_model.colorize").shape == (3, 11, 1, 1)
    expected = tiny_codes.taming_tensors(made.config, made.params, made.frozen)
    assert {n: t.shape for n, t in tensors.items()} == {n: t.shape for n, t in expected.items()}
    for name in expected.keys() - {f"transformer.blocks.{i}.attn.mask" for i in range(2)}:
        np.testing.assert_array_equal(tensors[name], expected[name])
    mask = tensors["transformer.blocks.1.attn.mask"][0, 0]
    np.testing.assert_array_equal(mask, np.tril(np.ones_like(mask)))
    run(Arguments(file, tmp_path / "again"))
    same(load_code_model(tmp_path / "again"), made)
    # Half as long: other numbers of positions than the metadata says.
    wrong = tensors | {"transformer.pos_emb": tensors["transformer.pos_emb"][:, :8]}
    write_safetensors(tmp_path / "wrong.safetensors", wrong, {METADATA: metadata[METADATA]})
    with pytest.raises(ConvertError, match="describes another model than its tensors"):
        load_code_model(tmp_path / "wrong.safetensors")


def test_options_and_forms_of_other_models_are_refused(folder, trained_autoencoder, tmp_path):
    path, _ = folder
    for options, said in (
        ({"to": "diffusers"}, "which diffusers does not have"),
        ({"vae": path}, "has no --vae; leave it out"),
        ({"weights": "ema"}, "has weights of one kind"),
        ({"heads": 2}, "says itself what it holds; leave out --heads"),
    ):
        with pytest.raises(ValueError, match=said):
            run(Arguments(path, tmp_path / "out.safetensors", **options))
    with pytest.raises(ValueError, match="is no transformer over codes, which has no --heads"):
        run(Arguments(trained_autoencoder, tmp_path / "out", heads=2))
    with pytest.raises(ConvertError, match="is a transformer over codes; draw from it"):
        load(path)
    with pytest.raises(ConvertError, match="describes a Autoencoder, not a transformer"):
        load_code_model(tiny_codes.write_first_stage(tmp_path / "vq"))
    fsq = dataclasses.replace(tiny_codes.AUTOENCODER, bottleneck=cfg.FSQ((3, 3, 3, 3)))
    config = code_model(fsq, tiny_codes.TRANSFORMER, None, 8)
    write_native(ImportedCodes(config, *tiny_codes.params_of(config)), tmp_path / "fsq")
    with pytest.raises(ValueError, match="FSQ"):
        run(Arguments(tmp_path / "fsq", tmp_path / "out.safetensors", to="compvis"))
    assert not (tmp_path / "out.safetensors").exists()


def test_a_run_begins_with_the_transformer_and_first_stages_of_a_file(pictures, tmp_path):
    config = tiny_codes.config()
    params, frozen = tiny_codes.params_of(config)
    file = tmp_path / "model.safetensors"
    write_safetensors(file, tiny_codes.taming_tensors(config, params, frozen))
    data = dataclasses.replace(tiny.data(pictures), image_size=8)
    classes = cfg.ClassPrefix(sum(path.is_dir() for path in pictures.iterdir()))
    network = dataclasses.replace(tiny_codes.TRANSFORMER, residual_dropout=0.1)
    # What the file does not tell, heads and condition, the run does.
    training = cfg.CodeTransformerRun(
        data, network, classes, loop=dataclasses.replace(tiny.LOOP, sample_every=0)
    )
    stage = code_stage(training, tmp_path / "run", None, init=str(file))
    state = jax.jit(stage.init)(stage.initial)
    tiny.same_bits(jax.tree.map(np.asarray, state.params), params)
    tiny.same_bits(jax.tree.map(np.asarray, stage.frozen), frozen)
    wide = dataclasses.replace(training, transformer=dataclasses.replace(network, layers=3))
    with pytest.raises(cfg.ConfigError, match=r"transformer.layers is 2 there, 3 here"):
        code_stage(wide, tmp_path / "other", None, init=str(file))
    assert not (tmp_path / "other").exists()
