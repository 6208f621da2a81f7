"""Two hundred files of adapters, embeddings, hypernetworks and ControlNets as they are met with,
and worse: each gives the numbers that the clean file gives, or is refused in one line that names
the file and says what it is."""

import corpus
import corpus_controls
import corpus_embeddings
import corpus_hypernetworks
import corpus_loras
import numpy as np
import pytest

from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.core.reading import FileFormatError

CLEAN = {
    "adapter": (corpus_loras, corpus_loras.READ["clean"].make),
    "embedding": (corpus_embeddings, corpus_embeddings.CASES["clean"].make),
    "hypernetwork": (corpus_hypernetworks, corpus_hypernetworks.CASES["clean"].make),
    "ControlNet": (corpus_controls, corpus_controls.CASES["original"].make),
}
MODEL = corpus.safetensors({"model.diffusion_model.out.2.bias": np.zeros(4, np.float32)})
TAKEN = {"adapter": "an adapter .*--lora", "embedding": "an embedding, which --embeddings",
         "hypernetwork": "a hypernetwork, which --hypernetwork",
         "ControlNet": "a ControlNet, which --control"}  # fmt: skip


def others(kind):
    """Files that are given as this kind, and are of another."""
    found = {
        f"given {other}": corpus.Case(make, f"is no {kind} but {TAKEN[other]} takes")
        for other, (_, make) in CLEAN.items() if other != kind
    }  # fmt: skip
    return found | {"given model": corpus.Case(MODEL, f"is no {kind} but a whole model, which is")}


FILES = {
    f"{kind}: {name}": (module, case)
    for kind, (module, clean) in CLEAN.items()
    for name, case in (module.CASES | corpus.damaged(clean) | others(kind)).items()
}


@pytest.mark.parametrize("name", FILES)
def test_files(tmp_path, monkeypatch, name):
    module, case = FILES[name]
    monkeypatch.chdir(tmp_path)  # where code in files would write, if it ran
    path = case.make(tmp_path)
    if case.words is None:
        found, expected = module.read(path), (case.expected or module.clean)()
        assert found.keys() == expected.keys()
        for key, array in expected.items():
            np.testing.assert_array_equal(found[key], array, key)
        return
    with pytest.raises((ConvertError, FileFormatError), match=case.words) as caught:
        module.read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "touched").exists()
