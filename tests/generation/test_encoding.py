"""Data sets that are encoded once, and stage two trained from them."""

import dataclasses
import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from PIL import Image

from ldm_jax import config as cfg
from ldm_jax.cli import encode as command
from ldm_jax.cli import train
from ldm_jax.convert import imported_model
from ldm_jax.convert.parts import read_first_stage
from ldm_jax.core.command import told
from ldm_jax.core.store_copies import NoRoom
from ldm_jax.core.stores import as_path
from ldm_jax.data import shard_plans
from ldm_jax.data.encoded_latents import LatentsSource, begin, read_index, write_shard
from ldm_jax.data.loader import make_loader
from ldm_jax.data.records import write_records
from ldm_jax.data.sources import DataError, open_source
from ldm_jax.generation import encoding
from ldm_jax.generation.caption_encoder import CaptionEncoder
from ldm_jax.generation.pipeline import Pipeline
from ldm_jax.training import diffusion_stage

PLAIN = cfg.UNet(
    in_channels=4, out_channels=4,
    block_out_channels=(8,), layers_per_block=1, attention=(False,), num_heads=(1,),
    attention_kind="plain", context_dim=None, norm_num_groups=4,
)  # fmt: skip
EXACT = encoding.Storage(dtype="float32", shard_size=16, batch_size=8)


def encode_split(stage, data, split, out, storage, encoder, **processes):
    source = open_source(data, split)
    return encoding.encode_split(stage, data, source, out / split, storage, encoder, **processes)


@pytest.fixture(scope="module")
def stage(trained_autoencoder):
    return read_first_stage(trained_autoencoder)


@pytest.fixture(scope="module")
def encoder(stage):
    """The compiled encoder of `EXACT`, for all tests that need no other."""
    return encoding.Encoder(stage, EXACT)


@pytest.fixture(scope="module")
def latents(tmp_path_factory, stage, encoder, pictures):
    """Both splits of the pictures, in float32."""
    out = tmp_path_factory.mktemp("latents")
    data = tiny.data(pictures)
    for split in ("train", "validation"):
        encode_split(stage, data, split, out, EXACT, encoder)
    return out


def of(folder, **changes):
    return cfg.Data(cfg.EncodedLatents(str(folder)), image_size=16, batch_size=16, **changes)


def test_latents_are_those_of_the_images_with_all_that_belongs_to_them(
    latents, pictures, stage, encoder
):
    images = open_source(cfg.Data(tiny.data(pictures).source, 16), "train")
    found = open_source(cfg.Data(cfg.EncodedLatents(str(latents)), 16), "train")
    assert len(found) == len(images) and found.class_names == images.class_names
    assert list(found.captions()) == list(images.captions())
    for row in (0, 17, len(images) - 1):
        image, example = images[row], found[row]
        assert all(example[key] == image[key] for key in ("caption", "label", "name"))
        # The same program: the same bits, whatever else is in the batch.
        expected = np.asarray(encoder([image])["encoded"])[0]
        np.testing.assert_array_equal(example["encoded"], expected)
    assert example["encoded"].shape == (8, 8, 8) and example["encoded"].dtype == np.float32


def test_batches_are_those_of_the_images(latents, pictures):
    """Same order over epochs, same index, same condition."""

    def label(example, position, seed):
        return {"label": np.int32(example["label"])}

    def batches(data):
        source = open_source(cfg.Data(data.source, 16), "train")
        loader = make_loader(source, data, seed=3, train=True, inputs=label)
        found = [next(loader) for _ in range(5)]
        loader.close()
        return found

    for a, b in zip(batches(of(latents)), batches(tiny.data(pictures)), strict=True):
        np.testing.assert_array_equal(a["index"], b["index"])
        np.testing.assert_array_equal(a["inputs"]["label"], b["inputs"]["label"])
        assert a["encoded"].shape == (16, 8, 8, 8) and "image" not in a


def test_training_from_latents_is_training_from_images(
    latents, pictures, trained_autoencoder, tmp_path
):
    run = tiny.diffusion_run(pictures, unet=PLAIN, conditioners=())
    trained, first = {}, None
    for name, data in (("images", run.data), ("latents", of(latents))):
        stage = diffusion_stage.diffusion_stage(
            dataclasses.replace(run, data=data),
            tmp_path / name,
            tiny.mesh(),
            str(trained_autoencoder),
        )
        assert len(stage.validation) == len(
            open_source(cfg.Data(run.data.source, 16), "validation")
        )
        loader = make_loader(stage.train, data, seed=run.loop.seed, train=True, inputs=stage.inputs)
        first = first or jax.jit(stage.init)(stage.initial)
        state, step, losses = first, jax.jit(stage.step), []
        for _ in range(4):
            state, metrics = step(state, stage.frozen, next(loader))
            losses.append(float(metrics["loss"]))
        loader.close()
        trained[name] = losses, stage.frozen["latent_scale"], state.params
    a, b = trained["images"], trained["latents"]
    # Sums of convolutions in a batch of another size are taken in another order.
    np.testing.assert_allclose(a[0], b[0], rtol=1e-5)
    np.testing.assert_allclose(a[1], b[1], rtol=1e-6)
    # Adam's first steps are signs of gradients, which turn where these are nearly zero; each of
    # four steps changes a parameter by the rate, 1e-3.
    far = [np.abs(x - y) > 1e-5 for x, y in zip(*map(tiny.leaves, (a[2], b[2])), strict=True)]
    assert np.mean(np.concatenate([values.reshape(-1) for values in far])) < 0.01


@pytest.fixture(scope="module")
def captioned(tmp_path_factory, stage, pictures, trained_text2img):
    """Both splits of the pictures with what a text encoder makes of the captions, in float32."""
    out = tmp_path_factory.mktemp("captioned")
    encoder = encoding.Encoder(stage, EXACT, CaptionEncoder.read(str(trained_text2img)))
    for split in ("train", "validation"):
        encode_split(stage, tiny.data(pictures), split, out, EXACT, encoder)
    return out


@pytest.fixture
def frozen_text(pictures, captioned):
    """A run that leaves the text encoder as it is and drops half of the captions."""
    run = tiny.diffusion_run(pictures, data=of(captioned), train=("unet",))
    text = dataclasses.replace(run.conditioners[0], dropout=0.5)
    return dataclasses.replace(run, conditioners=(text, *run.conditioners[1:]))


def test_training_from_encoded_captions_is_training_from_captions(
    frozen_text, latents, trained_text2img, tmp_path
):
    trained, given = [], (tiny.mesh(), None, str(trained_text2img))
    asked = dataclasses.replace(frozen_text.loop, prompts=("a red three",))
    frozen_text = dataclasses.replace(frozen_text, loop=asked)
    for name, data in (("captions", of(latents)), ("states", frozen_text.data)):
        run = dataclasses.replace(frozen_text, data=data)
        stage = diffusion_stage.diffusion_stage(run, tmp_path / name, *given)
        loader = make_loader(stage.train, data, seed=0, train=True, inputs=stage.inputs)
        batch = next(loader)
        loader.close()
        assert ("caption_states" in batch["inputs"]) == (name == "states")
        # From states alone the text encoder has no place on the devices, for drawings neither.
        assert ("text_encoder" in stage.frozen["untrained"]["conditioners"]) == (name == "captions")
        step, state = jax.jit(stage.step), jax.jit(stage.init)(stage.initial)
        assert {one.name for one in stage.shown} == {"training", "held_out", "prompts"}
        for one in stage.shown:
            assert ("caption_states" in one.batch["inputs"]) == (name == "states")
            jax.eval_shape(one.draw, state.params, stage.frozen, one.batch)
        trained.append(step(state, stage.frozen, batch)[1])
    # The text encoder read other batches, whose products are summed up in another order.
    found, expected = ({name: float(value) for name, value in one.items()} for one in trained)
    assert found == pytest.approx(expected, rel=1e-5)


def test_encoded_captions_are_refused_where_training_would_change_them(
    frozen_text, captioned, trained_text2img, tmp_path
):
    def begin(run):
        diffusion_stage.diffusion_stage(
            run, tmp_path / "run", tiny.mesh(), None, str(trained_text2img)
        )

    with pytest.raises(cfg.ConfigError, match="trains its text encoder"):
        begin(dataclasses.replace(frozen_text, train=("all",)))
    text = dataclasses.replace(frozen_text.conditioners[0], tags=cfg.CaptionTags())
    with pytest.raises(cfg.ConfigError, match="changes the tags of captions"):
        begin(dataclasses.replace(frozen_text, conditioners=(text, *frozen_text.conditioners[1:])))
    index = captioned / "train" / "index.json"
    whole = json.loads(index.read_text())
    changed = whole | {"text": whole["text"] | {"encoder": "0" * 64}}
    index.write_text(json.dumps(changed))
    with pytest.raises(cfg.ConfigError, match="read by another text encoder"):
        begin(frozen_text)
    index.write_text(json.dumps(whole))


def test_pictures_in_buckets_are_trained_on_as_images_and_as_latents(
    stage, trained_autoencoder, tmp_path
):
    folder = tmp_path / "pictures"
    folder.mkdir()
    colours = np.random.default_rng(0).integers(0, 256, (19, 3))
    for number, colour in enumerate(colours):
        size = [(16, 16), (32, 8)][number % 2]
        Image.new("RGB", size, tuple(colour.tolist())).save(folder / f"{number:02}.png")
    buckets = cfg.Buckets(sizes=((16, 16), (8, 32)))
    images = cfg.ImageFolder(str(folder), validation_fraction=0.0, buckets=buckets)
    data = cfg.Data(images, image_size=16, batch_size=8)
    storage = dataclasses.replace(EXACT, shard_size=4)
    encoder = encoding.Encoder(stage, storage)
    out = tmp_path / "latents"
    parts = [
        encode_split(stage, data, "train", out, storage, encoder, process_index=i, process_count=2)
        for i in range(2)
    ]
    assert [part.images for part in parts] == [10, 9] and parts[1].missing == 0
    latents = dataclasses.replace(data, source=cfg.EncodedLatents(str(out)))

    told, unet = (cfg.SizeConditioner(4),), dataclasses.replace(PLAIN, pooled_dim=24)
    loop = dataclasses.replace(tiny.LOOP, steps=4, log_every=1, sample_every=0)
    losses = []
    for name, of in (("images", data), ("latents", latents)):
        run = tiny.diffusion_run(folder, unet=unet, conditioners=told, data=of, loop=loop)
        tiny.fit(run, tmp_path / name, first_stage=trained_autoencoder)
        losses.append(tiny.losses(tmp_path / name))
    # Products of convolutions in a batch of another size are summed up in another order.
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    sampling = cfg.Sampling(steps=1, height=8, width=32)
    drawn = Pipeline(tmp_path / "images").generate([None], sampling=sampling)
    assert drawn.shape == (1, 8, 32, 3)
    wrong = dataclasses.replace(latents, image_size=32)
    index = json.loads((out / "train/8x32/index.json").read_text())
    index["source"]["buckets"] |= {"sizes": []}
    (out / "train/8x32/index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match="buckets of different encodings"):
        open_source(wrong, "train")


def test_latents_of_another_encoder_are_refused(latents, pictures, trained_autoencoder, tmp_path):
    other = tmp_path / "other"
    source = json.loads((latents / "train" / "index.json").read_text())
    (other / "train").mkdir(parents=True)
    for path in (latents / "train").iterdir():
        (other / "train" / path.name).write_bytes(path.read_bytes())
    (other / "train" / "index.json").write_text(json.dumps(source | {"encoder": "0" * 64}))
    run = dataclasses.replace(tiny.diffusion_run(pictures), data=of(other))
    with pytest.raises(cfg.ConfigError, match=r"\(encoder 0000000000000000\) than this one"):
        tiny.fit(run, tmp_path / "run", first_stage=trained_autoencoder)


def test_processes_and_interruptions_leave_the_same_files(
    latents, pictures, stage, encoder, tmp_path, monkeypatch
):
    data, folder = tiny.data(pictures), tmp_path / "train"

    def part(index):
        return encode_split(
            stage, data, "train", tmp_path, EXACT, encoder, process_index=index, process_count=2
        )

    first = part(1)
    index = read_index(folder)
    assert index.shards == 3 and first.images == 16 and first.missing == 2
    with pytest.raises(DataError, match=r"2 of 3 shards are missing, 00000-of-00003"):
        LatentsSource(cfg.EncodedLatents(str(tmp_path)), (16, 16), "train")

    (folder / ".00000-of-00003.array_record.1.tmp").write_text("left by a killed process")
    whole = encoding.write_shard

    def interrupted(folder, index, shard, examples):
        def some():
            for number, example in enumerate(examples):
                if shard and number == 3:
                    raise KeyboardInterrupt
                yield example

        whole(folder, index, shard, some())

    with monkeypatch.context() as patch:
        patch.setattr(encoding, "write_shard", interrupted)
        with pytest.raises(KeyboardInterrupt):
            part(0)
    assert sorted(p.name for p in folder.iterdir()) == [
        "00000-of-00003.array_record", "00001-of-00003.array_record", "index.json"
    ]  # fmt: skip
    rest = part(0)
    assert rest.images == len(index.rows(2)) and rest.missing == 0
    for path in folder.iterdir():
        assert path.read_bytes() == (latents / "train" / path.name).read_bytes()
    damaged = folder / "00001-of-00003.array_record"
    damaged.write_bytes(damaged.read_bytes()[:60_000])
    assert index.missing(folder) == [1]
    cut = LatentsSource(cfg.EncodedLatents(str(tmp_path)), (16, 16), "train")  # opens none
    with pytest.raises(DataError, match=r"00001-of-00003.array_record is missing or damaged"):
        cut[index.rows(1)[0]]
    other = dataclasses.replace(EXACT, dtype="bfloat16")
    with pytest.raises(DataError, match="other settings: dtype was 'float32', is 'bfloat16'"):
        encode_split(stage, data, "train", tmp_path, other, encoder)


def test_latents_in_a_store_are_those_of_this_machine(latents, store, monkeypatch):
    here = LatentsSource(cfg.EncodedLatents(str(latents)), (16, 16), "train")
    index, folder = here.index, as_path("gs://bucket/latents/train")
    begin(folder, index)
    assert index.missing(folder) == [0, 1, 2]
    for shard in range(3):
        write_shard(folder, index, shard, (here[row] for row in index.rows(shard)))
        path = index.path(latents / "train", shard)
        assert (folder / path.name).read_bytes() == path.read_bytes()
    assert index.missing(folder) == []
    settings = cfg.EncodedLatents("gs://bucket/latents")
    np.testing.assert_array_equal(
        LatentsSource(settings, (16, 16), "train")[17]["encoded"], here[17]["encoded"]
    )
    monkeypatch.setenv("LDM_JAX_STORE_CACHE_GB", "1e-9")
    with pytest.raises(NoRoom, match=f"{folder} has .* GB, which are copied to"):
        LatentsSource(settings, (16, 16), "train")


def test_damaged_latents_are_named(latents, tmp_path):
    """By whoever reads them: all one after the other for their captions, or one of them."""
    copy = tmp_path / "copy"
    shutil.copytree(latents, copy)
    path = copy / "train" / "00001-of-00003.array_record"
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    source = LatentsSource(cfg.EncodedLatents(str(copy)), (16, 16), "train")
    assert source[15]["encoded"].shape == source[-1]["encoded"].shape
    for read in (lambda: [source[row] for row in range(16, 32)], lambda: list(source.captions())):
        with pytest.raises(DataError, match=r"00001-of-00003.* damaged .* encode it anew") as error:
            read()
        assert str(path) in str(error.value)


def test_a_full_disk_is_named_and_nothing_unfinished_stays(latents, tmp_path, monkeypatch):
    index = read_index(latents / "train")
    zeros = np.zeros(index.shape, np.float32)
    size = np.zeros(6, np.int32)
    image = {"encoded": zeros, "caption": "", "label": 0, "name": "a", "size": size}

    def to_full_disk(path, *more):
        path.symlink_to("/dev/full")
        write_records(path, *more)

    with monkeypatch.context() as patch:
        patch.setattr(shard_plans, "write_records", to_full_disk)
        with pytest.raises(OSError, match="/00000-of-.* written: the disk is full") as error:
            write_shard(tmp_path, index, 0, [image] * 16)
    assert told(error.value)[0] == 1 and not os.listdir(tmp_path)

    def interrupted():
        yield image
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path, index, 0, interrupted())
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop": "random"}, "cannot be cropped or mirrored"),
        ({"flip": True}, "cannot be cropped or mirrored"),
    ],
)
def test_augmented_images_are_refused(pictures, stage, encoder, tmp_path, settings, message):
    data = tiny.data(pictures)
    data = dataclasses.replace(data, source=dataclasses.replace(data.source, **settings))
    with pytest.raises(DataError, match=message):
        encode_split(stage, data, "train", tmp_path, EXACT, encoder)


def test_latents_that_are_not_finite_are_refused(stage, pictures, tmp_path):
    class Broken(encoding.Encoder):
        rows, kind, text = 8, "gaussian", None

        def __init__(self):
            pass

        def __call__(self, examples):
            return {"encoded": jnp.zeros((8, 8, 8, 8)).at[2].set(jnp.nan)}

    name = open_source(cfg.Data(tiny.data(pictures).source, 16), "train")[2]["name"]
    with pytest.raises(encoding.NonFiniteLatents, match=f"latents of {name} are not"):
        encode_split(stage, tiny.data(pictures), "train", tmp_path, EXACT, Broken())
    assert [path.name for path in (tmp_path / "train").iterdir()] == ["index.json"]


def test_train_takes_latents_in_the_place_of_images(pictures, tmp_path):
    config = tiny.write_config(tmp_path / "config.py", tiny.diffusion_run(pictures))
    found, _ = train.parse([f"--config={config}", "--workdir=run", "--latents=there"])
    assert found.data == dataclasses.replace(
        tiny.data(pictures), source=cfg.EncodedLatents("there")
    )


def test_what_does_not_fit_is_said(latents, pictures, stage, tmp_path):
    with pytest.raises(DataError, match="image_size is 32 x 32, but .* images of 16 x 16"):
        open_source(cfg.Data(cfg.EncodedLatents(str(latents)), 32), "train")
    with pytest.raises(DataError, match="has no encoded test images"):
        open_source(cfg.Data(cfg.EncodedLatents(str(latents)), 16), "test")
    with pytest.raises(cfg.ConfigError, match="a source of images in stage one"):
        dataclasses.replace(tiny.autoencoder_run(pictures), data=of(latents))
    with pytest.raises(cfg.ConfigError, match="has no codes"):
        encoding.Encoder(stage, encoding.Storage(what="codes"))


@pytest.mark.parametrize(
    "change", [{"shape": 3}, {"shape": ["a"]}, {"examples": -1}, {"shard_size": 0},
               {"examples": "4"}, {"dtype": "float8"}, {"class_names": [1]}, {"more": 1}, None],
)  # fmt: skip
def test_a_damaged_index_is_refused_by_name(latents, tmp_path, change):
    found = json.loads((latents / "train/index.json").read_text())
    path = tmp_path / "train/index.json"
    path.parent.mkdir()
    path.write_text("[" * 200_000 if change is None else json.dumps(found | change))
    with pytest.raises(DataError, match=r"index\.json is not a valid index of encoded images"):
        LatentsSource(cfg.EncodedLatents(str(tmp_path)), (16, 16), "train")


def test_codes_are_the_nearest_vectors():
    config = dataclasses.replace(tiny.AUTOENCODER, bottleneck=cfg.VQ(5))
    autoencoder = encoding.build_autoencoder(config)
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    draw = np.random.default_rng(1).standard_normal
    params = jax.tree.map(
        lambda x: draw(x.shape, np.float32) * 0.1, imported_model.autoencoder_shapes(config)
    )
    both = jax.jit(
        lambda *given: [
            encoding.encoded(autoencoder, kind, np.dtype(dtype), *given)
            for kind, dtype in (("point", "float32"), ("codes", "int32"))
        ]
    )
    latents, codes = both(params, images)
    vectors = np.asarray(params["quantize"]["embedding"]["embedding"])
    distances = ((np.asarray(latents)[..., None, :] - vectors) ** 2).sum(-1)
    np.testing.assert_array_equal(codes, distances.argmin(-1))
    assert codes.dtype == np.int32 and latents.shape == (2, 8, 8, 4)


def test_the_command_encodes_both_splits(pictures, trained_autoencoder, tmp_path, capsys):
    options = (
        f"--first_stage={trained_autoencoder}", f"--images={pictures}", f"--out={tmp_path}",
        "--data.image_size=16", "--data.source.validation_fraction=0.2",
    )  # fmt: skip
    assert command.main(list(options)) == 0
    shown = capsys.readouterr().out
    assert "train: 3" in shown and shown.count(f"data: 48 images in {pictures} (") == 1
    source = open_source(cfg.Data(cfg.EncodedLatents(str(tmp_path)), 16), "validation")
    assert source[0]["encoded"].dtype.name == "bfloat16" and len(source) > 4
    assert list(source.names()) == [*open_source(tiny.data(pictures), "validation").names()]
    assert command.main([]) == 2
    assert "--first_stage" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    for wrong, complaint in (
        (("--process_id=2", "--num_processes=2"), "--process_id=2: it must be from 0 to 1"),
        (("--coordinator=localhost:1",), "--num_processes and --process_id missing"),
        (("--num_processes=2",), "--num_processes=N and --process_id=I are given together"),
        (("--batch_size=0",), "batch_size is 0"),
        ((f"--out={tmp_path / 'file' / 'below'}",), "file is a file"),
        ((f"--out={pictures}",), f"--out={pictures} is the folder of the images"),
        ((f"--out={pictures / 'three'}",), f"lies in {pictures}, the folder of the images"),
        ((f"--out={trained_autoencoder}",), "is the folder of the first stage"),
        (("--out=",), "--out is empty; name a file or folder"),
        (("--first_stage", ""), "--first_stage is empty"),
    ):
        assert command.main([*options, *wrong]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert complaint in line
