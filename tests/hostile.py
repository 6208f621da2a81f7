"""Requests that mean no good, each as (port) -> (what it was, the status of the answer)."""

import base64
import http.client
import itertools
import json
import socket
import tempfile
import zlib
from collections.abc import Callable, Iterator

Send = Callable[[int], tuple[str, int]]
OUTSIDE = f"{tempfile.gettempdir()}/ldm_jax_hostile"
"""A file that nobody may write."""
PATHS = ("../../x", "/etc/passwd", "..\\..\\x", "file:///etc/passwd", "http://127.0.0.1:1/x.png",
         "%2e%2e/x", "a\0b", OUTSIDE, "hf:evil/model", "....//x")  # fmt: skip
TEXTS = ("model", "init_image", "mask", "prompt", "sampler", "negative_prompt")
JSON = {"Content-Type": "application/json"}


def hostile_requests() -> Iterator[Send]:
    """Two hundred and more of them, mixed."""
    kinds = [_paths(), _bodies(), _types(), _pictures(), _heads(), _raw()]
    for some in itertools.zip_longest(*kinds):
        yield from (send for send in some if send is not None)


def _send(name: str, method: str, path: str, body: bytes = b"", **headers: str) -> Send:
    def send(port: int) -> tuple[str, int]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request(method, path, body, {k.replace("_", "-"): v for k, v in
                                                    headers.items()})  # fmt: skip
            return name, connection.getresponse().status
        except (BrokenPipeError, ConnectionResetError):
            return name, 413  # it was hung up on before it had sent everything
        finally:
            connection.close()

    return send


def _json(name: str, path: str, body: object) -> Send:
    return _send(name, "POST", path, json.dumps(body).encode(), **JSON)


def _paths() -> Iterator[Send]:
    """Paths in every field of text, and in the address."""
    for path in PATHS:
        yield _json(f"model {path}", "/api/jobs", {"model": path})
        for field in ("init_image", "mask"):
            body = {"model": "run", "request": {"prompt": ["a red three alone"]}, field: path}
            yield _json(f"{field} {path}", "/api/jobs", body)
        for field in ("init_image", "model", "latents", "tokenizer", "weak_model", "vae", "sampler",
                      "original_config", "dtype"):  # fmt: skip
            yield _json(f"{field} {path}", "/api/jobs", {"model": "run", "request": {field: path}})
        settings = {"sd_model_checkpoint": path}
        yield _json(f"override {path}", "/sdapi/v1/txt2img", {"override_settings": settings})
        yield _json(f"option {path}", "/sdapi/v1/options", settings)
        yield _json(f"init_images {path}", "/sdapi/v1/img2img", {"init_images": [path]})
        yield _json(f"png-info {path}", "/sdapi/v1/png-info", {"image": path})
        quoted = "".join(f"%{byte:02x}" for byte in path.encode())
        for method in ("GET", "DELETE"):
            yield _send(f"gallery {path}", method, f"/api/gallery/{quoted}")
        yield _send(f"page {path}", "GET", f"/{quoted}")
        yield _send(f"before {path}", "GET", f"/api/gallery?before={quoted}")


def _bodies() -> Iterator[Send]:
    """What is no JSON object, or too large, or too deep."""
    for body in (b"[1]", b"3", b"{", b"\xff\xfe", b'{"a": NaN}', b'{"a": 1, "a": 2}', b"null",
                 b'{"a": 1e999}', b"[" * 100_000, b'{"a":' * 50_000, b"\0", b'{"a": ' + b"9" * 5000
                 + b"}"):  # fmt: skip
        for path in ("/api/jobs", "/sdapi/v1/txt2img"):
            yield _send(f"body {body[:20]!r}", "POST", path, body)
    large = b'{"prompt": "' + b"a" * 4_000_000 + b'"}'
    for path in ("/api/jobs", "/sdapi/v1/txt2img", "/api/settings_of", "/sdapi/v1/options"):
        yield _send("large body", "POST", path, large)
        yield _send("large claim", "POST", path, b"{}", Content_Length=str(10**15))


def _types() -> Iterator[Send]:
    """Wrong types, numbers out of range, and fields that do not exist."""
    for value in (None, 3, [], {}, "x", True, -1, 10**30, [[]], {"a": {}}):
        body = {"model": value, "request": value, "x": value}
        yield _json(f"types {value}", "/api/jobs", body)
        yield _json(f"grid {value}", "/api/grid", body | {"y": value})
        yield _json(f"tokens {value}", "/api/tokens", {"model": value, "text": value})
    for field, value in (("steps", 10**9), ("batch_size", 10**9), ("n_iter", -1), ("width", 10**9),
                         ("height", 0), ("seed", 2**40), ("steps", "three"), ("prompt", ["a"]),
                         ("prompt", "a" * 50_000), ("init_images", ["x"]), ("unknown", 1),
                         ("alwayson_scripts", {"x": {"args": [1]}}),
                         ("cfg_scale", 10**400)):  # fmt: skip
        yield _json(f"{field} {str(value)[:20]}", "/sdapi/v1/txt2img", {field: value})


def bomb(kind: str) -> bytes:
    """A PNG that claims, and unpacks to, far more than is sent: pixels, or text."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(name + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + name + data + checksum

    side = 60_000 if kind == "pixels" else 2
    head = chunk(b"IHDR", side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0]))
    text = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(bytes(100_000_000), 9))
    data = chunk(b"IDAT", zlib.compress(bytes(2_000_000), 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + (text if kind == "text" else b"") + data


def _pictures() -> Iterator[Send]:
    """Bombs, damaged pictures, and base64 that is none."""
    whole = {"model": "run", "request": {"prompt": ["a red three alone"]}}
    for kind in ("pixels", "text"):
        text = base64.b64encode(bomb(kind)).decode()
        yield _send(f"bomb {kind}", "POST", "/api/settings_of", bomb(kind))
        if kind == "pixels":
            yield _json("bomb", "/api/jobs", whole | {"init_image": text})
            yield _json("bomb", "/sdapi/v1/img2img", {"init_images": [text]})
            yield _json("bomb", "/sdapi/v1/img2img", {"init_images": [text], "mask": text})
        yield _json(f"bomb {kind}", "/sdapi/v1/png-info", {"image": text})
    for data in (b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(99), b"%!PS\n", b"<svg onload='x'/>",
                 b"RIFF\0\0\0\0WEBPVP8 ", b"\xff\xd8\xff\xe0" + bytes(50)):  # fmt: skip
        text = base64.b64encode(data).decode()
        yield _json(f"picture {data[:4]!r}", "/api/jobs", whole | {"init_image": text})
        yield _send(f"settings {data[:4]!r}", "POST", "/api/settings_of", data)
    for text in ("====", "data:;base64,!!", "data:image/png;base64,", "\u00e9", "a" * 5):
        yield _json(f"base64 {text}", "/sdapi/v1/img2img", {"init_images": [text]})


def _heads() -> Iterator[Send]:
    """Foreign hosts, origins and pages; methods that nothing answers."""
    for host in ("evil.example", "127.0.0.1.evil.example", "10.0.0.1", "localhost.evil:80"):
        yield _send(f"host {host}", "GET", "/api/models", Host=host)
        yield _send(f"host {host}", "POST", "/sdapi/v1/interrupt", Host=host)
    for origin in ("http://evil.example", "null", "http://localhost:1", "https://127.0.0.1"):
        yield _send(f"origin {origin}", "POST", "/sdapi/v1/interrupt", Origin=origin)
        yield _send(f"origin {origin}", "OPTIONS", "/api/jobs", Origin=origin)
    for site in ("cross-site", "same-site"):
        yield _send(f"site {site}", "POST", "/sdapi/v1/interrupt", Sec_Fetch_Site=site)
    for method in ("PUT", "PATCH", "TRACE", "OPTIONS", "DELETE", "GETT"):
        yield _send(f"method {method}", method, "/api/models")


def _raw() -> Iterator[Send]:
    """What is no HTTP, or comes to no end: the connection is closed, which counts as 400."""
    for data in (b"\x16\x03\x01\x02", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
                 b"GET /" + b"a" * 100_000, b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\n"
                 b"Content-Length: 100\r\n\r\n{", b"GET / HTTP/1.1\r\nHost: local",
                 b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
                 b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
                 b"ffffffffff\r\n"):  # fmt: skip
        yield _raw_bytes(data)


def _raw_bytes(data: bytes) -> Send:
    def send(port: int) -> tuple[str, int]:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            try:
                connection.sendall(data)
                answer = connection.recv(200)
            except ConnectionResetError:
                answer = b""
        return f"raw {data[:20]!r}", int(answer.split()[1]) if answer else 400

    return send
