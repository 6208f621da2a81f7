"""Pictures drawn with embeddings: our pipeline beside diffusers', from the same files.

Relative differences of latents after 20 steps with guidance, as in `test_pipelines`.
"""

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from tiny_pipelines import pipeline as peer_pipeline  # noqa: E402
from tiny_pipelines import scheduler  # noqa: E402

from ldm_jax import config as cfg  # noqa: E402
from ldm_jax import latent_diffusion as ldm  # noqa: E402
from ldm_jax.adapters.embedding import Embedding  # noqa: E402
from ldm_jax.convert.embeddings.embedding_files import read_embeddings  # noqa: E402
from ldm_jax.convert.embeddings.embedding_writer import write_embeddings  # noqa: E402
from ldm_jax.generation.pipeline import Pipeline  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
CLOSE = 1e-3
STEPS, SEED = 20, 3
SAMPLING = cfg.Sampling(
    sampler="ddim", spacing=None, steps=STEPS, guidance_scale=7.5, seed=SEED, height=16, width=16
)


@pytest.mark.parametrize("form", ["a1111", "diffusers"])
def test_pictures(tmp_path, form):
    """Three vectors in the prompt, and one in the negative prompt."""
    peer_pipeline(tmp_path, "shallow").save_pretrained(tmp_path / "model")
    peer = diffusers.StableDiffusionPipeline.from_pretrained(
        tmp_path / "model", safety_checker=None, requires_safety_checker=False
    )
    random = np.random.default_rng(0)
    files = []
    for word, count in (("zork", 3), ("ugh", 1)):
        vectors = random.standard_normal((count, 64)).astype(np.float32)
        files.append(str(tmp_path / f"{word}.safetensors"))
        write_embeddings([Embedding(word, vectors)], tmp_path / f"{word}.safetensors", form)
        if form == "diffusers":
            peer.load_textual_inversion(files[-1])
        else:
            peer.load_textual_inversion(torch.from_numpy(vectors), token=word)
    ours = Pipeline(tmp_path / "model", embeddings=tuple(files))
    prompt, negative = "a zork cat", "ugh b"
    peer.set_progress_bar_config(disable=True)
    peer.scheduler = scheduler()
    noise = np.array(ldm.noise_of(SEED, "sample/initial", jnp.zeros(1, jnp.uint32), (8, 8, 4)))
    expected = peer(
        prompt, negative_prompt=negative, height=16, width=16, output_type="latent",
        num_inference_steps=STEPS, guidance_scale=7.5,
        latents=torch.from_numpy(noise.transpose(0, 3, 1, 2).copy()),
    ).images.permute(0, 2, 3, 1).numpy()  # fmt: skip

    def found(prompt, negative):
        return ours.generate([prompt], sampling=SAMPLING, negative=negative, decode=False)

    assert apart(found(prompt, negative), expected) <= CLOSE
    assert apart(found("a cat", negative), expected) > 0.05
    assert apart(found(prompt, "b"), expected) > 0.05


def apart(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def test_parameters_of_torch(tmp_path):
    """As the first program of textual inversion saves them."""
    vectors = torch.randn(2, 8)
    params = torch.nn.ParameterDict({"*": torch.nn.Parameter(vectors)})
    saved = {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": params}
    torch.save(saved, tmp_path / "cat.pt")
    (found,) = read_embeddings(tmp_path / "cat.pt")
    assert found.name == "cat"
    np.testing.assert_array_equal(found.vectors, vectors.numpy())
