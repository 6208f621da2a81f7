"""The discriminator that a first stage is trained against: its state, its losses, its own update.

Real images should get positive logits, reconstructions negative ones.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ldm_jax import config as cfg
from ldm_jax.core import rngs
from ldm_jax.losses import gan
from ldm_jax.models.discriminator import PatchGAN
from ldm_jax.training.gradients import Metrics, descend
from ldm_jax.training.optim import make_optimizer

Images = Float[Array, "b h w c"]
LOSSES = {
    "hinge": (gan.hinge_discriminator, gan.hinge_generator),
    "vanilla": (gan.vanilla_discriminator, gan.vanilla_generator),
}
"""The discriminator's loss and the autoencoder's."""


@flax.struct.dataclass
class Discriminator:
    """All of the discriminator that training changes."""

    params: Any
    batch_stats: Any
    """Running statistics of its norms, or an empty dict."""
    opt_state: Any
    lecam: Any
    """LeCAM's averages of the logits, or an empty dict."""


class DiscriminatorTraining:
    """The discriminator of one run as pure functions of its state."""

    def __init__(self, run: cfg.AutoencoderRun) -> None:
        """For the discriminator of `run.loss.adversarial`, which must not be None."""
        self.config = config = run.loss.adversarial
        self.network = PatchGAN(
            config.channels, config.layers, config.norm, jnp.dtype(run.loop.dtype)
        )
        rate = config.learning_rate or run.optim.learning_rate
        # Its schedule runs over the steps that it takes part in.
        self.optimizer = make_optimizer(
            replace(run.optim, learning_rate=rate), max(run.loop.steps - config.start, 1)
        )
        self.discriminator_loss, self.generator_loss = LOSSES[config.loss]
        self._image = (1, *run.data.sides, run.autoencoder.image_channels)
        self._seed, self._norm_depth = run.loop.seed, run.loop.norm_depth

    def create(self) -> Discriminator:
        """The discriminator before its first step."""
        image = jnp.zeros(self._image, jnp.float32)
        variables = self.network.init(
            rngs.stream(self._seed, "init/discriminator"), image, train=False
        )
        return Discriminator(
            params=variables["params"],
            batch_stats=variables.get("batch_stats", {}),
            opt_state=self.optimizer.init(variables["params"]),
            lecam=gan.lecam_init() if self.config.lecam_weight else {},
        )

    def logits(self, params: Any, batch_stats: Any, images: Images) -> tuple[Array, Any]:
        """Logits, normalised by the batch's own statistics, and the running ones after it."""
        variables = {"params": params, "batch_stats": batch_stats}
        logits, changed = self.network.apply(variables, images, train=True, mutable=["batch_stats"])
        return logits, changed.get("batch_stats", {})

    def judge(
        self, discriminator: Discriminator, active: Array
    ) -> Callable[[Images], tuple[Float[Array, ""], Any]]:
        """`loss(images)`: the autoencoder's adversarial loss and the running statistics after it.

        Before the discriminator takes part the loss is 0 and the network is not run.
        """

        def run(images: Images) -> tuple[Float[Array, ""], Any]:
            logits, batch_stats = self.logits(
                discriminator.params, discriminator.batch_stats, images
            )
            return self.generator_loss(logits), batch_stats

        def skip(images: Images) -> tuple[Float[Array, ""], Any]:
            return jnp.zeros(()), discriminator.batch_stats

        return lambda images: jax.lax.cond(active, run, skip, images)

    def gradients(
        self, discriminator: Discriminator, real: Images, fake: Images
    ) -> tuple[Any, Any, Any, Metrics]:
        """Gradients of the discriminator's loss, its statistics and averages after it, and its
        metrics.

        Real images are judged first and apart from the others, as in the published code.
        """
        config = self.config

        def loss(params: Any) -> tuple[Float[Array, ""], Any]:
            real_logits, batch_stats = self.logits(params, discriminator.batch_stats, real)
            fake_logits, batch_stats = self.logits(params, batch_stats, fake)
            total = config.factor * self.discriminator_loss(real_logits, fake_logits)
            metrics = {"discriminator_loss": total} | gan.discriminator_metrics(
                real_logits, fake_logits
            )
            lecam = discriminator.lecam
            if config.lecam_weight:
                lecam = gan.lecam_update(lecam, real_logits, fake_logits, config.lecam_decay)
                metrics["lecam"] = gan.lecam_penalty(lecam, real_logits, fake_logits)
                total += config.lecam_weight * metrics["lecam"]
            if config.r1_gamma:
                metrics["r1"] = gan.r1_penalty(
                    lambda images: self.logits(params, {}, images)[0], real, config.r1_gamma
                )
                total += metrics["r1"]
            return total, (batch_stats, lecam, metrics)

        gradients, aux = jax.grad(loss, has_aux=True)(discriminator.params)
        return gradients, *aux

    def update(self, discriminator: Discriminator, gradients: Any, batch_stats: Any, lecam: Any
               ) -> tuple[Discriminator, Metrics]:  # fmt: skip
        """The discriminator after one step of its optimiser."""
        params, opt_state, norms = descend(
            self.optimizer, gradients, discriminator.opt_state, discriminator.params,
            self._norm_depth,
        )  # fmt: skip
        norms = {f"discriminator_{name}": value for name, value in norms.items()}
        return Discriminator(params, batch_stats, opt_state, lecam), norms
