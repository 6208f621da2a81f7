"""How long the server's users wait: from a request to its first preview and to its picture, beside
`sample.py`; and twenty clients at once.

    python -m benchmarks.web --model=runs/demo/text2img [--steps=100] [--clients=20]

All start with warm compilation caches. The server has the model in memory, `sample.py` is a process
that starts, loads and draws.
"""

import base64
import contextlib
import dataclasses
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tyro


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measures the server and `sample.py` with one model."""

    model: Path
    prompt: str = "a red three above a blue seven"
    steps: int = 100
    clients: int = 20
    repeats: int = 5


@contextlib.contextmanager
def server(model: Path, out: Path, programs: Path | None = None) -> Iterator[str]:
    """The address of a server of one model, which keeps what it compiles in `programs`, or else
    where all commands do."""
    kept = {} if programs is None else {"JAX_COMPILATION_CACHE_DIR": str(programs)}
    command = [sys.executable, "-m", "ldm_jax.web", f"--models={model}", f"--out={out}", "--port=0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | kept)
    try:
        line = ""
        while not (found := re.search(r"http://\S+:\d+", line)):
            line = process.stderr.readline()
            if not line:
                raise RuntimeError("the server has ended")
        yield found[0]
    finally:
        process.terminate()
        process.wait()


def asked(url: str, body: Any = None) -> Any:
    """The JSON that the server answers."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers)) as answer:
        return json.load(answer)


def waits(url: str, request: dict[str, Any], model: str) -> tuple[float, float]:
    """Seconds from the request to its first preview and to its picture."""
    began, preview = time.perf_counter(), None
    job = asked(f"{url}/api/jobs", {"model": model, "request": request})["id"]
    while True:
        now = asked(f"{url}/api/jobs/{job}")
        asked(f"{url}/api/jobs")  # somebody looks, so that previews are made
        if preview is None and now["preview"]:
            preview = time.perf_counter() - began
        if now["stage"] == "done":
            return preview or float("nan"), time.perf_counter() - began
        if now["stage"] == "failed":
            raise RuntimeError(now["error"])
        time.sleep(0.02)


def crowd(url: str, model: str, arguments: Arguments) -> tuple[bool, float]:
    """Whether requests of many clients at once were drawn in the order in which they came, and the
    seconds that all took."""
    sides = asked(f"{url}/api/form?model={urllib.parse.quote(model)}")["sides"]
    size = {side: sides[side]["default"] for side in ("width", "height")}

    def client(number: int) -> None:
        body = {"prompt": arguments.prompt, "seed": number, "steps": 20, "cfg_scale": 3, **size}
        found = asked(f"{url}/sdapi/v1/txt2img", body)
        assert base64.b64decode(found["images"][0]).startswith(b"\x89PNG")

    began = time.perf_counter()
    with ThreadPoolExecutor(arguments.clients) as pool:
        list(pool.map(client, range(arguments.clients)))
    seconds = time.perf_counter() - began
    ended = [job["created"] for job in asked(f"{url}/api/jobs")[-arguments.clients :]]
    return ended == sorted(ended), seconds


def main(arguments: Arguments) -> None:
    """Prints medians."""
    with tempfile.TemporaryDirectory() as folder:
        with server(arguments.model, Path(folder) / "pictures") as url:
            (model,) = (one["name"] for one in asked(f"{url}/api/models"))
            request = {"prompt": [arguments.prompt], "steps": arguments.steps}
            first = waits(url, request, model)
            found = [waits(url, request, model) for _ in range(arguments.repeats)]
            in_order, seconds = crowd(url, model, arguments)
        preview, picture = (statistics.median(values) for values in zip(*found, strict=True))
        print(f"server, first request: preview {first[0]:.2f} s, picture {first[1]:.2f} s")
        print(f"server, later requests: preview {preview:.2f} s, picture {picture:.2f} s")
        command = [
            sys.executable, "sample.py", f"--model={arguments.model}", "--batch_size=1",
            f"--prompt={arguments.prompt}", f"--steps={arguments.steps}",
        ]  # fmt: skip
        alone = []
        for number in range(arguments.repeats + 1):
            began = time.perf_counter()
            subprocess.run([*command, f"--out={folder}/{number}"], check=True, capture_output=True)
            alone.append(time.perf_counter() - began)
        print(f"sample.py: picture {statistics.median(alone[1:]):.2f} s")
        served = "in the order of their requests" if in_order else "in another order"
        print(f"{arguments.clients} clients at once: drawn {served} within {seconds:.1f} s")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
