"""The command line of the server."""

import ipaddress
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ldm_jax.config import ConfigError
from ldm_jax.config.checks import Within, check_fields
from ldm_jax.config.command_line import check_given, overridden
from ldm_jax.web.limits import Limits
from ldm_jax.web.security import LOOPBACK, Access
from ldm_jax.web.tunings import Tunings


@dataclass(frozen=True)
class Arguments:
    """Draw in a browser, and over HTTP with the community's API (/sdapi/v1/)."""

    models: tuple[Path, ...] = ()
    """Folders with models, work directories or single files; or models themselves."""
    lora_dir: Path | None = None
    """Folder of adapters, which prompts name: <lora:NAME:0.8>."""
    hypernetwork_dir: Path | None = None
    """Folder of hypernetworks, which prompts name: <hypernet:NAME:0.8>."""
    embeddings_dir: Path | None = None
    """Folder of embeddings (textual inversion), whose names are words of prompts."""
    control: tuple[Path, ...] = ()
    """ControlNets that requests can name as their files or folders are called."""
    out: Path = Path("pictures")
    """Folder for the pictures; those that are in it, and `sample.py`'s, are shown, too."""
    host: str = "127.0.0.1"
    """Address to listen at; another than this machine's own needs --auth or --token."""
    port: Annotated[int, Within(0, 65535)] = 7860
    """Port to listen at; 0 is any that is free."""
    auth: str | None = None
    """USER:PASSWORD that browsers and programs have to give; in the environment LDM_JAX_AUTH, where
    other users of this machine do not see it."""
    token: str | None = None
    """Token that programs have to give (Authorization: Bearer TOKEN), or browsers as a password; in
    the environment LDM_JAX_TOKEN."""
    allow_host: tuple[str, ...] = ()
    """More names under which the server is called."""
    limits: Annotated[Limits, tyro.conf.arg(name="")] = field(default_factory=Limits)

    def __post_init__(self) -> None:
        check_fields(self, "--")
        auth, token = self.credentials
        if auth is not None and not all(auth.partition(":")[::2]):
            raise ConfigError(
                "--auth (or LDM_JAX_AUTH) must be USER:PASSWORD, neither of them empty"
            )
        if token is not None and len(token) < 8:
            raise ConfigError(
                "--token (or LDM_JAX_TOKEN) is shorter than 8 characters; choose a longer one"
            )
        if not self.is_loopback and auth is None and token is None:
            raise ConfigError(
                f"--host={self.host} can be reached from other machines, so that --auth="
                "USER:PASSWORD or --token=TOKEN is needed; anybody could draw otherwise"
            )

    @property
    def credentials(self) -> tuple[str | None, str | None]:
        """User and password, and token, of the command line or else of the environment."""
        return (
            self.auth or os.environ.get("LDM_JAX_AUTH") or None,
            self.token or os.environ.get("LDM_JAX_TOKEN") or None,
        )

    @property
    def tunings(self) -> Tunings:
        """What prompts and requests can name. Raises ConfigError as `Tunings`."""
        return Tunings(
            self.lora_dir, self.hypernetwork_dir, self.embeddings_dir, self.control
        )  # fmt: skip

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the server."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def access(self) -> Access:
        """Under which names the server is reached, and by whom."""
        own = () if self.is_loopback else (self.host, socket.gethostname())
        return Access(
            (*LOOPBACK, self.host, *own, *self.allow_host), not self.is_loopback,
            *self.credentials,
        )  # fmt: skip


def parse(arguments: Sequence[str]) -> Arguments:
    """The arguments of the command line.

    Raises:
        ConfigError: no models are named, or settings that cannot be.
        SystemExit: after --help.
    """
    check_given(arguments, ("models", "out"))
    found = overridden(Arguments(), arguments, "python -m ldm_jax.web", Arguments.__doc__ or "")
    if not found.models:
        raise ConfigError("--models=FOLDER is missing: a folder with models, or a model")
    return found
