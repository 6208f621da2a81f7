"""One of several processes puts together what all have drawn."""

import json

from ldm_jax import config as cfg
from ldm_jax.core.stores import as_path
from ldm_jax.images.shared_folder import SharedFolder

REQUEST = cfg.Request.from_dict({"model": "m", "classes": [3], "num": 2})


def test_in_a_store_the_first_to_come_puts_the_parts_together_even_if_it_is_started_again(store):
    out = as_path("gs://bucket/shared")
    folder = SharedFolder(out, REQUEST, (1, 1))
    manifest = json.dumps({"request": REQUEST.to_dict(), "images": [{}]})
    (folder.part(0) / "manifest.json").write_text(manifest)
    with folder.alone(0) as alone:
        assert alone and folder.left() == 1
    assert not any("lock" in name for name in out.files())
    (folder.part(1) / "manifest.json").write_text(manifest)
    for index, first in ((1, True), (0, False), (1, True)):
        with folder.alone(index) as alone:
            assert alone == first and folder.left() == 0
    folder.remove_parts()
    with folder.alone(0) as alone:
        assert not alone and out.files() == []
