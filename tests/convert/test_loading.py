"""`load` and the command line: every kind of source, the native form, and what goes wrong."""

import errno
import json
from functools import partial

import convert_models as small
import jax
import numpy as np
import pytest
import tiny

from ldm_jax import config as cfg
from ldm_jax.convert import imported_model, native
from ldm_jax.convert.__main__ import Arguments, main, run
from ldm_jax.convert.compvis.writer import write_checkpoint
from ldm_jax.convert.diffusers.pipeline_folders import write_folder
from ldm_jax.convert.imported_model import ConvertError, materialize
from ldm_jax.convert.loading import load
from ldm_jax.convert.native import read_native, write_native
from ldm_jax.core.reading import FileFormatError
from ldm_jax.data.sources import DataError, open_source
from ldm_jax.workdir.run_config import read_config


@pytest.fixture
def tokenizer(tmp_path):
    return small.make_tokenizer(tmp_path / "tokenizer source")


@pytest.mark.parametrize("name", small.MODELS)
def test_native_there_and_back(tmp_path, tokenizer, name):
    imported = small.model(name, tokenizer)
    write_native(imported, tmp_path / "model")
    again = read_native(tmp_path / "model")
    assert again.config == imported.config
    tiny.same_bits(again.params, imported.params)
    tiny.same_bits(again.frozen, imported.frozen)
    assert (again.tokenizer / "merges.txt").is_file()


def test_native_files_that_do_not_fit(tmp_path):
    folder = tmp_path / "model"
    imported = imported_model.make(small.AUTOENCODER, small.numbers(small.AUTOENCODER))
    write_native(imported, folder)
    (folder / "digests.json").unlink()
    model = folder / "model.json"
    values = json.loads(model.read_text())
    model.write_text(json.dumps(values | {"latent_channels": 8}))
    with pytest.raises(ConvertError, match="weights.safetensors does not fit model.json"):
        read_native(folder)
    model.write_text(json.dumps(values | {"latent_chanels": 8}))
    with pytest.raises(ConvertError, match="perhaps you meant 'latent_channels'"):
        read_native(folder)


def test_native_files_that_changed_are_named(tmp_path, tokenizer):
    """A flipped bit in weights is another model, which no shape or name would tell."""
    folder = tmp_path / "model"
    write_native(small.model("faces", tokenizer), folder)
    assert load(folder).notes == ()
    tokens = next((folder / "tokenizer").iterdir())
    for path, change, problem in (
        (folder / "weights.safetensors", lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
         "has other contents than were written"),
        (folder / "weights.safetensors", lambda data: data + b"x", "bytes instead of"),
        (folder / "model.json", lambda data: data.replace(b'"dropout": 0.0', b'"dropout": 0.5'),
         "has other contents"),
        (folder / "origin.json", lambda data: b"{}", "has 2 bytes instead of"),
        (tokens, lambda data: None, "is missing"),
        (folder / "tokenizer" / "more.json", lambda data: b"{}", "does not note tokenizer/more"),
    ):  # fmt: skip
        sound = path.read_bytes() if path.exists() else None
        changed = change(sound)
        path.unlink(missing_ok=True)
        if changed is not None:
            path.write_bytes(changed)
        with pytest.raises(ConvertError, match=problem) as error:
            load(folder)
        assert str(path.name) in str(error.value) and "convert the model anew" in str(error.value)
        path.unlink(missing_ok=True)
        if sound is not None:
            path.write_bytes(sound)
    (folder / "digests.json").unlink()
    changed = load(folder)
    assert "has no digests.json, so that damage" in changed.notes[0]
    write_native(changed, tmp_path / "again")
    assert load(tmp_path / "again").notes == ()


def test_every_form_holds_the_same(tmp_path, tokenizer):
    """native → diffusers → compvis → native, by the command line's function."""
    write_native(small.model("inpainting", tokenizer), tmp_path / "a")
    chain = [("a", "b", "diffusers"), ("b", "c.safetensors", "compvis"),
             ("c.safetensors", "d", "native")]  # fmt: skip
    for source, target, form in chain:
        extra = {"tokenizer": tokenizer} if source.endswith("safetensors") else {}
        text = run(Arguments(tmp_path / source, tmp_path / target, form, **extra))
        assert f"wrote {tmp_path / target}" in text
    first, last = load(tmp_path / "a"), load(tmp_path / "d")
    assert first.config == last.config
    tiny.same_bits((first.params, first.frozen), (last.params, last.frozen))
    assert last.origin["kind"] == "compvis"
    assert (tmp_path / "d/tokenizer/vocab.json").is_file()


def test_work_directory(tmp_path, trained_text2img, trained_autoencoder):
    from ldm_jax.generation.pipeline import Pipeline

    imported = load(trained_text2img)
    pipeline = Pipeline(trained_text2img)
    tiny.same_bits(imported.params, pipeline.params)
    tiny.same_bits(imported.frozen, pipeline.frozen)
    assert imported.config.autoencoder.latent_scale == float(pipeline.frozen["latent_scale"])
    write_native(imported, tmp_path / "model")
    again = load(tmp_path / "model")
    tiny.same_bits((again.params, again.frozen), (imported.params, imported.frozen))
    assert (again.tokenizer / "tokenizer.json").is_file()
    with pytest.raises(ConvertError, match="unet.pooled_dim"):
        run(Arguments(trained_text2img, tmp_path / "x", "diffusers"))
    first = load(trained_autoencoder, weights="raw")
    assert isinstance(first.config, cfg.Autoencoder)
    assert first.origin["weights"] == "raw"
    # One of its checkpoints, whichever is not the newest.
    earlier = trained_text2img / "checkpoints" / "20"
    assert load(earlier).origin["step"] == 20 and load(trained_text2img).origin["step"] == 24


def test_choices_that_do_not_belong(tmp_path):
    write_native(small.model("faces"), tmp_path / "model")
    with pytest.raises(ConvertError, match="cannot be combined with --prediction, --weights"):
        load(tmp_path / "model", weights="ema", prediction="v")
    with pytest.raises(ConvertError, match="does not exist"):
        load(tmp_path / "nothing")
    with pytest.raises(ConvertError, match="is not a model"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"type": "ClassifierRun"}')
    with pytest.raises(ConvertError, match="is a classifier"):
        load(tmp_path)
    step = tmp_path / "checkpoints" / "16"
    step.mkdir(parents=True)
    with pytest.raises(ConvertError, match="is a classifier"):
        load(step)


def test_what_is_no_file_is_said_to_be_none(tmp_path):
    """A folder or a link that leads to itself in the place of a file does exist."""
    latents = tmp_path / "latents"
    (latents / "train").mkdir(parents=True)
    for make, complaint in (
        (lambda path: path.mkdir(), "is a folder; name a file in it"),
        (lambda path: path.symlink_to(path), "cannot be read: Too many levels of symbolic links"),
    ):
        for name in ("config.json", "model.json", "model_index.json"):
            folder = tmp_path / complaint[:9] / name
            folder.mkdir(parents=True)
            make(folder / name)
            with pytest.raises(FileFormatError, match=f"{name}: {complaint}"):
                load(folder)
        with pytest.raises(FileFormatError, match=f"config.json: {complaint}"):
            read_config(tmp_path / complaint[:9] / "config.json")
        index = latents / "train" / "index.json"
        make(index)
        with pytest.raises(DataError, match=rf"index\.json is not a valid index .*{complaint}"):
            open_source(cfg.Data(cfg.EncodedLatents(str(latents)), 16), "train")
        index.unlink() if index.is_symlink() else index.rmdir()


def test_materialized_leaves_are_copies(tmp_path):
    write_native(small.model("faces"), tmp_path / "model")
    imported = load(tmp_path / "model")
    copies = materialize(imported.params, "bfloat16")
    for copy, leaf in zip(jax.tree.leaves(copies), jax.tree.leaves(imported.params), strict=True):
        assert copy.flags.c_contiguous and copy.flags.owndata and not leaf.flags.writeable
        np.testing.assert_array_equal(copy, leaf.astype(copy.dtype))


def test_inspect(tmp_path, capsys):
    path = small.original("churches256", tmp_path / "model.safetensors")
    yaml = small.settings("churches256", tmp_path / "settings.yaml")
    assert main([str(path), "--inspect", f"--original-config={yaml}"]) == 0
    said = capsys.readouterr().out
    for words in ("a single file of CompVis' layout, raw weights", "unet: ", "scaled_linear",
                  "not used: 216 tensors (model_ema.", "latent_scale 0.5"):  # fmt: skip
        assert words in said, said


def test_models_are_written_neither_into_others_nor_over_work_directories(tmp_path):
    model, run = tmp_path / "model", tmp_path / "run"
    write_native(small.model("faces"), model)
    run.mkdir()
    (run / "config.json").write_text('{"type": "DiffusionRun"}')
    imported = load(model)
    for write, target, complaint in (
        (write_native, run / "deep" / "a", "run, which is a model; name a place outside"),
        (write_native, model / "a", "model, which is a model"),
        (write_folder, run / "a", "lies in"),
        (write_checkpoint, run / "a.safetensors", "lies in"),
        (partial(write_native, overwrite=True), run, "whose checkpoints would be lost"),
    ):
        with pytest.raises(ConvertError, match=complaint):
            write(imported, target)
    (tmp_path / "config.json").write_text('{"editor": "anybody\'s"}')
    write_native(imported, tmp_path / "other")
    assert len(list(run.iterdir())) == 1


def test_mistakes_have_status_2(tmp_path, capsys):
    model = tmp_path / "model"
    write_native(small.model("faces"), model)
    for arguments, words in (
        ([str(tmp_path / "no")], "name a TARGET"),
        ([str(tmp_path / "no"), "--inspect"], "does not exist"),
        ([str(model), str(tmp_path / "a"), "--variant=fp16"], "cannot be combined with --variant"),
        ([str(model), str(tmp_path / "a.ckpt"), "--to=compvis"], "name it so"),
        ([str(model), ""], "TARGET or option is empty"),
        ([str(model), str(tmp_path / "a"), "--vae="], "--vae is empty; name a file or folder"),
    ):
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith("convert: ") and words in said and said.count("\n") == 1


def test_what_fails_on_the_way_has_status_1_and_leaves_nothing(tmp_path, capsys, monkeypatch):
    model = tmp_path / "model"
    write_native(small.model("faces"), model)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "weights.safetensors")

    monkeypatch.setattr(native, "write_safetensors", full)
    assert main([str(model), str(tmp_path / "again")]) == 1
    assert capsys.readouterr().err == (
        f"convert: {tmp_path / 'again'} cannot be written: the disk is full; make room, or name "
        "another folder\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["model"]

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(native, "write_safetensors", stop)
    assert main([str(model), str(tmp_path / "again")]) == 130
    assert capsys.readouterr().err == "convert: interrupted\n"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_command_is_ready_before_anything_heavy_is_imported():
    """Ctrl-C while JAX is imported would else be a traceback."""
    code = "import sys, ldm_jax.convert.__main__; print([n for n in ('jax', 'numpy') if n in " \
           "sys.modules])"  # fmt: skip
    assert tiny.check(tiny.start("-c", code)).strip() == "[]"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[" * 200_000, "not JSON"), ("[1]", "not a JSON object"), ("nonsense", "not JSON"),
        ('{"type": "Model", "type": "Autoencoder"}', "names 'type' twice"),
    ],
)  # fmt: skip
def test_json_of_any_model_is_read_strictly(tmp_path, content, words):
    """Deep, twice the same name, of another type: in every JSON file of every form."""
    tokenizer = small.make_tokenizer(tmp_path / "source")
    write_native(small.model("sd1", tokenizer), tmp_path / "native")
    write_folder(small.model("sd1", tokenizer), tmp_path / "diffusers")
    config = imported_model.make(small.AUTOENCODER, small.numbers(small.AUTOENCODER))
    write_folder(config, tmp_path / "vae")
    for folder in ("native", "diffusers", "vae"):
        for path in sorted((tmp_path / folder).rglob("*.json")):
            if path.parent.name == "tokenizer":
                continue  # it stays unread here
            sound = path.read_bytes()
            path.write_text(content)
            with pytest.raises(FileFormatError, match=words) as error:
                load(tmp_path / folder)
            assert str(path) in str(error.value)
            path.write_bytes(sound)
    config = tmp_path / "config.json"
    config.write_text(content)
    with pytest.raises(FileFormatError, match=words):
        load(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(len(content).to_bytes(8, "little") + content.encode())
    with pytest.raises(FileFormatError):
        load(weights)
