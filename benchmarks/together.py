"""Starts the processes of one run on this machine."""

import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def start_train(
    workdir: Path,
    processes: int,
    options: Sequence[str],
    host: str = "localhost",
    within: Sequence[str] = (),
    logged: Path | None = None,
) -> list[subprocess.Popen]:
    """Starts `train.py` in `workdir` as so many processes, which find process 0 at `host`.

    Each is begun by its command in `within`, if there are any, in turn. What they say is added to
    `LOGGED_{index}.log`, by default beside `workdir`.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    together = (f"--coordinator={host}:{port}", f"--num_processes={processes}")
    options = (f"--workdir={workdir}", *options)
    return [
        start(("train.py", *options, *together, f"--process_id={index}"), logged or workdir, index,
              within[index % len(within)].split() if within else ())
        for index in range(processes)
    ]  # fmt: skip


def start(
    command: Sequence[str], folder: Path, index: int, within: Sequence[str] = ()
) -> subprocess.Popen:
    """Starts Python with `command`; what it says is added to `FOLDER_{index}.log`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with log_of(folder, index).open("a") as log:
        return subprocess.Popen([*within, sys.executable, *command], stdout=log, stderr=log)


def log_of(folder: Path, index: int) -> Path:
    """Where what a process says is."""
    return folder.parent / f"{folder.name}_{index}.log"
