"""Where this process stands among those of a run, as its options or its cluster say."""

import importlib.util
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

OPTIONS = "--coordinator=HOST:PORT, --num_processes=N and --process_id=I"
START_SECONDS = 300
"""How long processes wait for each other at the start."""
_PODS = ("a TPU pod", "a TPU pod of Kubernetes")
_NAMES = {
    "slurm": "a Slurm job", "ompi": "a job of Open MPI", "gcetpu": _PODS[0], "gketpu": _PODS[1],
    "k8s": "a Kubernetes job",
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """One process of several."""

    index: int = 0
    count: int = 1
    coordinator: str | None = None
    """HOST:PORT of process 0; None where processes do not speak with each other."""
    devices: tuple[int, ...] | None = None
    """Which of its machine's GPUs are its own; None: all that it sees."""
    found: str = ""
    """What says so, such as "a Slurm job"; "" where the options do."""


ALONE = Place()


def find_place(
    coordinator: str | None, num_processes: int | None, process_id: int | None, single: bool
) -> Place:
    """What the options of a command say, or else what the cluster does that has started it.

    Clusters are found as JAX finds them, by what they write into the environment of a process:
    Slurm's `srun`, Open MPI's `mpirun`, TPU pods, indexed jobs of Kubernetes. A job of one process
    is none.

    Args:
        coordinator, num_processes, process_id: as `check_options` takes them.
        single: this process alone, wherever it stands.

    Raises:
        ValueError: options that do not fit each other, or a cluster that does not say where this
            process stands.
    """
    given = coordinator, num_processes, process_id
    check_options(*given, single)
    if coordinator is not None:
        return Place(process_id, num_processes, coordinator)
    return ALONE if single else _of_cluster()


def find_share(
    coordinator: str | None, num_processes: int | None, process_id: int | None, single: bool
) -> Place:
    """As `find_place`, of a command whose processes share work without speaking with each other:
    it needs no coordinator, but on a TPU pod, whose machines start together.

    Raises:
        ValueError: as `find_place`.
    """
    if (num_processes is None) != (process_id is None):
        raise ValueError(
            "--num_processes=N and --process_id=I are given together, or neither is: how many "
            "processes share the work, and which of them this is"
        )
    if coordinator is None and num_processes is not None:
        check_options("apart:1", num_processes, process_id, single)
        return Place(process_id, num_processes)
    place = find_place(coordinator, num_processes, process_id, single)
    apart = place.found and place.found not in _PODS
    return replace(place, coordinator=None) if apart else place


def check_options(
    coordinator: str | None, num_processes: int | None, process_id: int | None, single: bool
) -> None:
    """Checks the options of a run of several processes, before JAX starts.

    Raises:
        ValueError: only some are given, or a value is out of range.
    """
    given = {
        "--coordinator": coordinator, "--num_processes": num_processes, "--process_id": process_id,
    }  # fmt: skip
    missing = [name for name, value in given.items() if value is None]
    if single and len(missing) < len(given):
        raise ValueError(
            f"--single is for one process alone; leave it out, or {' and '.join(given)}"
        )
    if len(missing) == len(given):
        return
    if missing:
        raise ValueError(
            f"{' and '.join(missing)} missing: a run of several processes needs {OPTIONS}, a run "
            "of one none of them"
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(
            f"--coordinator={coordinator}: it must be HOST:PORT, the address of process 0 and a "
            "free port from 1 to 65535 there"
        )
    if num_processes < 1:
        raise ValueError(f"--num_processes={num_processes}: it must be 1 or more")
    if not 0 <= process_id < num_processes:
        raise ValueError(
            f"--process_id={process_id}: it must be from 0 to {num_processes - 1}, a different one "
            f"for each of the {num_processes} processes"
        )


def _of_cluster() -> Place:
    """What the cluster says; `ALONE` where there is none, or one process."""
    if _in_pod():
        if "JOB_COMPLETION_INDEX" not in os.environ:
            return ALONE  # no part of an indexed job, so that there are no others
        if importlib.util.find_spec("kubernetes") is None:
            raise ValueError(
                "this looks like a Kubernetes job, whose processes are found with pip install "
                f"kubernetes; install that, or name them with {OPTIONS}, or run this process alone "
                "with --single"
            )
    # JAX's own detection has no public name by itself.
    from jax._src.clusters import ClusterEnv

    name = "a cluster"
    try:
        kinds = [kind for kind in ClusterEnv._cluster_types if not kind.opt_in_only_method]
        kind = next((kind for kind in kinds if kind.is_env_present()), None)
        if kind is None and int(os.environ.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
            name = _NAMES["ompi"]
            raise LookupError("its version says nothing of where process 0 is")
        if kind is None:
            return ALONE
        name = _NAMES.get(kind.name, kind.name)
        count = kind.get_process_count()
        if count == 1:
            return ALONE
        port = os.environ.get("JAX_COORDINATOR_PORT")
        coordinator = kind.get_coordinator_address(START_SECONDS, port)
        return Place(kind.get_process_id(), count, coordinator, _own_devices(kind), name)
    except Exception as error:  # whatever a damaged environment, a server or its client raises
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ValueError(
            f"this looks like {name}, but it does not say where this process stands ({reason}); "
            f"name that with {OPTIONS}, or run this process alone with --single"
        ) from error


def _in_pod() -> bool:
    """Whether this is a pod of Kubernetes, and none of a TPU pod."""
    return "KUBERNETES_SERVICE_HOST" in os.environ and "TPU_WORKER_HOSTNAMES" not in os.environ


def _own_devices(kind: Any) -> tuple[int, ...] | None:
    """The GPU of this process where each has one of its machine's: not where it is alone there, or
    where the cluster shows it no other."""
    local = kind.get_local_process_id()
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    alone_there = _processes_here() == 1
    one_shown = shown is not None and len(shown.split(",")) == 1
    return None if local is None or alone_there or one_shown else (local,)


def _processes_here() -> int | None:
    """How many processes of the job this machine has; None where nothing says it."""
    if "OMPI_COMM_WORLD_LOCAL_SIZE" in os.environ:
        return int(os.environ["OMPI_COMM_WORLD_LOCAL_SIZE"])
    told = os.environ.get("SLURM_STEP_TASKS_PER_NODE") or os.environ.get("SLURM_TASKS_PER_NODE")
    if told is None:
        return None
    counts = expanded(told.split(","))
    return counts[int(os.environ.get("SLURM_NODEID", 0))]


def expanded(told: Sequence[str]) -> list[int]:
    """Slurm's counts of each node, in which `4(x2)` stands for `4,4`."""
    counts: list[int] = []
    for part in told:
        count, times = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part).groups()
        counts += [int(count)] * int(times or 1)
    return counts
