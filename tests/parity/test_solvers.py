"""Solvers go where diffusers' schedulers go, to 1e-5, over one model function and one noise.

The peer's model is evaluated in float64, ours, like everything of ours, in float32. Where the
peer's levels are its own, ours are made from its timesteps; where the peer fails or goes wrong,
`broken` says why, and the tests below it show it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from ldm_jax.core import rngs  # noqa: E402
from ldm_jax.diffusion.parameterization import make_denoiser  # noqa: E402
from ldm_jax.diffusion.schedules import NoiseSchedule  # noqa: E402
from ldm_jax.sampling.dpm_multistep import DPMSolverPP2M  # noqa: E402
from ldm_jax.sampling.levels import levels, part  # noqa: E402
from ldm_jax.sampling.scan import initial_x, sample  # noqa: E402
from ldm_jax.sampling.solvers import GRIDS, make_solver  # noqa: E402

# The peer hands tensors to numpy in a way that numpy 2 is about to leave.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

STEPS = (1, 2, 7, 30, 45, 300, 501, 1000)
KINDS = {"eps": "epsilon", "v": "v_prediction"}
SCHEDULE = NoiseSchedule.create("scaled_linear", 1000)
SHAPE = (2, 3, 4, 4)
KEYS = rngs.example_keys(rngs.stream(0, "noise"), jnp.arange(SHAPE[0]))
NOISE = rngs.normal(rngs.example_keys(rngs.stream(0, "start"), jnp.arange(SHAPE[0])), SHAPE[1:])
PEERS = {
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "ddpm": ("DDPMScheduler", {"clip_sample": False}),
    "plms": ("PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": True}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
}
KARRAS = ("euler", "heun", "dpmpp_2m")
BY_SIGMA = ("euler", "euler_a", "heun")
"""Peers whose x is ours / alpha."""
CASES = [
    (name, spacing, steps)
    for name in PEERS
    for spacing in ("leading", "trailing", "linspace", "karras")
    for steps in STEPS
    if spacing != "karras" or name in KARRAS
]


def network(xp, x, t):
    return (0.3 + 0.7 * t / 1000) * 0.9 * xp.tanh(x) + 0.1 * xp.sin(2 * x + 1)


def broken(name, spacing, steps):
    """Why the peer's trajectory is not one to agree with, or None."""
    if spacing == "leading" and steps == 1000:
        return "steps_offset 1 leads to timestep 1000, which does not exist"
    if name in ("ddim", "plms") and spacing == "linspace" and steps not in (1, 1000):
        return "takes the next timestep to be T // steps less, whatever its list says"
    if name in ("ddim", "plms") and spacing == "trailing" and 1000 % steps:
        return "takes the next timestep to be T // steps less, whatever its list says"
    if name in ("ddim", "plms") and spacing == "leading" and steps > 500:
        return "takes the next timestep after 1 to be 0, not the end"
    if name in BY_SIGMA and spacing == "karras" and steps == 1:
        return "its single level is the least noisy"
    if name == "dpmpp_2m" and spacing == "linspace" and steps == 1000:
        return "rounds 1001 places to 1000 timesteps, one of them twice"
    return None


def scheduler(name, spacing, kind, **options):
    """The peer, with our float64 alpha_bar in place of its float32 product."""
    cls, settings = PEERS[name]
    settings = dict(settings, prediction_type=KINDS[kind], **options)
    if spacing == "karras":
        settings |= {"use_karras_sigmas": True, "timestep_spacing": "linspace"}
    else:
        settings |= {"timestep_spacing": spacing, "steps_offset": int(spacing == "leading")}
    made = getattr(diffusers, cls)(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012,
        beta_schedule="scaled_linear", **settings,
    )  # fmt: skip
    made.alphas_cumprod = torch.tensor(SCHEDULE.alpha_bar)
    return made


def follow(peer, x, model, begin=0, **options):
    """The peer's trajectory from x, in its own coordinates, to its end."""
    for t in peer.timesteps[begin:]:
        scaled = peer.scale_model_input(x, t).double()
        x = peer.step(model(scaled, t), t, x, **options).prev_sample.double()
    return x.numpy()


def ours(solver, path, kind, x=None):
    """Our end of the path, in float32."""
    if x is None:
        x = initial_x(NOISE, jax.tree.map(lambda values: values[0], path))

    def ask(x, t):
        return network(jnp, x, t[:, None, None, None])

    run = jax.jit(
        lambda x, path: sample(solver, make_denoiser(ask, kind, SCHEDULE), x, path, KEYS).x
    )
    return np.asarray(run(x, path), np.float64)


def path_like(name, spacing, steps):
    """Our levels of that spacing."""
    path = levels(SCHEDULE, steps, spacing, "one", GRIDS[name])
    if (name, spacing) == ("dpmpp_2m", "karras"):
        # The network is told rounded timesteps, at exact sigmas.
        path = path._replace(timestep=jnp.round(path.timestep))
    return path


def patch_noise(monkeypatch):
    """Lets the peers draw what our loop draws: step i's noise is keys folded with i."""
    drawn = []

    def randn(shape, generator=None, device=None, dtype=None, layout=None):
        drawn.append(rngs.normal(rngs.at_step(KEYS, len(drawn)), SHAPE[1:]))
        return torch.tensor(np.asarray(drawn[-1], np.float64))

    for module in ("ddim", "ddpm", "euler_ancestral_discrete"):
        monkeypatch.setattr(f"diffusers.schedulers.scheduling_{module}.randn_tensor", randn)


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def plain(x, t):
    return network(torch, x, t.double())


def as_eps(x, t):
    """The v network's eps."""
    alpha_bar = SCHEDULE.alpha_bar[int(t)]
    return alpha_bar**0.5 * plain(x, t) + (1 - alpha_bar) ** 0.5 * x


def both(name, spacing, kind, steps, eta=None):
    """Our end and the peer's, from the same noise of unit variance."""
    # PLMS' peer averages v of different levels as if it were eps; it is given eps.
    peer_kind, model = ("eps", as_eps) if (name, kind) == ("plms", "v") else (kind, plain)
    peer = scheduler(name, spacing, peer_kind)
    peer.set_timesteps(steps)
    path = path_like(name, spacing, steps)
    scale = float(path.alpha[0]) if name in BY_SIGMA else 1
    x = initial_x(NOISE, jax.tree.map(lambda values: values[0], path))
    options = {} if eta is None else {"eta": eta}
    theirs = follow(peer, torch.tensor(np.asarray(x, np.float64)) / scale, model, **options)
    return ours(make_solver(name, eta), path, kind), theirs


@pytest.mark.parametrize(
    ("name", "spacing", "steps", "kind"),
    [
        (*case, kind)
        for case in CASES
        for kind in KINDS
        # How a prediction is read is the same at every number of steps.
        if not broken(*case) and (kind == "eps" or case[2] in (7, 300))
    ],
)
def test_trajectories(name, spacing, steps, kind, monkeypatch):
    patch_noise(monkeypatch)
    found, expected = both(name, spacing, kind, steps)
    assert relative(found, expected) < 1e-5


@pytest.mark.parametrize("steps", [1, 2, 5, 20, 50, 1000])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_ddim_with_noise(steps, kind, eta, monkeypatch):
    patch_noise(monkeypatch)
    found, expected = both("ddim", "trailing", kind, steps, eta)
    assert relative(found, expected) < 1e-5


@pytest.mark.parametrize("steps", [1, 7, 30, 45, 300, 501])
@pytest.mark.parametrize("name", ["ddim", "plms"])
def test_the_final_level_of_stable_diffusion(name, steps):
    peer = scheduler(name, "leading", "eps", set_alpha_to_one=False)
    peer.final_alpha_cumprod = peer.alphas_cumprod[0]
    peer.set_timesteps(steps)
    expected = follow(peer, torch.tensor(np.asarray(NOISE, np.float64)), plain)
    found = ours(make_solver(name), levels(SCHEDULE, steps, "leading", "first"), "eps", NOISE)
    assert relative(found, expected) < 1e-5


@pytest.mark.parametrize("steps", [2, 5, 14, 15, 20])
def test_dpm_solver_ends_on_the_last_sigma_with_fewer_orders_below_15_steps(steps):
    peer = scheduler("dpmpp_2m", "trailing", "eps", final_sigmas_type="sigma_min")
    peer.set_timesteps(steps)
    expected = follow(peer, torch.tensor(np.asarray(NOISE, np.float64)), plain)
    path = levels(SCHEDULE, steps, "trailing", "first")
    found = ours(DPMSolverPP2M(lower_order_final=steps < 15), path, "eps", NOISE)
    assert relative(found, expected) < 1e-5
    assert (
        relative(ours(DPMSolverPP2M(lower_order_final=steps >= 15), path, "eps", NOISE), expected)
        > 1e-5
    )


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("name", BY_SIGMA)
def test_start(name, spacing):
    peer = scheduler(name, spacing, "eps")
    peer.set_timesteps(20)
    first = jax.tree.map(lambda values: values[0], levels(SCHEDULE, 20, spacing, "one"))
    found = initial_x(NOISE, first, data_std=1 if spacing == "leading" else 0) / first.alpha
    np.testing.assert_allclose(found, NOISE * float(peer.init_noise_sigma), rtol=1e-5)


@pytest.mark.parametrize("strength", [0.01, 0.3, 0.58, 0.75, 1.0])
@pytest.mark.parametrize("name", ["ddim", "euler", "heun", "dpmpp_2m"])
def test_image_to_image(name, strength):
    """Which steps, and how much noise: as diffusers' image-to-image pipelines do it."""
    steps = 50
    peer = scheduler(name, "trailing", "eps")
    peer.set_timesteps(steps)
    skipped = steps - min(int(steps * strength), steps)
    path = part(levels(SCHEDULE, steps, "trailing", "one"), strength)
    assert path.timestep.size == steps - skipped + 1
    if skipped == steps:
        return
    begin = skipped * peer.order
    if hasattr(peer, "set_begin_index"):
        peer.set_begin_index(begin)
    image = np.sin(np.arange(NOISE.size).reshape(SHAPE) / 7)
    noise = np.asarray(NOISE, np.float64)
    x = peer.add_noise(
        torch.tensor(image), torch.tensor(noise), peer.timesteps[begin : begin + 1].repeat(2)
    )
    noised = path.alpha[0] * jnp.asarray(image, jnp.float32) + path.sigma[0] * NOISE
    expected = follow(peer, x.double(), plain, begin)
    assert relative(ours(make_solver(name), path, "eps", noised), expected) < 1e-5


def ddim(path, x):
    """Song 2020, eq. 12, along any list of levels, in float64."""
    ratio = np.append(SCHEDULE.noise_to_signal_at(np.asarray(path.timestep[:-1], np.float64)), 0)
    alpha = 1 / np.sqrt(1 + ratio**2)
    for i, t in enumerate(np.asarray(path.timestep[:-1], np.float64)):
        eps = network(np, x, t)
        x0 = x / alpha[i] - ratio[i] * eps
        x = alpha[i + 1] * (x0 + ratio[i + 1] * eps)
    return x


@pytest.mark.parametrize(("spacing", "steps"), [("linspace", 20), ("trailing", 333)])
def test_the_peers_ddim_is_wrong_where_strides_are_uneven(spacing, steps):
    assert "T // steps" in broken("ddim", spacing, steps)
    found, theirs = both("ddim", spacing, "eps", steps)
    expected = ddim(levels(SCHEDULE, steps, spacing, "one"), np.asarray(NOISE, np.float64))
    assert relative(found, expected) < 1e-5
    assert relative(theirs, expected) > 1e-3


@pytest.mark.parametrize("name", ["ddim", "ddpm", "plms", "dpmpp_2m"])
def test_the_peer_fails_at_all_steps_with_an_offset(name):
    peer = scheduler(name, "leading", "eps")
    with pytest.raises(IndexError):
        peer.set_timesteps(1000)
        follow(peer, torch.tensor(np.asarray(NOISE, np.float64)), plain)


@pytest.mark.parametrize("name", BY_SIGMA)
def test_the_peer_asks_for_a_timestep_that_does_not_exist(name):
    peer = scheduler(name, "leading", "eps")
    peer.set_timesteps(1000)
    assert peer.timesteps[0] == 1000
    assert levels(SCHEDULE, 1000, "leading", "one").timestep[0] == 999


def test_the_peer_visits_a_timestep_twice():
    peer = scheduler("dpmpp_2m", "linspace", "eps")
    peer.set_timesteps(1000)
    assert len(set(peer.timesteps.tolist())) < 1000


def test_the_peers_plms_mixes_velocities_of_different_levels():
    x = torch.tensor(np.asarray(NOISE, np.float64))
    ends = {}
    for kind, model in (("v", plain), ("eps", as_eps)):
        for steps in (20, 1000):
            peer = scheduler("plms", "trailing", kind)
            peer.set_timesteps(steps)
            ends[kind, steps] = follow(peer, x, model)
    truth = ends["eps", 1000]
    assert relative(ends["v", 20], truth) > 3 * relative(ends["eps", 20], truth)


def test_the_peers_ddim_adds_noise_on_the_way_to_the_last_level(monkeypatch):
    """With set_alpha_to_one=False there is room for it; ours ends on a mean, as Ho 2020 does."""
    patch_noise(monkeypatch)
    peer = scheduler("ddim", "leading", "eps", set_alpha_to_one=False)
    peer.final_alpha_cumprod = peer.alphas_cumprod[0]
    peer.set_timesteps(20)
    expected = follow(peer, torch.tensor(np.asarray(NOISE, np.float64)), plain, eta=1.0)
    found = ours(make_solver("ddim", 1.0), levels(SCHEDULE, 20), "eps", NOISE)
    assert 1e-3 < relative(found, expected) < 0.1
