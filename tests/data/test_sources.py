import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm_jax import config as cfg
from ldm_jax.data import digit_scenes, digit_scenes_builder, sources


def _write(path, colour=(200, 10, 10), size=(9, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def _open(root, split="train", **settings):
    settings = {"validation_fraction": 0.0} | settings
    return sources.open_source(cfg.Data(cfg.ImageFolder(path=str(root), **settings), 8), split)


def test_subfolders_are_classes(tmp_path):
    for name in ("cat/b.png", "cat/deep/a.png", "ant/z.webp", ".hidden/x.png", "cat/.x.png"):
        _write(tmp_path / name)
    source = _open(tmp_path)
    assert source.class_names == ("ant", "cat") and not source.has_captions
    assert tuple(source.names()) == ("ant/z.webp", "cat/b.png", "cat/deep/a.png")
    assert [source[i]["label"] for i in range(3)] == [0, 1, 1]
    example = source[1]
    assert example["image"].shape == (6, 9, 3) and example["image"].dtype == np.uint8
    assert tuple(example["image"][0, 0]) == (200, 10, 10) and example["caption"] == ""
    assert isinstance(source, sources.Source)


def test_validation_can_have_a_folder_of_its_own(tmp_path):
    for name in ("a/cat/1.png", "a/cat/2.png", "b/cat/1.png", "c/dog/1.png"):
        _write(tmp_path / name)
    how = {"validation_path": str(tmp_path / "b"), "validation_fraction": 0.05}
    train, found = (_open(tmp_path / "a", split, **how) for split in ("train", "validation"))
    assert (len(train), len(found)) == (2, 1)
    assert train.found.startswith(f"2 images in {tmp_path / 'a'} for training, no captions")
    assert found.found.startswith(f"1 images in {tmp_path / 'b'} for validation, no captions")
    assert sources.has_validation(cfg.ImageFolder(**how | {"validation_fraction": 0.0}))
    sources.check_alike(train, found)
    other = _open(tmp_path / "a", "validation", **how | {"validation_path": str(tmp_path / "c")})
    with pytest.raises(sources.DataError, match="same classes: cat in 2 .*; dog in 1 images"):
        sources.check_alike(train, other)
    with pytest.raises(sources.DataError, match="data.source.validation_path is 'd', which is not"):
        _open(tmp_path / "a", "validation", **how | {"validation_path": "d"})


def test_images_beside_classes_are_an_error(tmp_path):
    _write(tmp_path / "cat/a.png")
    _write(tmp_path / "b.png")
    with pytest.raises(sources.DataError, match=r"1 outside of them, such as b\.png"):
        _open(tmp_path)


def test_captions_from_text_files(tmp_path):
    for name in ("a", "b"):
        _write(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(f"picture {name}\n")
    (tmp_path / "readme.txt").write_text("not a caption")
    source = _open(tmp_path)
    assert [source[i]["caption"] for i in range(2)] == ["picture a", "picture b"]
    assert source.class_names == () and source[0]["label"] == 0
    (tmp_path / "b.txt").unlink()
    with pytest.raises(sources.DataError, match=r"1 of 2 images .* no caption, among them b\.png"):
        _open(tmp_path)
    _write(tmp_path / "a.jpg")
    with pytest.raises(
        sources.DataError, match=r"a\.txt is the caption of two images, a\.jpg and a\.png"
    ):
        _open(tmp_path)


def _metadata(root, *lines):
    text = "\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines)
    (root / "metadata.jsonl").write_text(text)


def test_captions_from_metadata(tmp_path):
    for name in ("a.png", "sub/b.png"):
        _write(tmp_path / name)
    a, b = {"file_name": "a.png", "text": "é a"}, {"file_name": "./sub/b.png", "text": "b"}
    _metadata(tmp_path, b, "", a)
    source = _open(tmp_path)
    assert [source[i]["caption"] for i in range(2)] == ["é a", "b"]
    for lines, message in (
        ((a, b, {"file_name": "c.png", "text": "c"}), r"line 3 names 'c\.png', which is no image"),
        ((a, a, b), r"line 2 names 'a\.png' for the second time"),
        ((a, "{"), "line 2 is not JSON"),
        ((a, "[1]"), "line 2 is not a JSON object"),
        ((a, '{"file_name": "sub/b.png", "text": "b", "text": "c"}'), "line 2 names 'text' twice"),
        ((a, "[" * 200_000), "line 2 is not JSON: nested too deeply"),
        ((a, {"file_name": "sub/b.png"}), 'line 2 needs "file_name" and "text"'),
        ((a,), r"1 of 2 images .* sub/b\.png"),
    ):
        _metadata(tmp_path, *lines)
        with pytest.raises(ValueError, match=message):
            _open(tmp_path)
    _metadata(tmp_path, a, b)
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(sources.DataError, match="captions in more than one place"):
        _open(tmp_path)


def _captions(root):
    source = _open(root)
    return dict(zip(source.names(), source.captions(), strict=True))


def test_captions_from_a_table(tmp_path):
    for name in ("a.png", "sub/b.png"):
        _write(tmp_path / name)
    table = tmp_path / "metadata.csv"
    table.write_bytes(
        b'\xef\xbb\xbfsource,file_name,text\r\nx,a.png,"red, and\r\nblue"\r\n'
        b"\r\ny,sub/b.png,\xe2\x80\xa8b\r\n"
    )
    assert _captions(tmp_path) == {"a.png": "red, and\nblue", "sub/b.png": "b"}
    for text, message in (
        ("file_name;text\na.png;b\n", "columns 'file_name;text'; it needs \"file_name\" and"),
        ("file_name,text,text\n", "once each"),
        ("", "needs"),
        ("file_name,text\na.png,red, blue\n", "line 2 has 3 columns instead of 2"),
        ("file_name,text\na.png,x\na.png,y\n", r"line 3 names 'a\.png' for the second time"),
        ('file_name,text\na.png,"x" y\n', "line 2 is not valid CSV"),
        ("file_name,text\na.png,x\n", r"1 of 2 images .* sub/b\.png"),
    ):
        table.write_text(text)
        with pytest.raises(sources.DataError, match=message):
            _open(tmp_path)
    _metadata(tmp_path, {"file_name": "a.png", "text": "a"})
    with pytest.raises(sources.DataError, match=r"place: metadata\.jsonl and metadata\.csv"):
        _open(tmp_path)


def test_texts_are_read_as_they_were_meant(tmp_path):
    """Marks, line ends and separators of other systems; what is no text is named."""
    for name in "abcd":
        _write(tmp_path / f"{name}.PNG")
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    (tmp_path / "b.txt").write_bytes("é".encode("utf-16"))
    (tmp_path / "c.TXT").write_bytes("x\u2028y\x0cz\n".encode())
    (tmp_path / "d.txt").write_bytes(b"")
    assert _captions(tmp_path) == {
        "a.PNG": "one\ntwo", "b.PNG": "é", "c.PNG": "x\u2028y\x0cz", "d.PNG": ""
    }  # fmt: skip
    assert "captions from .txt files (1 of them empty)" in _open(tmp_path).found
    (tmp_path / "d.txt").write_bytes(b"a\ncaf\xe9")
    with pytest.raises(ValueError, match=r"d\.txt: is not UTF-8 text: byte 5, in line 2, is 0xe9"):
        _open(tmp_path)
    (tmp_path / "d.txt").write_bytes(b"a\0b\0")
    with pytest.raises(ValueError, match=r"d\.txt: is no text: character 1, in line 1, is 0x00"):
        _open(tmp_path)
    for name in "abcd":
        for text in tmp_path.glob(f"{name}.[tT]*"):
            text.unlink()
    lines = [json.dumps({"file_name": f"{n}.PNG", "text": f"{n}\u2028{n}"}, ensure_ascii=False)
             for n in "abcd"]  # fmt: skip
    (tmp_path / "metadata.jsonl").write_bytes("\ufeff".encode() + "\r\n".join(lines).encode())
    assert _captions(tmp_path)["a.PNG"] == "a\u2028a"


def test_names_of_other_systems(tmp_path):
    """Letters that a file system has taken apart, and bytes that are not UTF-8."""
    _write(tmp_path / "e\u0301.png")
    _write(tmp_path / os.fsdecode(b"caf\xe9.png"))
    lines = [{"file_name": "\xe9.png", "text": "a"}, {"file_name": "caf\udce9.png", "text": "b"}]
    _metadata(tmp_path, *lines)
    assert sorted(_captions(tmp_path).values()) == ["a", "b"]
    source = _open(tmp_path)
    assert source[0]["image"].shape == source[1]["image"].shape == (6, 9, 3)
    source.found.encode()


def test_a_line_says_what_was_found_and_what_was_left_out(tmp_path):
    root = tmp_path / "data"
    for name in ("x/a.png", "x/B.JPG", "y/c.jfif", "y/.d.png", ".trash/e.png", "y/f.ppm"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path, "PPM" if name.endswith("ppm") else None)
    for name in ("g.heic", "h.HEIC", "notes.txt", "LICENSE"):
        (root / "y" / name).write_text("")
    os.mkfifo(root / "y/pipe.png")
    (root / "y/lost.png").symlink_to(root / "absent.png")
    (root / "y/again").symlink_to(root / "x")
    (root / "x/linked.png").symlink_to(root / "x/a.png")
    assert _open(root).found == (
        f"5 images in {root} (5 for training, 0 for validation), no captions, 2 classes; "
        "left out: files that are no images by their names (2 .heic, 1 without a suffix, "
        "1 .txt), hidden folders (1), hidden images (1), links that lead nowhere (1), links to "
        "folders that were read already (1), what is called like an image and is no file (1)"
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "a.heic").write_text("")
    with pytest.raises(sources.DataError, match=r"no images in .*; left out: .*1 \.heic"):
        _open(empty)


def test_pictures_are_cut_from_whole_ones_where_nothing_is_resized(tmp_path):
    _write(tmp_path / "a.jpg", size=(160, 64))
    assert _open(tmp_path, resize="none")[0]["image"].shape == (64, 160, 3)


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(sources.DataError, match="no images in"):
        _open(tmp_path)
    with pytest.raises(sources.DataError, match="not a folder"):
        _open(tmp_path / "absent")
    _write(tmp_path / "a.png")
    with pytest.raises(sources.DataError, match="no test split"):
        _open(tmp_path, "test")
    with pytest.raises(sources.DataError, match=r"validation_fraction=0.0"):
        _open(tmp_path, "validation")


def test_links_back_to_a_parent_end(tmp_path):
    _write(tmp_path / "a/x.png")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    assert len(_open(tmp_path)) == 1


def test_validation_is_chosen_by_name(tmp_path):
    for i in range(60):
        _write(tmp_path / f"{i}.png", size=(2, 2))
    kept = {
        s: set(_open(tmp_path, s, validation_fraction=0.3).names()) for s in ("train", "validation")
    }
    assert len(kept["train"] | kept["validation"]) == 60 and not kept["train"] & kept["validation"]
    assert 8 < len(kept["validation"]) < 30
    _write(tmp_path / "new.png")
    assert kept["validation"] <= set(_open(tmp_path, "validation", validation_fraction=0.3).names())


def test_exif_orientation_is_applied(tmp_path):
    image, exif = Image.new("RGB", (9, 6)), Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "a.jpg", exif=exif)
    assert _open(tmp_path)[0]["image"].shape == (9, 6, 3)


def test_large_jpegs_are_decoded_at_a_reduced_scale(tmp_path):
    _write(tmp_path / "a.jpg", size=(160, 64))
    assert _open(tmp_path)[0]["image"].shape == (16, 40, 3)  # at least 2 * 8 on both sides


@pytest.fixture
def broken(tmp_path):
    for i in range(4):
        _write(tmp_path / f"{i}.png", (i, 0, 0))
    content = (tmp_path / "0.png").read_bytes()
    (tmp_path / "1.png").write_bytes(content[:45])
    (tmp_path / "3.png").write_text("not an image")
    return tmp_path


def test_a_broken_image_stops_by_default(broken):
    source = _open(broken)
    assert source[0]["image"][0, 0, 0] == 0
    for i in (1, 3):
        with pytest.raises(sources.DataError, match=rf"{i}\.png.*--data.source.on_broken=skip"):
            source[i]


def test_broken_images_are_skipped_named_and_counted(broken, caplog):
    source = _open(broken, on_broken="skip")
    assert [source[i]["image"][0, 0, 0] for i in (1, 3, 3, 0, 2)] == [2, 0, 0, 0, 2]
    assert set(source.broken) == {"1.png", "3.png"}
    assert len(caplog.records) == 2 and "number 2" in caplog.text and "3.png" in caplog.text
    for i in (0, 2):
        (broken / f"{i}.png").write_text("")
    with pytest.raises(sources.DataError, match="none of the 4 images"):
        _open(broken, on_broken="skip")[0]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """DigitScenes of few examples, under the names of the whole dataset."""
    patch = pytest.MonkeyPatch()
    whole = digit_scenes_builder.builder
    patch.setattr(
        digit_scenes_builder, "builder", lambda d, s: whole(d, s, train=40, validation=6, test=6)
    )
    yield str(tmp_path_factory.mktemp("data") / "built")
    patch.undo()


def test_digit_scenes_are_built_and_read(scenes):
    source = sources.open_source(cfg.Data(cfg.DigitScenes(data_dir=scenes), 16), "train")
    assert len(source) == 40 and source.has_captions and len(source.class_names) == 10
    for i in (3, 39, 3, -1):  # the second time from memory
        expected = digit_scenes.example("train", i % 40, 16)
        example = source[i]
        np.testing.assert_array_equal(example["image"], expected["image"])
        assert example["caption"] == expected["caption"]
        assert example["label"] == expected["label"]
    with pytest.raises(IndexError):
        source[40]
    assert source.box_classes[int(source[3]["classes"][0])] in source[3]["caption"]
    coloured = cfg.DigitScenes(data_dir=scenes, box_classes="coloured_digits")
    other = sources.open_source(cfg.Data(coloured, 16), "train")
    names = [other.box_classes[i] for i in other[3]["classes"].tolist()]
    assert sorted(names, key=other[3]["caption"].index) == names and len(other.box_classes) == 60
    assert other.fingerprint != source.fingerprint
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy[5]["image"], source[5]["image"])


def test_damaged_scenes_are_named(scenes):
    data = cfg.Data(cfg.DigitScenes(data_dir=scenes), 16)
    sources.open_source(data, "validation")  # builds it
    (info,) = Path(scenes).rglob("dataset_info.json")
    sound = info.read_bytes()
    try:
        for content in (sound[:100], b"", b"{}", None):
            info.unlink() if content is None else info.write_bytes(content)
            with pytest.raises(sources.DataError, match=r"dataset_info\.json is .* delete"):
                sources.open_source(data, "validation")
    finally:
        info.write_bytes(sound)
    (path,) = Path(scenes).rglob("*validation.array_record*")
    sound = path.read_bytes()
    try:
        for damage in (lambda data: data[:500] + bytes([data[500] ^ 1]) + data[501:],
                       lambda data: data[: len(data) // 2], lambda data: b""):  # fmt: skip
            path.write_bytes(damage(sound))
            with pytest.raises(sources.DataError, match="is missing or damaged .* delete") as error:
                list(sources.open_source(data, "validation").captions())
            assert str(path) in str(error.value)
    finally:
        path.write_bytes(sound)


def test_digit_scenes_of_few_digits(scenes):
    def counts(**limits):
        config = cfg.DigitScenes(data_dir=scenes, **limits)
        source = sources.open_source(cfg.Data(config, 16), "validation")
        return [len(source[i]["classes"]) for i in range(len(source))], source.fingerprint

    every, _ = counts()
    assert set(every) == {1, 2, 3}
    found, prints = zip(*(counts(**n) for n in ({"max_digits": 1}, {"min_digits": 2})), strict=True)
    assert found == ([n for n in every if n == 1], [n for n in every if n > 1])
    assert len(set(prints)) == 2
