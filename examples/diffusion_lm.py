"""Text by diffusion: Diffusion-LM (Li 2022, arXiv:2205.14217) on the captions of DigitScenes.

    python examples/diffusion_lm.py --out=runs/diffusion_lm

Words are diffused in the space of their embeddings, which are learnt with the model; a transformer
predicts x0, and words are what is nearest in the end. A classifier of noisy embeddings guides
drawing towards a wish: a number of things, or a word. Captions have a grammar, so that it is known
exactly which drawings are captions, and which have what was wished.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float32, Int

from ldm_jax.core.typing import Level, Prediction
from ldm_jax.data.digit_scenes import COLOURS, DIGITS, parse_caption
from ldm_jax.diffusion import schedules
from ldm_jax.diffusion.parameterization import make_denoiser, q_sample
from ldm_jax.sampling.ancestral import DDPM
from ldm_jax.sampling.guidance import classifier
from ldm_jax.sampling.levels import levels
from ldm_jax.sampling.scan import sample

LENGTH = 14
"""Words of the longest caption, with END and what fills up behind it."""
END = "."
RELATIONS = ("left of", "right of", "above", "below")
WORDS = (END, "a", "alone", *COLOURS, *DIGITS, *dict.fromkeys(" ".join(RELATIONS).split()))
DIMENSION, WIDTH, LAYERS = 16, 128, 3
PROCESS = schedules.NoiseSchedule(np.cumprod(1 - schedules.betas("sqrt", 1000)))
STEPS = 100
"""Of drawing."""


# ------------------------------------------------------------------------------------ the corpus


def draw_captions(count: int, seed: int) -> list[str]:
    """Random captions of one, two or three things."""
    generator = np.random.default_rng(seed)
    pick = lambda names: names[generator.integers(len(names))]  # noqa: E731
    found = []
    while len(found) < count:
        number = 1 + generator.integers(3)
        things = [f"a {pick((*COLOURS,))} {pick(DIGITS)}" for _ in range(number)]
        words = [things[0]] + [f"{pick(RELATIONS)} {thing}" for thing in things[1:]]
        caption = " ".join(words) + (" alone" if number == 1 else "")
        if is_caption(caption):
            found.append(caption)
    return found


def is_caption(text: str) -> bool:
    """Whether the grammar of DigitScenes has it."""
    try:
        parse_caption(text)
    except ValueError:
        return False
    return True


def to_numbers(captions: Sequence[str]) -> Int[np.ndarray, "n l"]:
    """Numbers of words, filled up with END."""
    rows = [caption.split() for caption in captions]
    return np.array([[WORDS.index(w) for w in [*row, *[END] * LENGTH][:LENGTH]] for row in rows])


def to_text(numbers: Int[np.ndarray, " l"]) -> str:
    """The words before the first END."""
    words = [WORDS[number] for number in numbers]
    return " ".join(words[: words.index(END)] if END in words else words)


# ------------------------------------------------------------------------------------ the models


class Transformer(nn.Module):
    """Self-attention over noisy embeddings and the level, with outputs of width `out`."""

    out: int
    pooled: bool = False
    """Whether the output is of the whole text."""

    @nn.compact
    def __call__(self, x: Float32[Array, "b l d"], t: Float32[Array, "b"]) -> Float32[Array, "..."]:
        angles = t[:, None] / PROCESS.t_max * (jnp.pi * 2.0 ** jnp.arange(10.0)[None])
        level = nn.Dense(WIDTH)(jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1))
        places = self.param("places", nn.initializers.normal(0.02), (LENGTH, WIDTH))
        hidden = nn.Dense(WIDTH)(x) + places[None] + level[:, None]
        for _ in range(LAYERS):
            hidden = hidden + nn.MultiHeadDotProductAttention(4)(nn.LayerNorm()(hidden))
            inner = nn.Dense(4 * WIDTH)(nn.LayerNorm()(hidden))
            hidden = hidden + nn.Dense(WIDTH)(nn.gelu(inner))
        hidden = nn.LayerNorm()(hidden)
        return nn.Dense(self.out)(hidden.mean(1) if self.pooled else hidden)


DENOISER, CLASSIFIER = Transformer(DIMENSION), partial(Transformer, pooled=True)


def embedded(table: Float32[Array, "v d"], numbers: Int[Array, "b l"]) -> Float32[Array, "b l d"]:
    """Embeddings of words, all of the same length √d, so that they have about unit variance."""
    return unit(table)[numbers]


def unit(table: Float32[Array, "v d"]) -> Float32[Array, "v d"]:
    """The table with rows of length √d."""
    return np.sqrt(DIMENSION) * table / jnp.linalg.norm(table, axis=-1, keepdims=True)


def word_scores(
    table: Float32[Array, "v d"], x: Float32[Array, "b l d"]
) -> Float32[Array, "b l v"]:
    """Logits of words at embeddings: minus half the squared distance."""
    rows = unit(table)
    return x @ rows.T - (rows**2).sum(-1)[None, None] / 2


def loss(params: Any, numbers: Int[Array, "b l"], key: Any) -> Any:
    """The end-to-end loss (Li 2022, equation 2, with x0 predicted as in 4.2): squared error of x0,
    which at the first level is compared with the embeddings themselves, and how badly words are
    read of x0."""
    key_t, key_eps, key_0 = jax.random.split(key, 3)
    rows = len(numbers)
    x0 = embedded(params["words"], numbers)
    start = x0 + PROCESS.sigma_at(0) * jax.random.normal(key_0, x0.shape)
    t = jax.random.randint(key_t, (rows,), 0, PROCESS.num_timesteps).astype(jnp.float32)
    eps = jax.random.normal(key_eps, x0.shape)
    x = q_sample(start, eps, PROCESS.alpha_at(t), PROCESS.sigma_at(t))
    said = DENOISER.apply({"params": params["network"]}, x, t)
    goal = jnp.where((t == 0)[:, None, None], x0, start)
    error = ((said - goal) ** 2).mean((1, 2))
    read = optax.softmax_cross_entropy_with_integer_labels(
        word_scores(params["words"], start), numbers
    )
    return error.mean() + read.mean() / DIMENSION


def classifier_loss(
    network: nn.Module, table: Any, params: Any, numbers: Any, wishes: Any, key: Any
) -> Any:
    """Cross-entropy of what a text has, told from its noisy embeddings."""
    key_t, key_eps = jax.random.split(key)
    t = jax.random.randint(key_t, (len(numbers),), 0, PROCESS.num_timesteps).astype(jnp.float32)
    x0 = embedded(table, numbers)
    eps = jax.random.normal(key_eps, x0.shape)
    x = q_sample(x0, eps, PROCESS.alpha_at(t), PROCESS.sigma_at(t))
    logits = network.apply({"params": params}, x, t)
    return optax.softmax_cross_entropy_with_integer_labels(logits, wishes).mean()


def fit(
    params: Any,
    loss: Callable[..., Any],
    batches: Callable[[int], tuple[Any, ...]],
    steps: int,
    name: str,
) -> Any:
    """Parameters that make `loss(params, *batch, key)` small, by Adam."""
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(1e-3, steps))
    )

    @jax.jit
    def step(params: Any, state: Any, batch: Any, key: Any) -> Any:
        value, gradients = jax.value_and_grad(loss)(params, *batch, key)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    state = optimizer.init(params)
    for number in range(steps):
        key = jax.random.fold_in(jax.random.key(2), number)
        params, state, value = step(params, state, batches(number), key)
        if number % 250 == 0 or number == steps - 1:
            print(f"{name}: step {number + 1} of {steps}, loss {float(value):.4f}", flush=True)
    return params


# ----------------------------------------------------------------------------------- the drawing


def clamped(denoise: Callable[..., Prediction], table: Any) -> Callable[..., Prediction]:
    """`denoise`, whose x0 is moved to the nearest words (the clamping trick, Li 2022, 4.3)."""

    def nearest(x: Any, level: Level) -> Prediction:
        said = denoise(x, level)
        words = word_scores(table, said.x0).argmax(-1)
        x0 = embedded(table, words)
        eps = (x - level.alpha * x0) / jnp.maximum(level.sigma, 1e-6)
        return Prediction(x0=x0, eps=eps)

    return nearest


def draw(
    params: Any,
    count: int,
    seed: int,
    wish: tuple[nn.Module, Any, int] | None = None,
    scale: float = 0.0,
    clamp: bool = True,
) -> list[str]:
    """Texts; with a `wish` (a classifier, its parameters and the class) guided towards it."""

    def network(x: Any, t: Any) -> Any:
        return DENOISER.apply({"params": params["network"]}, x, t)

    denoise = make_denoiser(network, "x0", PROCESS)
    if wish is not None:
        reader, weights, wanted = wish

        def log_prob(x: Any, level: Level) -> Any:
            t = jnp.broadcast_to(PROCESS.network_time(level.timestep), x.shape[:1])
            return jax.nn.log_softmax(reader.apply({"params": weights}, x, t))[:, wanted]

        denoise = classifier(denoise, log_prob, scale)
    if clamp:
        denoise = clamped(denoise, params["words"])
    path = levels(PROCESS, STEPS, "trailing", "one")
    keys = jax.random.split(jax.random.key(seed), count)
    noise = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 1), (LENGTH, DIMENSION)))
    run = jax.jit(lambda x, keys: sample(DDPM(), denoise, x, path, keys).x)
    numbers = np.asarray(word_scores(params["words"], run(noise(keys), keys)).argmax(-1))
    return [to_text(row) for row in numbers]


WISHES = {
    "three things": (lambda text: text.count(" a ") + 1, 3),
    "a blue one first": (lambda text: int(text.split()[1] == "blue"), 1),
}
"""Name → what a classifier tells of a caption, and the wished class; numbers are below 4."""


def main(arguments: list[str]) -> dict[str, Any]:
    """Trains, draws with and without wishes, prints and writes what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--classifier_steps", type=int, default=600)
    parser.add_argument("--num", type=int, default=256, help="texts to draw of each kind")
    parser.add_argument("--scale", type=float, default=3.0, help="of the classifier's gradient")
    parser.add_argument("--out", type=Path, default=Path("runs/diffusion_lm"))
    given = parser.parse_args(arguments)
    corpus = draw_captions(20_000, seed=0)
    numbers = jnp.asarray(to_numbers(corpus), jnp.int32)

    def rows(step: int) -> Any:
        return np.random.default_rng(step).integers(len(corpus), size=64)

    x, t = jnp.zeros((1, LENGTH, DIMENSION)), jnp.zeros(1)
    params = {
        "words": jax.random.normal(jax.random.key(0), (len(WORDS), DIMENSION)),
        "network": DENOISER.init(jax.random.key(1), x, t)["params"],
    }
    params = fit(params, loss, lambda step: (numbers[rows(step)],), given.steps, "text")
    drawn = {"no wish": draw(params, given.num, seed=0)}
    found = {"captions": _share(drawn["no wish"], is_caption)}
    unclamped = draw(params, given.num, seed=0, clamp=False)
    found["captions_without_clamping"] = _share(unclamped, is_caption)
    found["new_captions"] = _share(drawn["no wish"], lambda text: text not in set(corpus))
    for name, (tell, wanted) in WISHES.items():
        told = jnp.asarray([tell(caption) for caption in corpus], jnp.int32)
        reader = CLASSIFIER(4)
        weights = fit(
            reader.init(jax.random.key(3), x, t)["params"],
            partial(classifier_loss, reader, params["words"]),
            lambda step, told=told: (numbers[rows(step)], told[rows(step)]),
            given.classifier_steps, name,
        )  # fmt: skip
        drawn[name] = draw(params, given.num, 0, (reader, weights, wanted), given.scale)
        has = partial(_has, tell, wanted)
        found[name] = {
            "before": _share(drawn["no wish"], has), "guided": _share(drawn[name], has),
            "captions": _share(drawn[name], is_caption),
        }  # fmt: skip
    given.out.mkdir(parents=True, exist_ok=True)
    report = found | {"texts": {name: texts[:16] for name, texts in drawn.items()}}
    (given.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    for name, texts in drawn.items():
        print(f"{name}: " + "; ".join(texts[:4]))
    return found


def _has(tell: Callable[[str], int], wanted: int, text: str) -> bool:
    return is_caption(text) and tell(text) == wanted


def _share(texts: Sequence[str], holds: Callable[[str], bool]) -> float:
    return sum(map(holds, texts)) / len(texts)


if __name__ == "__main__":
    main(sys.argv[1:])
