"""The solvers that ask between levels, remember, or draw noise, beside diffusers' schedulers.

As in test_solvers: one model function in float64 for the peer, ours in float32, ends to 1e-5.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from test_solvers import KEYS, NOISE, SCHEDULE, SHAPE, network, plain, relative  # noqa: E402

from ldm_jax.core import rngs  # noqa: E402
from ldm_jax.diffusion.parameterization import make_denoiser  # noqa: E402
from ldm_jax.sampling.ancestral import LCM  # noqa: E402
from ldm_jax.sampling.dpm_multistep import DPMSolverPP2M  # noqa: E402
from ldm_jax.sampling.levels import inner_levels, levels, levels_at  # noqa: E402
from ldm_jax.sampling.multistep import DEIS, LMS  # noqa: E402
from ldm_jax.sampling.scan import initial_x, sample  # noqa: E402
from ldm_jax.sampling.singlestep import (  # noqa: E402
    DPM2Ancestral,
    DPMSolver,
    DPMSolverPP2SAncestral,
)
from ldm_jax.sampling.unipc import UniPC  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:`algorithm_types=dpmsolver`:FutureWarning"
)


def scheduler(name, spacing, steps, **options):
    """The peer, with our float64 alpha_bar in place of its float32 product."""
    if spacing == "karras":
        options |= {"use_karras_sigmas": True, "timestep_spacing": "linspace"}
    elif spacing is not None:
        options |= {"timestep_spacing": spacing}
    peer = getattr(diffusers, name)(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012,
        beta_schedule="scaled_linear", prediction_type="epsilon", **options,
    )  # fmt: skip
    peer.alphas_cumprod = torch.tensor(SCHEDULE.alpha_bar)
    peer.set_timesteps(steps)
    return peer


def noises(count):
    """What our loop draws at each of its steps."""
    drawn = [rngs.normal(rngs.at_step(KEYS, i), SHAPE[1:]) for i in range(count)]
    return [torch.tensor(np.asarray(noise, np.float64)) for noise in drawn]


def follow(peer, x, model=plain, noise=None):
    """The peer's trajectory; `noise` is given to each step."""
    for i, t in enumerate(peer.timesteps):
        scaled = peer.scale_model_input(x, t).double()
        given = {} if noise is None else {"variance_noise": noise[i]}
        x = peer.step(model(scaled, t), t, x, **given).prev_sample.double()
    return x.numpy()


def ours(solver, path, x):
    def ask(x, t):
        return network(jnp, x, t[:, None, None, None])

    denoise = make_denoiser(ask, "eps", SCHEDULE)
    return np.asarray(jax.jit(lambda x, path: sample(solver, denoise, x, path, KEYS).x)(x, path))


def begin(path, by_sigma=False):
    """Our x at the first level, and the peer's, which is ours / alpha for those over sigma."""
    x = initial_x(NOISE, jax.tree.map(lambda values: values[0], path))
    scale = float(path.alpha[0]) if by_sigma else 1.0
    return x, torch.tensor(np.asarray(x, np.float64)) / scale


@pytest.mark.parametrize("spacing", ["linspace", "trailing", "karras"])
@pytest.mark.parametrize("steps", [2, 5, 20, 200])
def test_lms(spacing, steps):
    peer = scheduler("LMSDiscreteScheduler", spacing, steps)
    path = levels(SCHEDULE, steps, spacing, "one", "levels")
    x, theirs = begin(path, by_sigma=True)
    # Its weights come from an integral that is stopped at a relative error of 1e-4.
    assert relative(ours(LMS(), path, x), follow(peer, theirs)) < 1e-4


@pytest.mark.parametrize("steps", [5, 20, 200])
@pytest.mark.parametrize(
    ("name", "options", "solver"),
    [
        ("DEISMultistepScheduler", {"solver_order": 3}, DEIS()),
        ("UniPCMultistepScheduler", {"solver_order": 2, "solver_type": "bh2"}, UniPC(2, "bh2")),
        ("UniPCMultistepScheduler", {"solver_order": 2, "solver_type": "bh1"}, UniPC(2, "bh1")),
        ("UniPCMultistepScheduler", {"solver_order": 3, "solver_type": "bh2"}, UniPC(3, "bh2")),
        ("UniPCMultistepScheduler", {"solver_order": 3, "solver_type": "bh1"}, UniPC(3, "bh1")),
        ("DPMSolverMultistepScheduler", {}, DPMSolverPP2M()),
    ],
)
def test_multistep(name, options, solver, steps):
    given = {"lower_order_final": False, "final_sigmas_type": "sigma_min"} | options
    if name.startswith("DEIS"):
        del given["final_sigmas_type"]
    peer = scheduler(name, "trailing", steps, **given)
    path = levels(SCHEDULE, steps, "trailing", "first")
    peer.sigmas[-1] = float(path.sigma[-1] / path.alpha[-1])
    if name.startswith("DEIS"):
        # Its closed forms of DEIS' integrals cancel in float32 where steps are short, which costs
        # 3.5e-3 at 200 steps; with sigmas in float64 they do not.
        sigmas = SCHEDULE.noise_to_signal_at(np.asarray(path.timestep[:-1], np.float64))
        peer.sigmas = torch.tensor(np.append(sigmas, float(peer.sigmas[-1])))
    x, theirs = begin(path)
    assert relative(ours(solver, path, x), follow(peer, theirs)) < 2e-5


@pytest.mark.parametrize("steps", [2, 5, 20, 200])
@pytest.mark.parametrize("spacing", ["trailing", "karras"])
def test_dpm_solver_as_sde(spacing, steps):
    given = {"algorithm_type": "sde-dpmsolver++", "lower_order_final": False}
    if spacing == "karras":
        given |= {"use_lu_lambdas": False}
    peer = scheduler("DPMSolverMultistepScheduler", spacing, steps, **given)
    path = levels(SCHEDULE, steps, spacing, "one")
    if spacing == "karras":  # the network is told rounded timesteps, at exact sigmas
        path = path._replace(timestep=jnp.round(path.timestep))
    x, theirs = begin(path)
    found = ours(DPMSolverPP2M(1.0), path, x)
    assert relative(found, follow(peer, theirs, noise=noises(steps))) < 1e-5


@pytest.mark.parametrize(
    ("algorithm", "order", "solver"),
    [
        ("dpmsolver", 2, DPMSolver(2)),
        ("dpmsolver", 3, DPMSolver(3)),
        ("dpmsolver++", 2, DPMSolverPP2SAncestral(0)),
    ],
)
@pytest.mark.parametrize("evaluations", [6, 24, 150])
def test_singlestep(algorithm, order, solver, evaluations):
    """Its levels between are those of its list; ours may be given such a list too."""
    peer = scheduler(
        "DPMSolverSinglestepScheduler", None, evaluations, algorithm_type=algorithm,
        solver_order=order, lower_order_final=False, final_sigmas_type="sigma_min",
    )  # fmt: skip
    path = levels_at(SCHEDULE, peer.timesteps.numpy().astype(np.float64), "first")
    x, theirs = begin(path)
    if order == 3:
        # Of three stages the second is the paper's with "heun", the third with "midpoint". With
        # the same type for both, ends are 2e-2, 1.2e-4 and 1.4e-6 apart.
        step = peer.step

        def papers(*arguments):
            stage = peer.order_list[peer.step_index or 0]
            peer.register_to_config(solver_type="heun" if stage == 2 else "midpoint")
            return step(*arguments)

        peer.step = papers
    assert relative(ours(solver, path, x), follow(peer, theirs)) < 2e-5


@pytest.mark.parametrize("spacing", ["linspace", "trailing", "karras"])
@pytest.mark.parametrize("steps", [2, 5, 20, 200])
@pytest.mark.parametrize("eta", [0, 1])
def test_dpm2(spacing, steps, eta, monkeypatch):
    solver = DPM2Ancestral(1.0) if eta else DPMSolver(2)
    name = "KDPM2AncestralDiscreteScheduler" if eta else "KDPM2DiscreteScheduler"
    peer = scheduler(name, spacing, steps)
    path = inner_levels(solver, SCHEDULE, levels(SCHEDULE, steps, spacing, "one", "levels"))
    module = "k_dpm_2_ancestral_discrete"
    # It draws at the second stage alone; our loop has noise for both.
    drawn = iter(noises(2 * steps)[1::2])
    monkeypatch.setattr(
        f"diffusers.schedulers.scheduling_{module}.randn_tensor", lambda *_, **__: next(drawn)
    )
    x, theirs = begin(path, by_sigma=True)
    found, expected = ours(solver, path, x), follow(peer, theirs)
    assert relative(found, expected) < 1e-5


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_lcm(steps, monkeypatch):
    peer = scheduler("LCMScheduler", "leading", steps)
    drawn = iter(noises(steps))
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_lcm.randn_tensor", lambda *_, **__: next(drawn)
    )
    path = levels_at(SCHEDULE, peer.timesteps.numpy().astype(np.float64), "one")
    x, theirs = begin(path)
    assert relative(ours(LCM(), path, x), follow(peer, theirs)) < 1e-5
