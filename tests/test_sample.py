"""`sample.py`: files that say how they were made, and pictures that can be made again."""

import hashlib
import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

import ldm_jax
import sample
from ldm_jax.generation.pipeline import Pipeline
from ldm_jax.latent_diffusion import to_pixels

PROMPTS = ("a red three alone", "a blue seven above a green one")


@pytest.fixture(scope="module")
def draw(trained_text2img):
    """`draw(out, **options)`: runs the command; returns the folder."""

    def run(out, **options):
        fast = {"steps": 2, "batch_size": 4, "guidance": 2.0, "seed": 7} | options
        assert sample.run(sample.Arguments(trained_text2img, out, **fast)) == out / "grid.png"
        return out

    return run


@pytest.fixture(scope="module")
def drawn(draw, tmp_path_factory):
    return draw(tmp_path_factory.mktemp("drawn") / "out", prompt=PROMPTS, num=2)


def pixels(path):
    return np.asarray(Image.open(path))


def test_every_picture_says_how_it_was_made(drawn, trained_text2img):
    with Image.open(drawn / "0001_0000.png") as picture:
        assert picture.size == (16, 16)
        settings = json.loads(picture.text["ldm_jax"])
    assert settings == {
        "sampler": "ddim", "steps": 2, "guidance_scale": 2.0, "eta": 0.0, "spacing": "trailing",
        "seed": 7, "height": 16, "width": 16, "batch_size": 4, "tile": None,
        "sections": [], "timesteps": [], "sigmas": [],
        "guidance_schedule": "constant", "guidance_interval": None, "guidance_rescale": None,
        "autoguidance_scale": None, "classifier_scale": None, "classifier_form": None,
        "threshold": None, "resample": 1, "resample_jump": 1,
        "corrector": None, "corrector_steps": 1, "snr": 0.16,
        "model": str(trained_text2img), "condition": PROMPTS[1], "prompt_number": 1,
        "image_number": 0,
        "origin": {"source": "run", "kind": "workdir", "weights": "ema", "step": 24,
                   "dtype": "float32"},
    }  # fmt: skip


def test_the_manifest_lists_every_file_with_its_digest(drawn):
    manifest = json.loads((drawn / "manifest.json").read_text())
    files = {entry["file"]: entry for entry in manifest["images"]}
    assert sorted(files) == ["0000_0000.png", "0000_0001.png", "0001_0000.png", "0001_0001.png"]
    assert {path.name for path in drawn.iterdir()} == {*files, "grid.png", "manifest.json"}
    for name, entry in files.items():
        assert hashlib.sha256((drawn / name).read_bytes()).hexdigest() == entry["sha256"]
        assert entry["condition"] == PROMPTS[int(name[:4])]
    assert manifest["settings"]["seed"] == 7
    assert manifest["versions"]["ldm_jax"] == ldm_jax.__version__
    assert {"jax", "jaxlib", "flax", "numpy", "devices"} <= manifest["versions"].keys()
    grid = pixels(drawn / "grid.png")
    assert grid.shape[0] > 2 * 128 and grid.shape[1] > 2 * 128


def test_a_picture_depends_neither_on_num_nor_on_the_other_prompts(draw, drawn, tmp_path):
    more = draw(tmp_path / "more", prompt=(PROMPTS[0], "a green one alone"), num=5)
    for name in ("0000_0000.png", "0000_0001.png"):
        np.testing.assert_array_equal(pixels(more / name), pixels(drawn / name))
    (tmp_path / "prompts.txt").write_text(f"{PROMPTS[0]}\n\n  {PROMPTS[1]}  \n")
    again = draw(tmp_path / "again", prompts=tmp_path / "prompts.txt", num=1)
    for name in ("0000_0000.png", "0001_0000.png"):
        np.testing.assert_array_equal(pixels(again / name), pixels(drawn / name))


def test_the_same_command_writes_the_same_files(draw, drawn, tmp_path):
    again = draw(tmp_path / "again", prompt=PROMPTS, num=2)
    for path in drawn.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes()


def run_main(monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["sample.py", *map(str, options)])
    return sample.main()


def test_the_command_line_prints_the_grid(trained_text2img, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    options = (f"--model={trained_text2img}", "--prompt", *PROMPTS, "--steps=2", f"--out={out}")
    assert run_main(monkeypatch, *options, "--batch_size=4", "--guidance=2") == 0
    assert capsys.readouterr().out.strip() == str(out / "grid.png")
    assert len(list(out.glob("*_*.png"))) == 2


def test_what_cannot_be_drawn_is_explained_before_anything_is_written(
    trained_text2img, drawn, tmp_path, monkeypatch, capsys
):
    model, out = f"--model={trained_text2img}", f"--out={tmp_path / 'out'}"
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "latin.txt").write_bytes("für".encode("latin-1"))
    for options, complaint in (
        ((model, f"--out={drawn}"), "is not empty; choose another, or --overwrite"),
        ((model, out, "--num=0"), "--num=0: it must be 1 or more"),
        ((model, out, "--prompt=a mauve three alone"), "mauve"),
        ((model, out, "--classes", "3"), "conditioned on captions"),
        ((model, out, "--classes", "3", "--prompt=a red one alone"), "not both"),
        ((model, out, f"--prompts={tmp_path / 'absent'}"), "there is no such file"),
        ((model, out, f"--prompts={tmp_path / 'empty.txt'}"), "has no caption in it"),
        ((model, out, "--steps=0"), "steps is 0; it must be 1 or more"),
        ((model, out, "--num=70000"), "at most 65536 of each"),
        ((model, out, "--guidance=1", "--negative_prompt=a red one alone"), "at 1 there is none"),
        ((model, out, f"--prompts={tmp_path / 'latin.txt'}"), "latin.txt is not UTF-8 text"),
        ((model, f"--out={tmp_path / 'empty.txt'}"), "empty.txt is a file; name a folder"),
        ((f"--model={tmp_path / 'absent'}", out), "absent does not exist"),
    ):
        assert run_main(monkeypatch, *options) == 2
        assert complaint in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def redraw(out, *options):
    return sample.run(sample.parse([f"--out={out}", *map(str, options)]))


def same(picture, again):
    return picture.read_bytes() == again.read_bytes()


def test_a_picture_can_be_drawn_again_from_itself(drawn, tmp_path):
    picture = drawn / "0001_0001.png"
    redraw(tmp_path / "a", f"--from_png={picture}")
    assert [p.name for p in (tmp_path / "a").glob("0*.png")] == [picture.name]
    assert same(picture, tmp_path / "a" / picture.name)
    # More of the same prompt, from that number on.
    redraw(tmp_path / "b", f"--from_png={picture}", "--num=2")
    assert same(picture, tmp_path / "b" / picture.name)
    assert (tmp_path / "b" / "0001_0002.png").exists()
    # What is given goes before what the picture says.
    redraw(tmp_path / "c", f"--from_png={picture}", "--seed=8", f"--prompt={PROMPTS[0]}")
    with Image.open(tmp_path / "c" / picture.name) as other:
        settings = json.loads(other.text["ldm_jax"])
    assert settings["seed"] == 8 and settings["condition"] == PROMPTS[0]
    assert settings["steps"] == 2


def test_a_painted_picture_can_be_drawn_again_from_itself(trained_text2img, drawn, tmp_path):
    white = np.zeros((16, 16), np.uint8)
    white[:, 8:] = 255
    Image.fromarray(white).save(tmp_path / "mask.png")
    noise = np.random.default_rng(0).standard_normal((3, 8, 8, 4)).astype(np.float32)
    np.save(tmp_path / "noise.npy", noise)
    redraw(
        tmp_path / "first", f"--model={trained_text2img}", "--prompt", PROMPTS[0], "--num=3",
        f"--init_image={drawn / '0000_0000.png'}", f"--mask={tmp_path / 'mask.png'}",
        "--mask_blur=1", "--strength=0.8", "--steps=3", f"--latents={tmp_path / 'noise.npy'}",
        "--sampler=euler_a", "--batch_size=2",
    )  # fmt: skip
    picture = tmp_path / "first" / "0000_0002.png"
    redraw(tmp_path / "again", f"--from_png={picture}")
    assert same(picture, tmp_path / "again" / picture.name)
    before = pixels(drawn / "0000_0000.png")[:, :4]
    np.testing.assert_array_equal(pixels(picture)[:, :4], before)


def png(path, **chunks):
    text = PngImagePlugin.PngInfo()
    for key, value in chunks.items():
        text.add_itxt(key, value)
    Image.new("RGB", (16, 16)).save(path, pnginfo=text)
    return path


def test_a_picture_cannot_say_where_to_write(trained_text2img, drawn, tmp_path):
    wicked = {"model": str(trained_text2img), "condition": PROMPTS[0], "steps": 2, "num": 99,
              "out": str(drawn), "overwrite": True, "batch_size": 4}  # fmt: skip
    path = png(tmp_path / "wicked.png", ldm_jax=json.dumps(wicked))
    assert redraw(tmp_path / "out", f"--from_png={path}") == tmp_path / "out" / "grid.png"
    assert len(list((tmp_path / "out").glob("0*.png"))) == 1
    for chunk, complaint in (
        ('{"steps": "abc"}', "says that steps is 'abc'"),
        ("[1]", "damaged settings"),
        ("{", "damaged settings"),
    ):
        path = png(tmp_path / "bad.png", ldm_jax=chunk)
        with pytest.raises(ValueError, match=complaint):
            sample.parse([f"--from_png={path}"])


def test_settings_of_the_web_ui_are_understood(tmp_path):
    text = (
        "a (red:1.2) cat\nNegative prompt: ugly\nSteps: 12, Sampler: DPM++ 2M Karras, CFG scale: "
        "6.5, Seed: 4, Size: 24x16, Denoising strength: 0.5, Clip skip: 2, Model: v1-5"
    )
    path = png(tmp_path / "web.png", parameters=text)
    found = sample.parse([f"--from_png={path}", "--guidance=1", "--negative_prompt="])
    assert found.prompt == ("a (red:1.2) cat",) and found.negative_prompt == ""
    assert (found.steps, found.sampler, found.spacing) == (12, "dpmpp_2m", "karras")
    assert (found.guidance, found.seed, found.width, found.height) == (1, 4, 24, 16)
    # Without the picture that it was for, a strength says nothing.
    assert found.strength is None and found.clip_skip == 2
    assert sample.parse([f"--from_png={path}", "--init_image=a.png"]).strength == 0.5


def test_a_misspelt_option_is_explained(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        run_main(monkeypatch, "--model=x", "--guidence=2")
    assert stop.value.code == 2
    written = capsys.readouterr()
    assert "perhaps you meant" in (written.out + written.err).lower()


def test_a_strip_and_a_video_beside_each_picture(draw, tmp_path):
    out = draw(
        tmp_path / "out", prompt=PROMPTS, steps=4, batch_size=2, progress_strip=3, video=True
    )
    for name in ("0000_0000", "0001_0000"):
        strip = pixels(out / f"{name}_strip.png")
        assert strip.shape == (16 + 2 * 2, 3 * (16 + 2) + 2, 3)
        last = strip[2:18, -18:-2]
        np.testing.assert_allclose(last.astype(int), pixels(out / f"{name}.png"), atol=1)
        with Image.open(out / f"{name}.webp") as video:
            assert video.n_frames == 3 and video.size == (16, 16)
    beside = [e["beside"] for e in json.loads((out / "manifest.json").read_text())["images"]]
    assert beside[1] == ["0001_0000_strip.png", "0001_0000.webp"]
    # Drawn anew into the same folder without them, they go.
    draw(out, prompt=PROMPTS, steps=4, batch_size=2, overwrite=True)
    assert not list(out.glob("*strip*")) and not list(out.glob("*.webp"))


def test_a_picture_is_inverted_and_drawn_again_from_the_file(
    trained_text2img, drawn, tmp_path, monkeypatch, capsys
):
    picture = drawn / "0000_0001.png"
    options = (
        f"--model={trained_text2img}", "--prompt", PROMPTS[0], "--steps=50", "--batch_size=4",
        "--guidance=1",
    )  # fmt: skip
    out = tmp_path / "noise"
    assert run_main(monkeypatch, *options, f"--invert={picture}", f"--out={out}") == 0
    assert capsys.readouterr().out.strip() == str(out / "noise.npy")
    noise = f"--latents={out / 'noise.npy'}"
    assert run_main(monkeypatch, *options, noise, f"--out={tmp_path / 'again'}") == 0
    # What the first stage, hardly trained, keeps of the picture is all that can come back.
    pipeline = Pipeline(trained_text2img)
    shown = to_pixels(jnp.asarray(pixels(picture)[None]))
    mean = pipeline.model.encode(pipeline.frozen, shown, jnp.zeros((1, 8, 8, 4)))
    kept = pipeline.decode(np.asarray(mean))[0].astype(int)
    found = [tmp_path / "again" / "0000_0000.png", drawn / "0000_0000.png"]
    again, other = (np.abs(pixels(path) - kept).mean() for path in found)
    assert again < 0.2 * other, (again, other)


def test_options_that_do_not_fit_previews_or_inversion(tmp_path):
    for options, complaint in (
        ({"progress_strip": 1}, "--progress_strip=1: it must be 2 or more"),
        ({"video": True}, "--video needs --progress_strip=K"),
        ({"invert": tmp_path, "latents": tmp_path}, "leave out --latents"),
        ({"invert": tmp_path, "progress_strip": 3}, "leave out --progress_strip"),
        ({"invert": tmp_path, "num": 2}, "leave out --num"),
    ):
        with pytest.raises(ValueError, match=complaint):
            sample.run(sample.Arguments(tmp_path, tmp_path / "out", **options))
