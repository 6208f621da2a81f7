"""The server under the application: uvicorn, with time limits of its own, and without its signals,
which every command handles in one way (`core/signals.py`)."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from ldm_jax.config import ConfigError
from ldm_jax.web.limits import Limits


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
