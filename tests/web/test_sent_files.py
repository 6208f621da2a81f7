"""Files that models are conditioned on, as data: kept as they are, or refused by their field."""

import base64
import io
from types import SimpleNamespace

import numpy as np
import pytest
from convert_models import TASKS
from PIL import Image

from ldm_jax.config.request import FILES, Request
from ldm_jax.core.reading import FileFormatError
from ldm_jax.web.gallery import given_files
from ldm_jax.web.limits import Limits
from ldm_jax.web.pictures import keep
from ldm_jax.web.refused import Refused, of_error
from ldm_jax.web.sent_files import MEDIA_TYPES
from ldm_jax.web.services import check_files, decoded

LIMITS = Limits(max_pixels=256)


def saved(image, kind):
    content = io.BytesIO()
    if kind == "NPY":
        np.save(content, np.zeros((4, 4)))
    else:
        image.save(content, format=kind)
    return content.getvalue()


def base64_of(data):
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WebP", "JSON", "NPY"])
def test_files_are_told_apart_by_what_is_in_them(kind, tmp_path):
    grey = Image.new("P" if kind == "PNG" else "L", (8, 8), 3)
    data = b' {"boxes": []}' if kind == "JSON" else saved(grey, kind)
    for name in FILES:
        sent = decoded({name: f"data:;base64,{base64_of(data)}"}, LIMITS)[name]
        assert (
            sent.data == data and sent.suffix == f".{kind.lower()}" and sent.suffix in MEDIA_TYPES
        )
    (tmp_path / "inputs").mkdir()
    path = keep(tmp_path, sent.data, sent.suffix)
    assert path.read_bytes() == data and path.suffix == sent.suffix


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (3, "must be a picture as text"), ("?", "is not base64"),
        (base64_of(b"GIF89a"), "is no picture (PNG, JPEG, WebP) and no .npy file; as JSON"),
        (base64_of(b"\x80"), "as JSON"), (base64_of(b"[1, "), "as JSON"),
        (base64_of(saved(Image.new("L", (32, 32)), "PNG")), "at most 256 are allowed"),
        (base64_of(saved(Image.new("L", (8, 8)), "PNG")[:45]), "no picture that can be read"),
    ],
)  # fmt: skip
def test_what_is_none_is_refused_by_its_field(data, complaint):
    with pytest.raises(Refused) as caught:
        decoded({"class_map": data}, LIMITS)
    ((field, message),) = caught.value.errors
    assert field == "class_map" and message.startswith("class_map ") and complaint in message


def test_a_model_in_memory_is_asked_and_files_are_named_by_their_settings(tmp_path):
    model = SimpleNamespace(pipeline=SimpleNamespace(config=TASKS["boxes"]))
    (tmp_path / "inputs").mkdir()
    path = keep(tmp_path, b'{"boxes": [{"class": "cow", "box": [0, 0, 1, 1]}]}', ".json")
    request = Request.from_dict({"boxes": str(path)})
    assert given_files(request) == {"boxes": path}
    with pytest.raises(Refused) as caught:
        check_files(model, request)
    assert caught.value.errors == (
        ("boxes", "boxes: box 1 has the class 'cow'; this model has a, b, c, d"),
    )
    with pytest.raises(Refused) as caught:
        check_files(model, Request())
    assert caught.value.first == {
        "field": "boxes",
        "message": "boxes is missing: a file that this model is conditioned on",
    }
    refusal = of_error(OSError(5, "Input/output error", str(path)), given_files(request))
    assert refusal.status == 500 and str(tmp_path) not in str(refusal)
    both = {"low_res": path, "boxes": path}
    assert of_error(FileFormatError(path, "is odd"), both).errors == (
        (None, "low_res or boxes: is odd"),
    )
