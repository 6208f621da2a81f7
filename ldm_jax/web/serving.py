"""Running the server until a signal ends it: uvicorn, with time limits of its own, and without its
signals, which every command handles in one way (`core/signals.py`)."""

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from ldm_jax.config import ConfigError
from ldm_jax.core.output import say
from ldm_jax.core.signals import at_end
from ldm_jax.web.app import make_app, make_services
from ldm_jax.web.arguments import Arguments
from ldm_jax.web.gallery import Gallery
from ldm_jax.web.limits import Limits
from ldm_jax.web.model_list import ModelList


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals alone."""
        yield


def _protocol(seconds: float) -> type[asyncio.Protocol]:
    """HTTP/1.1 in which whoever does not send the head of a request in time is hung up on."""

    class Patient(H11Protocol):
        timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._wait()

        def _waits_for_head(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def _wait(self) -> None:
            """Sets the clock where a head is waited for, once for each."""
            if self._waits_for_head():
                self.timer = self.timer or self.loop.call_later(seconds, self._hang_up)
            elif self.timer is not None:
                self.timer.cancel()
                self.timer = None

        def _hang_up(self) -> None:
            self.timer = None
            if self._waits_for_head() and not self.transport.is_closing():
                self.transport.close()

    return Patient


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; raises ConfigError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        why = getattr(error, "strerror", None) or error
        of_port = getattr(error, "errno", None) in (errno.EADDRINUSE, errno.EACCES)
        raise ConfigError(
            f"--host={host} --port={port}: nothing can listen there ({why}); choose another "
            + ("port" if of_port else "host, an address of this machine")
        ) from error
    listening.listen(1024)
    return listening


def make_server(app: ASGIApp, limits: Limits) -> uvicorn.Server:
    """The server of `app`; `server.run(sockets=[...])` answers until `should_exit` is set."""
    config = uvicorn.Config(
        app, http=_protocol(limits.body_seconds), ws="none", loop="asyncio", lifespan="off",
        log_level="error", access_log=False, server_header=False, date_header=True,
        limit_concurrency=limits.max_connections, timeout_keep_alive=5, proxy_headers=False,
        h11_max_incomplete_event_size=2**16, timeout_graceful_shutdown=2,
    )  # fmt: skip
    return _Server(config)


def run(arguments: Arguments) -> None:
    """Answers until a signal ends the process, or the server fails.

    Raises ConfigError, NotWritable: models that do not exist, a folder that cannot be written to,
    an address that is taken.
    """
    logging.basicConfig(format="ldm_jax.web: %(message)s")
    models = ModelList(arguments.models, arguments.tunings)
    socket = listen(arguments.host, arguments.port)
    services = make_services(models, Gallery(arguments.out), arguments.limits)
    server = make_server(make_app(services, arguments), arguments.limits)

    def end() -> str:
        server.should_exit = True
        services.worker.close()
        drawn = _counted(services.worker.pictures_drawn, "picture")
        return f"{drawn} drawn since the start; all in {arguments.out} are whole"

    host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    port = socket.getsockname()[1]
    count = len(services.models.drawing)
    if not count:
        folders = ", ".join(map(str, arguments.models))
        say(f"ldm_jax.web: warning: there is no model in {folders}; one that is put there later "
            "is found by itself")  # fmt: skip
    say(f"ldm_jax.web: {_counted(count, 'model')}; open http://{host}:{port}/ (Ctrl-C ends it)")
    services.worker.start()
    with at_end(end):
        server.run(sockets=[socket])


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
