"""Which share of a command's work a process does."""

from typing import Annotated

from ldm_jax.config.checks import Within, settings


@settings
class WorkShare:
    """Several processes that share the work; each writes files of its own. Where Slurm, Open MPI,
    Kubernetes or a TPU pod starts them, they know their shares."""

    num_processes: Annotated[int, Within(1, 65536)] | None = None
    """How many processes there are."""
    process_id: Annotated[int, Within(0, 65535)] | None = None
    """Which of them this is, from 0."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where the devices of several processes make one machine (TPU)."""
    single: bool = False
    """This process does all of the work, though it stands in such a cluster."""
