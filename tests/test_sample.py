"""`sample.py`: files that say how they were made, and pictures that can be made again."""

import hashlib
import json
import signal
import time

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from PIL import Image, PngImagePlugin

import ldm_jax
import sample as program
from ldm_jax.cli import sample
from ldm_jax.cli.sample_arguments import parse
from ldm_jax.core.stores import as_path
from ldm_jax.generation.pipeline import Pipeline
from ldm_jax.models.pixels import to_pixels

PROMPTS = ("a red three alone", "a blue seven above a green one")


def options(**values):
    """`--name=value` of each, lists with their values apart."""
    words = []
    for name, value in values.items():
        if isinstance(value, tuple):
            words += [f"--{name}", *map(str, value)]
        else:
            words.append(f"--{name}" if value is True else f"--{name}={value}")
    return words


def redraw(out, *words):
    return sample.draw(parse([f"--out={out}", *map(str, words)]))


@pytest.fixture(scope="module")
def draw(trained_text2img):
    """`draw(out, **options)`: runs the command; returns the folder."""

    def run(out, **more):
        fast = {"steps": 2, "batch_size": 4, "guidance": 2.0, "seed": 7} | more
        assert redraw(out, f"--model={trained_text2img}", *options(**fast)) == out / "grid.png"
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
        said = json.loads(picture.text["ldm_jax"])
    assert said["request"] == {
        "prompt": [PROMPTS[1]], "num": 1, "first_prompt": 1, "first_image": 0,
        "sampler": "ddim", "steps": 2, "guidance_scale": 2.0, "eta": 0.0, "spacing": "trailing",
        "unknown_words": "refuse",
        "seed": 7, "height": 16, "width": 16, "batch_size": 4, "guidance_schedule": "constant",
        "resample": 1, "resample_jump": 1, "invert_mask": False, "latents_row": 0,
        "model": str(trained_text2img), "tileable": False, "literal_prompts": False,
        "guess_mode": False,
    }  # fmt: skip
    assert said["filled"] == ["sampler", "eta", "spacing", "height", "width"]
    assert said["origin"] == {
        "source": "run",
        "kind": "workdir",
        "weights": "ema",
        "step": 24,
        "dtype": "float32",
    }


def test_the_manifest_lists_every_file_with_its_digest(drawn):
    manifest = json.loads((drawn / "manifest.json").read_text())
    files = {entry["file"]: entry for entry in manifest["images"]}
    assert sorted(files) == ["0000_0000.png", "0000_0001.png", "0001_0000.png", "0001_0001.png"]
    assert {path.name for path in drawn.iterdir()} == {*files, "grid.png", "manifest.json"}
    for name, entry in files.items():
        assert hashlib.sha256((drawn / name).read_bytes()).hexdigest() == entry["sha256"]
        assert entry["condition"] == PROMPTS[int(name[:4])]
    assert manifest["request"]["seed"] == 7 and manifest["request"]["num"] == 2
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


def run_main(*words):
    return program.main([str(word) for word in words])


def test_processes_write_the_folder_of_one(draw, trained_text2img, store, tmp_path, capsys):
    """Two batches, drawn by three processes; and by two into a store."""
    how = {"prompt": PROMPTS, "num": 3, "progress_strip": 2}
    whole, out = draw(tmp_path / "one", **how), tmp_path / "out"
    fast = {"steps": 2, "batch_size": 4, "guidance": 2.0, "seed": 7} | how
    words = (f"--model={trained_text2img}", *options(**fast), f"--out={out}", "--num_processes=3")
    assert run_main(*words, "--process_id=1") == 0
    assert [path.name for path in out.iterdir()] == [".parts_of_3"]
    captured = capsys.readouterr()
    assert captured.out == "" and "1 other processes draw still" in captured.err
    assert run_main(*words, "--process_id=2") == 0
    assert "process 2 has none" in capsys.readouterr().err
    assert run_main(*words, "--process_id=1", "--seed=8") == 2
    assert "holds a part of another drawing; delete " in capsys.readouterr().err
    assert run_main(*words, "--process_id=0") == 0
    assert capsys.readouterr().out.strip() == str(out / "grid.png")
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}
    for path in whole.iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes(), path.name
    assert run_main(*words, "--process_id=0", "--benchmark") == 2
    assert "leave it out with --benchmark" in capsys.readouterr().err

    stored = as_path("gs://bucket/drawn/out")
    words = (*words[:-2], f"--out={stored}", "--num_processes=2")
    assert run_main(*words, "--process_id=1") == 0
    assert "1 other processes draw still" in capsys.readouterr().err
    assert {name.partition("/")[0] for name in stored.files()} == {".parts_of_2"}
    assert run_main(*words, "--process_id=0") == 0
    assert capsys.readouterr().out.strip() == f"{stored}/grid.png"
    assert {*stored.files()} == {path.name for path in whole.iterdir()}
    for path in whole.iterdir():
        assert (stored / path.name).read_bytes() == path.read_bytes(), path.name
    assert run_main(*words, "--process_id=0", "--overwrite") == 2
    assert "is not empty, and nothing is overwritten in a store" in capsys.readouterr().err


def test_the_command_line_prints_the_grid(trained_text2img, tmp_path, capsys):
    out = tmp_path / "out"
    words = (f"--model={trained_text2img}", "--prompt", *PROMPTS, "--steps=2", f"--out={out}")
    assert run_main(*words, "--batch_size=4", "--guidance=2") == 0
    assert capsys.readouterr().out.strip() == str(out / "grid.png")
    assert len(list(out.glob("*_*.png"))) == 2


def test_an_interrupted_drawing_says_and_lists_what_is_finished(
    trained_text2img, programs, tmp_path
):
    out = tmp_path / "out"
    words = (f"--model={trained_text2img}", f"--prompt={PROMPTS[0]}", "--num=9999", "--steps=2")
    process = tiny.start(
        "sample.py", *words, "--guidance=2", "--batch_size=4", f"--out={out}", programs=programs
    )
    deadline = time.monotonic() + tiny.PATIENCE
    while not (out / "0000_0003.png").exists():
        assert process.poll() is None and time.monotonic() < deadline, tiny.finish(process)[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said = tiny.check(process, status=130).splitlines()[-1]
    listed = [entry["file"] for entry in json.loads((out / "manifest.json").read_text())["images"]]
    assert said == (
        f"sample.py: interrupted by SIGTERM; {len(listed)} of 9999 pictures are finished, in {out} "
        "and listed in its manifest.json"
    )
    assert {p.name for p in out.iterdir()} == {*listed, "grid.png", "manifest.json"}


def test_what_cannot_be_drawn_is_explained_before_anything_is_written(
    trained_text2img, drawn, pictures, tmp_path, capsys
):
    model, out = f"--model={trained_text2img}", f"--out={tmp_path / 'out'}"
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "bad.txt").write_text("a red one alone\n\na mauve one alone\n")
    (tmp_path / "latin.txt").write_bytes("für".encode("latin-1"))
    for words, complaint in (
        ((model, f"--out={drawn}"), "is not empty; choose another, or --overwrite"),
        ((model, out, "--num=0"), "num is 0; it must be 1 or more"),
        ((model, out, "--prompt=a mauve three alone"), "mauve"),
        (
            (model, out, f"--prompts={tmp_path / 'bad.txt'}"),
            f"does not know 'mauve' in {tmp_path / 'bad.txt'}, line 3, 'a mauve one alone'; ",
        ),
        ((model, out, "--prompt=a (red:1.2) one alone"), "needs CLIP's text encoder"),
        ((model, out, "--classes", "3"), "conditioned on captions"),
        ((model, out, "--classes", "3", "--prompt=a red one alone"), "not both"),
        ((model, out, f"--prompts={tmp_path / 'absent'}"), "absent: does not exist"),
        ((model, out, f"--prompts={tmp_path / 'empty.txt'}"), "has no caption in it"),
        ((model, out, "--steps=0"), "steps is 0; it must be None or a whole number of at least 1"),
        ((model, out, "--num=70000"), "at most 65536 of each"),
        (
            (model, out, "--guidance=1", "--negative_prompt=a red one alone"),
            "with --guidance 1 nothing leads away",
        ),
        ((model, out, f"--prompts={tmp_path / 'latin.txt'}"), "latin.txt: is not UTF-8 text"),
        ((model, f"--out={tmp_path / 'empty.txt'}"), "empty.txt is a file; name a folder"),
        ((f"--model={tmp_path / 'absent'}", out), "absent: there is no such file or folder"),
        ((model, out, "--vae=nope"), "--vae=nope: there is no such file or folder"),
        ((model, out, "--lora=nope:0.5"), "--lora is nope; there is no such file or folder"),
        ((model, out, "--lora=nope:1:2:3"), "two strengths at most, FILE:TE:UNET"),
        ((model, "--out="), "--out is empty; name a file or folder"),
        ((model, f"--out={pictures}", "--overwrite"), "has files but no manifest.json"),
    ):
        assert run_main(*words) == 2
        assert complaint in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


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
        settings = json.loads(other.text["ldm_jax"])["request"]
    assert settings["seed"] == 8 and settings["prompt"] == [PROMPTS[0]]
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
        "--strength=0.8", "--steps=3", f"--latents={tmp_path / 'noise.npy'}",
        "--sampler=euler_a", "--batch_size=2",
    )  # fmt: skip
    picture = tmp_path / "first" / "0000_0002.png"
    redraw(tmp_path / "again", f"--from_png={picture}")
    assert same(picture, tmp_path / "again" / picture.name)
    # The usual softness of so small a picture's mask is none.
    before = pixels(drawn / "0000_0000.png")[:, :8]
    np.testing.assert_array_equal(pixels(picture)[:, :8], before)


def png(path, **chunks):
    text = PngImagePlugin.PngInfo()
    for key, value in chunks.items():
        text.add_itxt(key, value)
    Image.new("RGB", (16, 16)).save(path, pnginfo=text)
    return path


def test_a_picture_cannot_say_where_to_write(trained_text2img, drawn, tmp_path, capsys):
    wicked = {"model": str(trained_text2img), "prompt": [PROMPTS[0]], "steps": 2, "num": 99,
              "out": str(drawn), "overwrite": True, "batch_size": 4, "weak_model": "hf:a/b",
              "seed": "abc", "clip_skip": 2}  # fmt: skip
    path = png(tmp_path / "wicked.png", ldm_jax=json.dumps({"request": wicked}))
    assert redraw(tmp_path / "out", f"--from_png={path}") == tmp_path / "out" / "grid.png"
    assert len(list((tmp_path / "out").glob("0*.png"))) == 1
    said = capsys.readouterr().err
    for words in (
        "wicked.png: left out: 'out' is no setting of a drawing",
        "wicked.png: left out: seed is 'abc'; it must be a whole number",
        "weak_model is 'hf:a/b', which is named by you or not at all",
        f"wicked.png names --model={trained_text2img}, which is read",
        "note: clip_skip is left out: this model has no CLIP text encoder",
    ):
        assert words in said
    for chunk, complaint in (
        ("[1]", "is not a JSON object"),
        ("{", "is not JSON"),
        ('{"request": 3}', "is damaged: it holds no request"),
        ('{"request": {}, "request": {}}', "names 'request' twice"),
        ("[" * 100_000, "nested too deeply"),
    ):
        path = png(tmp_path / "bad.png", ldm_jax=chunk)
        with pytest.raises(ValueError, match=f"bad.png: .*{complaint}"):
            parse([f"--from_png={path}"])


def test_settings_of_the_web_ui_are_understood(tmp_path, capsys):
    text = (
        "a (red:1.2) cat\r\nNegative prompt: ugly\r\nSteps: 12, Sampler: DPM++ 2M Karras, CFG "
        "scale: 6.5, Seed: 3, Seed: 4, Size: 24x16, Denoising strength: 0.5, Clip skip: two, "
        "Model: v1-5\r\nTemplate: a cat"
    )
    path = png(tmp_path / "web.png", parameters=text)
    model = "--model=x"
    found = parse([model, f"--from_png={path}", "--guidance=1", "--negative_prompt="]).request
    assert found.prompt == ("a (red:1.2) cat",) and found.negative_prompt == ""
    sampling = found.sampling
    assert (sampling.steps, sampling.sampler, sampling.spacing) == (12, "dpmpp_2m", "karras")
    assert (sampling.guidance_scale, sampling.seed) == (1, 4)
    assert (sampling.width, sampling.height) == (24, 16)
    # Without the picture that it was for, a strength says nothing.
    assert sampling.strength is None and found.model.clip_skip is None
    said = capsys.readouterr().err
    for words in ("strength is for a picture", "Clip skip is 'two'", "Seed is there twice, as '3'",
                  "lines after its settings: 'Template: a cat'"):  # fmt: skip
        assert f"web.png: left out: {words}" in said or words in said
    with_picture = parse([model, f"--from_png={path}", "--init_image=a.png"])
    assert with_picture.request.sampling.strength == 0.5


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
    trained_text2img, drawn, tmp_path, capsys
):
    picture = drawn / "0000_0001.png"
    words = (
        f"--model={trained_text2img}", "--prompt", PROMPTS[0], "--steps=50", "--batch_size=4",
        "--guidance=1",
    )  # fmt: skip
    out = tmp_path / "noise"
    assert run_main(*words, f"--invert={picture}", f"--out={out}") == 0
    assert capsys.readouterr().out.strip() == str(out / "noise.npy")
    noise = f"--latents={out / 'noise.npy'}"
    assert run_main(*words, noise, f"--out={tmp_path / 'again'}") == 0
    # What the first stage, hardly trained, keeps of the picture is all that can come back.
    pipeline = Pipeline(trained_text2img)
    shown = to_pixels(jnp.asarray(pixels(picture)[None]))
    mean = pipeline.model.encode(pipeline.frozen, shown, jnp.zeros((1, 8, 8, 4)))
    kept = pipeline.decode(np.asarray(mean))[0].astype(int)
    found = [tmp_path / "again" / "0000_0000.png", drawn / "0000_0000.png"]
    again, other = (np.abs(pixels(path) - kept).mean() for path in found)
    assert again < 0.2 * other, (again, other)


def test_options_that_do_not_fit_previews_or_inversion(tmp_path):
    for more, complaint in (
        ({"progress_strip": 1}, "--progress_strip=1: it must be 2 to 1000"),
        ({"video": True}, "--video needs --progress_strip=K"),
        ({"invert": tmp_path, "latents": tmp_path}, "leave out --latents"),
        ({"invert": tmp_path, "progress_strip": 3}, "leave out --progress_strip"),
        ({"invert": tmp_path, "num": 2}, "leave out --num"),
        ({"benchmark": True, "progress_strip": 3}, "leave out --progress_strip"),
    ):
        with pytest.raises(ValueError, match=complaint):
            parse([f"--model={tmp_path}", *options(**more)])
