"""Our readers read what torch and safetensors write, and they read what we write, bit for bit."""

from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import safetensors.torch  # noqa: E402

from ldm_jax.core.reading import FileFormatError  # noqa: E402
from ldm_jax.formats.model_files import read_tensors  # noqa: E402
from ldm_jax.formats.pickles import Placeholder  # noqa: E402
from ldm_jax.formats.safetensors_file import read_safetensors, write_safetensors  # noqa: E402
from ldm_jax.formats.torch_file import read_torch  # noqa: E402

DTYPES = {
    torch.float16: np.float16, torch.bfloat16: ml_dtypes.bfloat16, torch.float32: np.float32,
    torch.float64: np.float64, torch.int8: np.int8, torch.int16: np.int16, torch.int32: np.int32,
    torch.int64: np.int64, torch.uint8: np.uint8, torch.uint16: np.uint16,
    torch.uint32: np.uint32, torch.uint64: np.uint64, torch.bool: np.bool_,
    torch.complex64: np.complex64, torch.complex128: np.complex128,
    torch.float8_e4m3fn: ml_dtypes.float8_e4m3fn, torch.float8_e5m2: ml_dtypes.float8_e5m2,
}  # fmt: skip


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.ckpt"


def content(tensor) -> bytes:
    return bytes(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())


def same(array, tensor):
    assert array.dtype == DTYPES[tensor.dtype]
    assert array.shape == tuple(tensor.shape)
    assert array.tobytes() == content(tensor)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype(file, dtype, protocol):
    tensor = (torch.arange(24).reshape(2, 3, 4) % 2).to(dtype)
    torch.save({"a": tensor}, file, pickle_protocol=protocol)
    same(read_tensors(file)["a"], tensor)


def test_views_scalars_and_empty_tensors(file):
    base = torch.randn(6, 8)
    tensors = {
        "base": base, "transposed": base.T, "row": base[2], "steps": base[::2, 1::3],
        "scalar": torch.tensor(3.5), "element": base[3, 3], "empty": torch.zeros(0, 5),
        "parameter": torch.nn.Parameter(torch.randn(3)), "channels": base.reshape(1, 2, 3, 8)
        .to(memory_format=torch.channels_last), "expanded": torch.randn(6, 1).expand(6, 1),
    }  # fmt: skip
    torch.save(tensors, file)
    read = read_tensors(file)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        same(read[name], tensor)
    assert np.shares_memory(read["base"], read["transposed"])


def test_lazy_views_and_sparse_tensors_are_refused(file):
    torch.save({"a": torch.ones(2, dtype=torch.complex64).conj()}, file)
    with pytest.raises(FileFormatError, match="resolve_conj"):
        read_torch(file)
    torch.save({"a": torch.eye(2).to_sparse()}, file)
    with pytest.raises(FileFormatError, match="torch._utils._rebuild_sparse_tensor"):
        read_torch(file)
    torch.save({"a": torch.ones(1).expand(1000)}, file)
    with pytest.raises(FileFormatError, match="clone"):
        read_torch(file)


def test_whole_modules_are_refused(file):
    torch.save(torch.nn.Linear(2, 2), file)
    with pytest.raises(FileFormatError, match="asks for 'torch.nn.modules.linear.Linear'"):
        read_torch(file)


def save_old(value, file):
    torch.save(value, file, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_of_the_old_format(file, dtype):
    tensor = (torch.arange(24).reshape(2, 3, 4) % 2).to(dtype)
    save_old({"a": tensor}, file)
    same(read_tensors(file)["a"], tensor)


def test_views_and_shared_storages_of_the_old_format(file):
    base = torch.randn(6, 8)
    tensors = {
        "base": base, "transposed": base.T, "row": base[2], "steps": base[::2, 1::3],
        "scalar": torch.tensor(3.5), "empty": torch.zeros(0, 5), "other": torch.arange(5),
        "parameter": torch.nn.Parameter(torch.randn(3)),
    }  # fmt: skip
    save_old(OrderedDict(tensors), file)
    read = read_tensors(file)
    assert list(read) == list(tensors)
    for name, tensor in tensors.items():
        same(read[name], tensor)
    assert np.shares_memory(read["base"], read["transposed"])


def test_training_checkpoint_of_the_old_format(file):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8))
    optimizer = torch.optim.SGD(network.parameters(), momentum=0.9)
    state = network.state_dict()
    save_old({"state_dict": state, "optimizer": optimizer.state_dict(), "epoch": 3}, file)
    read = read_tensors(file)
    assert list(read) == list(state)
    for name, tensor in state.items():
        same(read[name], tensor)
    save_old(network, file)
    with pytest.raises(FileFormatError, match=r"torch.nn.modules.*Sequential|a storage is not"):
        read_torch(file)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_scripts_are_refused(file):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), file)
    with pytest.raises(FileFormatError, match="TorchScript|without the one data.pkl"):
        read_tensors(file)


def test_training_checkpoint(file):
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Linear(8, 2)
    )
    network[2].weight = torch.nn.Parameter(torch.randn(2, 8).T.contiguous().T)
    optimizer = torch.optim.AdamW(network.parameters())
    sum(parameter.sum() for parameter in network.parameters()).backward()
    optimizer.step()
    state = network.state_dict()
    saved = {
        "epoch": 1,
        "state_dict": state,
        "optimizer_states": [optimizer.state_dict()],
        "callbacks": {"x": {"best": np.float64(0.5), "score": torch.tensor(1.0)}},
        "hyper_parameters": OrderedDict(device=torch.device("cpu"), shape=torch.Size([2])),
    }
    torch.save(saved, file)
    read = read_tensors(file)
    assert list(read) == list(state)
    for name, tensor in state.items():
        same(read[name], tensor)
    everything = read_torch(file)
    assert isinstance(everything["callbacks"]["x"]["best"], Placeholder)
    moments = everything["optimizer_states"][0]["state"][0]["exp_avg"]
    same(moments, optimizer.state_dict()["state"][0]["exp_avg"])

    torch.save(state, file)
    assert list(read_tensors(file)) == list(state)


def test_larger_file_takes_no_memory(file):
    import tracemalloc

    tensors = {f"w{i}": torch.randn(1024, 1024) for i in range(16)}
    torch.save(tensors, file)
    tracemalloc.start()
    read = read_tensors(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20
    for name, tensor in tensors.items():
        same(read[name], tensor)


def test_safetensors_both_ways(file):
    tensors = {
        str(dtype): (torch.arange(6).reshape(2, 3) % 2).to(dtype)
        for dtype in DTYPES
        if dtype is not torch.complex128
    }
    safetensors.torch.save_file(tensors, file, {"format": "pt"})
    read, metadata = read_safetensors(file)
    assert metadata == {"format": "pt"}
    for name, tensor in tensors.items():
        same(read[name], tensor)
    written = file.with_suffix(".safetensors")
    write_safetensors(written, read, metadata)
    for name, tensor in safetensors.torch.load_file(written).items():
        assert tensor.dtype == tensors[name].dtype
        assert content(tensor) == content(tensors[name])
