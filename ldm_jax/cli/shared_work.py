"""The options of a command whose work several processes share, and that need not speak with each
other for it."""

from typing import Annotated

from ldm_jax.config.checks import Within, require, settings


@settings
class SharedWork:
    """Which part of the work a process does."""

    num_processes: Annotated[int, Within(1, 65536)] = 1
    """Processes that share the work; each does its own shards."""
    process_id: Annotated[int, Within(0, 65535)] | None = None
    """Which of them this is, from 0."""

    def __post_init__(self) -> None:
        require(
            (self.process_id is None) == (self.num_processes == 1),
            "--process_id",
            self.process_id,
            "given with --num_processes of 2 or more, and only with it",
        )
        require((self.process_id or 0) < self.num_processes, "--process_id", self.process_id,
                f"below --num_processes={self.num_processes}")  # fmt: skip
