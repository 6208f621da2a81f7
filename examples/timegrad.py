"""Forecasting by diffusion: TimeGrad (Rasul 2021, arXiv:2101.12072) on a series of known parts.

    python examples/timegrad.py --out=runs/timegrad

A recurrent network reads the past of a series of two values a step; conditioned on its state, a
diffusion model draws the next values, which are read in turn. The series is a daily wave plus a
vector autoregression with correlated Gaussian noise, so that the distribution of its future is
known exactly, and forecasts can be scored against it: by CRPS, for each value and for their sum.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Float32

from ldm_jax.diffusion import schedules
from ldm_jax.diffusion.losses import distance_loss
from ldm_jax.diffusion.parameterization import make_denoiser, q_sample
from ldm_jax.images.grid import save_png
from ldm_jax.images.plot import BLUE, GREEN, ORANGE, Curve, Panel, plot
from ldm_jax.sampling.ancestral import DDIM
from ldm_jax.sampling.levels import levels
from ldm_jax.sampling.scan import initial_x, sample

PERIOD = 24
"""Steps of a day."""
PAST, FUTURE = 72, 24
MATRIX = np.array([[0.96, 0.08], [-0.08, 0.94]])
"""How the deviations from the wave go on."""
NOISE = np.array([[0.15, 0.0], [0.09, 0.12]])
"""What each step adds: this times two independent standard normal numbers."""
AMPLITUDE = np.array([1.0, 0.6])
PROCESS = schedules.NoiseSchedule(np.cumprod(1 - schedules.betas("cosine", 100)))
SAMPLER, SAMPLER_STEPS = DDIM(eta=1.0), 25
WIDTH = 64


# ------------------------------------------------------------------------------------ the series


def wave(times: np.ndarray) -> np.ndarray:
    """The part of the series that repeats every day, of both values."""
    phase = 2 * np.pi * times[..., None] / PERIOD
    return AMPLITUDE * np.sin(phase + np.array([0.0, 1.0]))


def draw_series(count: int, length: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Series that begin at any time of the day, [count, length, 2], and the times, [count, length].

    They begin in the stationary distribution of their deviations from the wave.
    """
    generator = np.random.default_rng(seed)
    times = generator.integers(0, PERIOD, (count, 1)) + np.arange(length)
    spread = np.zeros((2, 2))
    for _ in range(200):
        spread = MATRIX @ spread @ MATRIX.T + NOISE @ NOISE.T
    deviation = generator.normal(size=(count, 2)) @ np.linalg.cholesky(spread).T
    found = []
    for _ in range(length):
        found.append(deviation)
        deviation = deviation @ MATRIX.T + generator.normal(size=(count, 2)) @ NOISE.T
    return np.stack(found, 1) + wave(times), times


class Gaussian(NamedTuple):
    """The exact distribution of the future, step by step."""

    mean: np.ndarray
    """[count, FUTURE, 2]."""
    covariance: np.ndarray
    """[FUTURE, 2, 2], the same for all series."""


def exact_future(last: np.ndarray, times: np.ndarray) -> Gaussian:
    """The future after a series' `last` values, [count, 2], at `times`, [count]."""
    deviation, spread = last - wave(times), np.zeros((2, 2))
    means, spreads = [], []
    for step in range(1, FUTURE + 1):
        deviation = deviation @ MATRIX.T
        spread = MATRIX @ spread @ MATRIX.T + NOISE @ NOISE.T
        means.append(deviation + wave(times + step))
        spreads.append(spread)
    return Gaussian(np.stack(means, 1), np.stack(spreads))


# ------------------------------------------------------------------------------------- the model


class TimeGrad(nn.Module):
    """A GRU over the past, and a network that sees noisy values, the level and the GRU's state."""

    width: int = WIDTH

    def setup(self) -> None:
        self.cell = nn.GRUCell(self.width)
        self.layers = [nn.Dense(self.width) for _ in range(3)]
        self.of_level, self.of_state = nn.Dense(self.width), nn.Dense(self.width)
        self.out = nn.Dense(2, kernel_init=nn.initializers.zeros)

    def read(
        self,
        state: Float32[Array, "b w"],
        values: Float32[Array, "b 2"],
        times: Float32[Array, "b"],
    ) -> Float32[Array, "b w"]:
        """The state after values at a time of the day."""
        phase = 2 * jnp.pi * times[:, None] / PERIOD
        seen = jnp.concatenate([values, jnp.sin(phase), jnp.cos(phase)], -1)
        return self.cell(state, seen)[0]

    def eps(
        self, x: Float32[Array, "b 2"], t: Float32[Array, "b"], state: Float32[Array, "b w"]
    ) -> Float32[Array, "b 2"]:
        """The noise in noisy next values."""
        rates = jnp.pi * 2.0 ** jnp.arange(8.0)[None]
        angles = t[:, None] / PROCESS.t_max * rates
        level = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)
        hidden = self.layers[0](x) + self.of_level(level) + self.of_state(state)
        for layer in self.layers[1:]:
            hidden = hidden + layer(nn.silu(hidden))
        return self.out(nn.silu(hidden))

    def states(
        self, series: Float32[Array, "b n 2"], times: Float32[Array, "b n"]
    ) -> Float32[Array, "b n w"]:
        """The state after each step."""

        def step(model: "TimeGrad", state: Any, values: Any, times: Any) -> Any:
            state = model.read(state, values, times)
            return state, state

        along = nn.scan(step, variable_broadcast="params", split_rngs={"params": False},
                        in_axes=(1, 1), out_axes=1)  # fmt: skip
        return along(self, jnp.zeros((len(series), self.width)), series, times)[1]

    def __call__(self, series: Any, times: Any) -> Any:
        states = self.states(series, times)[:, -1]
        return self.eps(series[:, -1], jnp.zeros(len(series)), states)


MODEL = TimeGrad()


def loss(
    params: Any, series: Float32[Array, "b n 2"], times: Float32[Array, "b n"], key: Any
) -> Any:
    """Mean squared error of the noise at a level of each step (Rasul 2021, algorithm 1)."""
    states = MODEL.apply({"params": params}, series, times, method="states")
    # Forecasts begin after PAST steps: every later one is to be drawn of the state before it.
    before, after = states[:, PAST - 1 : -1], series[:, PAST:]
    rows = before.shape[0] * before.shape[1]
    before, x0 = before.reshape(rows, -1), after.reshape(rows, 2)
    key_t, key_eps = jax.random.split(key)
    t = jax.random.randint(key_t, (rows,), 0, PROCESS.num_timesteps).astype(jnp.float32)
    eps = jax.random.normal(key_eps, x0.shape)
    x = q_sample(x0, eps, PROCESS.alpha_at(t), PROCESS.sigma_at(t))
    said = MODEL.apply({"params": params}, x, t, before, method="eps")
    return distance_loss(said, eps).mean()


def train(steps: int, seed: int = 0, batch: int = 64) -> Any:
    """Parameters after so many steps, on series that are drawn as they are needed."""
    series, times = (jnp.asarray(a, jnp.float32) for a in draw_series(batch, PAST + FUTURE, 0))
    params = MODEL.init(jax.random.key(seed), series, times)["params"]
    rate = optax.cosine_decay_schedule(2e-3, steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))

    @jax.jit
    def step(params: Any, state: Any, series: Any, times: Any, key: Any) -> Any:
        value, gradients = jax.value_and_grad(loss)(params, series, times, key)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    state = optimizer.init(params)
    for number in range(steps):
        series, times = draw_series(batch, PAST + FUTURE, seed=number + 1)
        key = jax.random.fold_in(jax.random.key(seed), number)
        params, state, value = step(
            params, state, jnp.asarray(series, jnp.float32), jnp.asarray(times, jnp.float32), key
        )
        if number % 200 == 0 or number == steps - 1:
            print(f"step {number + 1} of {steps}: loss {float(value):.4f}", flush=True)
    return params


@jax.jit
def forecast(
    params: Any, past: Float32[Array, "b n 2"], times: Float32[Array, "b n"], key: Any
) -> Float32[Array, "b f 2"]:
    """One drawing of the future of each series (Rasul 2021, algorithm 2)."""
    path = levels(PROCESS, SAMPLER_STEPS, "trailing", "one")
    state = MODEL.apply({"params": params}, past, times, method="states")[:, -1]

    def one(carry: Any, step: Any) -> Any:
        state, time = carry
        keys = jax.random.split(jax.random.fold_in(key, step), len(past) + 1)
        noise = jax.random.normal(keys[-1], (len(past), 2))

        def network(x: Any, t: Any) -> Any:
            return MODEL.apply({"params": params}, x, t, state, method="eps")

        denoise = make_denoiser(network, "eps", PROCESS)
        first = jax.tree.map(lambda leaf: leaf[0], path)
        drawn = sample(SAMPLER, denoise, initial_x(noise, first), path, keys[:-1]).x
        state = MODEL.apply({"params": params}, state, drawn, time + 1, method="read")
        return (state, time + 1), drawn

    _, drawn = jax.lax.scan(one, (state, times[:, -1]), jnp.arange(FUTURE))
    return jnp.moveaxis(drawn, 0, 1)


# ------------------------------------------------------------------------------------- the score


def crps_of_samples(samples: Float[np.ndarray, "k *n"], truth: Float[np.ndarray, "*n"]) -> float:
    """E|X - y| - E|X - X'| / 2 without bias (Gneiting and Raftery 2007, equation 21)."""
    ordered, k = np.sort(samples, 0), len(samples)
    weights = (2 * np.arange(1, k + 1) - k - 1).reshape(-1, *[1] * truth.ndim)
    between = (weights * ordered).sum(0) / (k * (k - 1))
    return float((np.abs(samples - truth).mean(0) - between).mean())


def crps_of_gaussian(
    mean: Float[np.ndarray, "*n"], deviation: Float[np.ndarray, "..."], truth: Any
) -> float:
    """The same of a normal distribution (Gneiting 2005, equation 5)."""
    from scipy.special import erf

    z = (truth - mean) / deviation
    below, density = (1 + erf(z / np.sqrt(2))) / 2, np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return float((deviation * (z * (2 * below - 1) + 2 * density - 1 / np.sqrt(np.pi))).mean())


def scores(
    drawn: Float[np.ndarray, "k b f 2"], truth: np.ndarray, times: np.ndarray, exact: Gaussian
) -> dict[str, float]:
    """CRPS of the drawings, of the exact distribution, and of one that knows the time of the day
    but not the past: of the values, and of their sum, in which correlations show."""
    deviation = np.sqrt(np.diagonal(exact.covariance, axis1=1, axis2=2))
    of_sum = np.sqrt(exact.covariance.sum((1, 2)))
    usual = wave(times)  # the last spread is all but the stationary one
    return {
        "crps": crps_of_samples(drawn, truth),
        "crps_exact": crps_of_gaussian(exact.mean, deviation, truth),
        "crps_without_past": crps_of_gaussian(usual, deviation[-1], truth),
        "crps_sum": crps_of_samples(drawn.sum(-1), truth.sum(-1)),
        "crps_sum_exact": crps_of_gaussian(exact.mean.sum(-1), of_sum, truth.sum(-1)),
        "crps_sum_without_past": crps_of_gaussian(usual.sum(-1), of_sum[-1], truth.sum(-1)),
    }


def main(arguments: list[str]) -> dict[str, float]:
    """Trains, forecasts held-out series, prints the scores and writes them and a plot."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--series", type=int, default=128, help="held-out series to forecast")
    parser.add_argument("--drawings", type=int, default=64, help="forecasts of each series")
    parser.add_argument("--out", type=Path, default=Path("runs/timegrad"))
    given = parser.parse_args(arguments)
    params = train(given.steps)
    series, times = draw_series(given.series, PAST + FUTURE, seed=2**31)
    past, past_times = series[:, :PAST], times[:, :PAST]
    drawn = np.stack(
        [
            np.asarray(
                forecast(
                    params, jnp.asarray(past, jnp.float32), jnp.asarray(past_times, jnp.float32),
                    jax.random.fold_in(jax.random.key(1), number),
                )
            )
            for number in range(given.drawings)
        ]
    )  # fmt: skip
    exact = exact_future(past[:, -1], past_times[:, -1])
    found = scores(drawn.astype(np.float64), series[:, PAST:], times[:, PAST:], exact)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "scores.json").write_text(json.dumps(found, indent=2) + "\n")
    save_png(given.out / "forecast.png", picture(series[0], drawn[:, 0], exact))
    for name, value in found.items():
        print(f"{name:24}{value:.4f}")
    print(f"scores and plot: {given.out}")
    return found


def picture(series: np.ndarray, drawn: np.ndarray, exact: Gaussian) -> Any:
    """One series: its past and future, and the middle 90% of drawings and of the exact future."""
    steps = np.arange(PAST - 24, PAST + FUTURE)
    ahead = np.arange(PAST, PAST + FUTURE)
    low, high = np.quantile(drawn, (0.05, 0.95), axis=0)
    deviation = 1.645 * np.sqrt(np.diagonal(exact.covariance, axis1=1, axis2=2))
    panels = []
    for value in range(2):
        mean = exact.mean[0, :, value]
        lines = [
            ("series", steps, series[steps, value], BLUE),
            ("drawn, 5%", ahead, low[:, value], ORANGE),
            ("drawn, 95%", ahead, high[:, value], ORANGE),
            ("exact, 5%", ahead, mean - deviation[:, value], GREEN),
            ("exact, 95%", ahead, mean + deviation[:, value], GREEN),
        ]
        curves = [Curve(name, x.tolist(), y.tolist(), colour) for name, x, y, colour in lines]
        title = f"value {value + 1}"
        panels.append(Panel(title, curves, 0, value * 300, 800, 300, log=False))
    return plot(panels, 800, 600)


if __name__ == "__main__":
    main(sys.argv[1:])
