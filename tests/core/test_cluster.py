"""Where a process stands among others: by its options, checked before JAX starts, or its
cluster."""

import pytest

from ldm_jax.core.cluster import ALONE, Place, check_options, expanded, find_place


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (("host:1", None, None), "--num_processes and --process_id missing"),
        ((None, 2, None), "--coordinator and --process_id missing"),
        ((None, None, 0), "--coordinator and --num_processes missing"),
        (("host:1", 2, None), "--process_id missing"),
        (("host", 2, 0), "--coordinator=host: it must be HOST:PORT"),
        ((":80", 2, 0), "HOST:PORT"),
        (("host:http", 2, 0), "HOST:PORT"),
        (("host:70000", 2, 0), "HOST:PORT"),
        (("host:1", 0, 0), "--num_processes=0: it must be 1 or more"),
        (("host:1", 2, 2), "--process_id=2: it must be from 0 to 1"),
        (("host:1", 2, -1), "--process_id=-1: it must be from 0 to 1"),
    ],
)
def test_all_three_options_or_none_and_within_range(given, complaint):
    with pytest.raises(ValueError, match=complaint):
        check_options(*given, False)


def test_what_fits_is_taken():
    check_options(None, None, None, False)
    check_options("[::1]:1234", 1, 0, False)
    assert find_place("localhost:1234", 2, 1, False) == Place(1, 2, "localhost:1234")
    with pytest.raises(ValueError, match="--single is for one process alone"):
        check_options("localhost:1234", 2, 1, True)


SLURM = {
    "SLURM_JOB_ID": "4097", "SLURM_STEP_NODELIST": "node[07-08]", "SLURM_NTASKS": "8",
    "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
}  # fmt: skip
OMPI = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "1",
}  # fmt: skip


def _in(monkeypatch, **environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return find_place(None, None, None, False)


def test_a_slurm_job_says_where_its_processes_stand(monkeypatch):
    place = _in(monkeypatch, **SLURM)
    assert place == Place(5, 8, "node07:61441", (1,), "a Slurm job")
    assert find_place("there:1", 2, 0, False) == Place(0, 2, "there:1")
    assert find_place(None, None, None, single=True) == ALONE
    # All GPUs where it is alone on its machine; the one where Slurm shows it no other.
    assert _in(monkeypatch, SLURM_STEP_TASKS_PER_NODE="7,1").devices is None
    shown = {"SLURM_STEP_TASKS_PER_NODE": "4(x2)", "CUDA_VISIBLE_DEVICES": "3"}
    assert _in(monkeypatch, **shown).devices is None
    assert _in(monkeypatch, SLURM_NTASKS="1") == ALONE
    monkeypatch.delenv("SLURM_STEP_NODELIST")  # a shell in an allocation, without srun
    assert _in(monkeypatch, SLURM_NTASKS="8") == ALONE


def test_a_damaged_environment_is_named(monkeypatch):
    with pytest.raises(ValueError, match="like a Slurm job, but .*'x'.*--single"):
        _in(monkeypatch, **SLURM | {"SLURM_NTASKS": "x"})


def test_open_mpi_says_where_its_processes_stand(monkeypatch):
    assert _in(monkeypatch, **OMPI) == Place(1, 2, "10.96.0.1:62624", None, "a job of Open MPI")
    monkeypatch.delenv("OMPI_MCA_orte_hnp_uri")  # since Open MPI 5
    with pytest.raises(ValueError, match="like a job of Open MPI, but .*--single"):
        find_place(None, None, None, False)


def test_a_tpu_pod_says_where_its_processes_stand(monkeypatch):
    from jax._src.clusters import cloud_tpu_cluster

    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    monkeypatch.setattr(cloud_tpu_cluster.socket, "gethostbyname", lambda name: "10.0.0.1")
    monkeypatch.setattr("jax._src.clusters.cluster.running_in_cloud_tpu_vm", True)
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    pod = {"TPU_WORKER_HOSTNAMES": "t0,t1", "TPU_WORKER_ID": "1"}
    slices = {"MEGASCALE_COORDINATOR_ADDRESS": "s0:8080", "MEGASCALE_NUM_SLICES": "2",
              "MEGASCALE_SLICE_ID": "1"}  # fmt: skip
    place = _in(monkeypatch, **pod, **slices)
    assert place == Place(3, 4, "s0:8482", None, "a TPU pod of Kubernetes")


def test_a_pod_of_kubernetes_by_itself_is_alone(monkeypatch):
    assert _in(monkeypatch, KUBERNETES_SERVICE_HOST="10.0.0.1") == ALONE
    with pytest.raises(ValueError, match="Kubernetes job.*pip install kubernetes.*--single"):
        _in(monkeypatch, JOB_COMPLETION_INDEX="1")


def test_counts_of_slurm_are_read():
    assert expanded(["4(x2)", "3"]) == [4, 4, 3]
