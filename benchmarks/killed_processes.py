"""Kills one of several processes of a training run at random moments, and says how long the others
took to end, what they said (on stderr), and whether the same command then ended with the same bits
as an undisturbed run:

    python -m benchmarks.killed_processes --out=runs/killed [--times=10] [--seed=0] [--victims 0 3]
        [--workdirs=gs://bucket/killed]

The processes are on this machine, one CPU device each, and train DigitScenes' autoencoder."""

import random
import statistics
import sys
import time
from pathlib import Path

import jax
import numpy as np
import tyro

from benchmarks.together import log_of, start_train
from ldm_jax.core.files import remove
from ldm_jax.core.stores import as_path
from ldm_jax.workdir.checkpoints import Checkpoints

CONFIG = "digit_scenes_autoencoder"
SETTINGS = (
    "--loop.checkpoint_every=10", "--loop.log_every=5", "--loop.sample_every=0",
    "--loop.validate_every=1000000",
)  # fmt: skip
LONGEST = 1800
"""Seconds that a run may take."""
STOPPED = 3
"""Who sleeps for a tenth of a second and wakes after so many was stopped (SIGSTOP)."""


def main(
    out: Path, times: int = 10, processes: int = 4, steps: int = 60, seed: int = 0,
    mesh: tuple[str, ...] = (), data_dir: str = "data", victims: tuple[int, ...] = (),
    workdirs: str | None = None,
) -> None:  # fmt: skip
    """`mesh`: options such as --mesh.fsdp=4; `victims`: who is killed in turn, by default anyone,
    and process 0 twice at least, which has what JAX's processes find each other by; `workdirs`:
    where the work directories lie, by default beside the logs in `out`."""
    places = out if workdirs is None else as_path(workdirs)
    chance = random.Random(seed)
    options = (
        f"--config={CONFIG}", *SETTINGS, f"--loop.steps={steps}",
        f"--data.source.data_dir={data_dir}", *mesh,
    )  # fmt: skip
    began = time.monotonic()
    whole = start_train(places / "undisturbed", processes, options, logged=out / "undisturbed")
    assert [one.wait(LONGEST) for one in whole] == [0] * processes, "the undisturbed run failed"
    usual = time.monotonic() - began
    expected = _params(places / "undisturbed")
    print(f"undisturbed: {usual:.0f} s\n")
    print("| killed | after | step | others ended after | statuses | the same bits at the end |")
    print("|---|---|---|---|---|---|")
    if not victims:
        chosen = [0, 0, *(chance.randrange(processes) for _ in range(times))][:times]
        victims = tuple(chance.sample(chosen, times))
    seconds, sames = [], 0
    for number in range(times):
        folder, logged = places / f"{number}", out / f"{number}"
        victim = victims[number % len(victims)]
        remove(folder)
        running = start_train(folder, processes, options, logged=logged)
        moment = chance.uniform(0.2, 1.0) * usual
        time.sleep(moment)
        step = _step(folder)
        running[victim].kill()
        seconds.append(_until_all_end(running))
        statuses = [one.returncode for one in running]
        words = [_last_words(logged, index) for index in range(processes) if index != victim]
        resumed = start_train(folder, processes, options, logged=logged)
        again = [one.wait(LONGEST) for one in resumed]
        same = again == [0] * processes and _same(_params(folder), expected)
        sames += same
        print(f"| process {victim} | {moment:.0f} s | {step} | {seconds[-1]:.1f} s | {statuses} "
              f"| {'yes' if same else f'no: {again}'} |", flush=True)  # fmt: skip
        for line in dict.fromkeys(words):
            print(f"  {line}", file=sys.stderr, flush=True)
    print(f"\nothers ended after {statistics.median(seconds):.1f} s (median), "
          f"{max(seconds):.1f} s (longest); the same bits {sames} of {times} times")  # fmt: skip


def _until_all_end(running: list) -> float:
    """The seconds until then, without those in which this machine was busy with something else
    and let nobody run, this process included."""
    took = 0.0
    while any(one.poll() is None for one in running):
        assert took < LONGEST, "they do not end"
        began = time.monotonic()
        time.sleep(0.1)
        passed = time.monotonic() - began
        took += passed if passed < STOPPED else 0
    return took


def _last_words(logged: Path, index: int) -> str:
    """The last line that a process has said."""
    return log_of(logged, index).read_text().strip().rpartition("\n")[2]


def _step(workdir: Path) -> int:
    """The last step that the run has told of."""
    from ldm_jax.training.curves import read_metrics

    path = workdir / "metrics.jsonl"
    return max((one["step"] for one in read_metrics(path)), default=0) if path.exists() else 0


def _params(workdir: Path) -> list[np.ndarray]:
    return jax.tree.leaves(Checkpoints.load_params(workdir, "raw")[1])


def _same(found: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    pairs = zip(found, expected, strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)


if __name__ == "__main__":
    tyro.cli(main)
