"""Tensor files of torch (.ckpt, .pt, .pth, .bin; a zip with a pickle) read into numpy, without
torch and without running what the pickle asks for."""

import mmap
import struct
import zipfile
from pathlib import Path
from typing import Any

from ldm_jax.core.reading import FileFormatError, map_file, shown
from ldm_jax.formats import pickles, torch_old_file
from ldm_jax.formats.pickles import ADVICE
from ldm_jax.formats.torch_tensors import Tensors

MAGIC = b"PK\x03\x04"
MAX_DIRECTORY = 4 * 2**20
"""Bytes of a zip's list of contents, or of what may follow it: some 40,000 storages."""


def read_torch(path: Path) -> Any:
    """What `torch.save` wrote, with arrays in the places of tensors and of parameters.

    Arrays are read-only views of the mapped file, with the strides that they were saved with.
    Ordered dicts become dicts. Classes and objects of Lightning and OmegaConf, and the few of
    numpy and Python that stand beside the weights in training checkpoints (numbers, sets, paths),
    become a `Placeholder` that keeps nothing but the name. A ParameterDict becomes a `Record` of
    its attributes. Whatever else is named is refused.

    The file must stay unchanged while its arrays are in use.

    Raises:
        FileFormatError: the file is missing, not such a file, damaged, lying about sizes, or asks
            for something that is not allowed, which is named.
    """
    data = map_file(path)
    if torch_old_file.is_old_format(data[:512]):
        return torch_old_file.read(path, data)
    if data[:4] != MAGIC:
        raise FileFormatError(path, what_else(data[:512]))
    records = _records(path, data)
    roots = [name.removesuffix("/data.pkl") for name in records if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise FileFormatError(
            path, "is a zip without the one data.pkl that torch.save writes; save it with torch"
        )
    root = roots[0]
    if f"{root}/constants.pkl" in records:
        raise FileFormatError(path, f"is a TorchScript program, not a file of tensors; {ADVICE}")
    order = records.get(f"{root}/byteorder")
    if order is not None and data[order.start : min(order.stop, order.start + 8)] != b"little":
        raise FileFormatError(path, "its byteorder is not little; save it on another machine")
    pickle = records[f"{root}/data.pkl"]
    if pickle.stop - pickle.start > pickles.MAX_BYTES:
        raise FileFormatError(path, f"its pickle has more than {pickles.MAX_BYTES} bytes")
    storages = {
        name.removeprefix(f"{root}/data/"): record
        for name, record in records.items()
        if name.startswith(f"{root}/data/")
    }
    words = Tensors(path, data, storages).vocabulary()
    return pickles.unpickle(path, data[pickle.start : pickle.stop], words)


def what_else(start: bytes) -> str:
    """What a file is that begins so, where it is none of tensors, as the end of a sentence."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS in place of the weights; get them with git lfs pull"
    if text.startswith(b"<"):
        return (
            "is a page that was saved under this name, as sites answer who is not logged in; "
            "download the file itself"
        )
    if text.startswith((b"{", b"[")):
        return "is JSON, an index or a message that was saved under this name; get the file itself"
    return (
        "is neither a safetensors file nor one of torch.save; it may be truncated, or another kind "
        "of file under this name"
    )


class _BoundedReads:
    """A file in memory for `zipfile`, which would read a list of contents of any size."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = 0) -> int:
        start = (0, self.at, len(self.data))[whence]
        if start + offset < 0:
            raise OSError("a seek to before the start")
        self.at = start + offset
        return self.at

    def read(self, size: int = -1) -> bytes:
        end = len(self.data) if size < 0 else min(self.at + size, len(self.data))
        if end - self.at > MAX_DIRECTORY:
            raise zipfile.BadZipFile(f"its list of contents exceeds {MAX_DIRECTORY} bytes")
        read = self.data[self.at : end]
        self.at += len(read)
        return read


def _records(path: Path, data: mmap.mmap) -> dict[str, slice]:
    """Where in the file the bytes of each entry are: stored as they are, apart from each other."""
    try:
        with zipfile.ZipFile(_BoundedReads(data)) as archive:
            entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
            end = archive.start_dir
    # zipfile raises NotImplementedError for versions and ways of compression that it cannot read.
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, struct.error) as error:
        raise FileFormatError(
            path, f"is a damaged or truncated zip ({error}); copy or download it again"
        ) from error
    records: dict[str, slice] = {}
    free = 0
    for entry in entries:
        name = entry.orig_filename
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise FileFormatError(
                path,
                f"the entry {shown(name)} is compressed or encrypted, as in TorchScript programs "
                "and repacked files; save the tensors with torch.save",
            )
        # Its own header repeats the name and says how long name and padding are.
        header = data[entry.header_offset : entry.header_offset + 30]
        if len(header) < 30 or header[:4] != MAGIC or entry.header_offset < free:
            raise FileFormatError(path, f"the entry {shown(name)} is not where the zip says")
        start = entry.header_offset + 30 + sum(struct.unpack("<2H", header[26:30]))
        free = start + entry.file_size
        if entry.compress_size != entry.file_size or free > end:
            raise FileFormatError(path, f"the entry {shown(name)} lies about its size")
        if name in records:
            raise FileFormatError(path, f"has two entries {shown(name)}")
        records[name] = slice(start, free)
    return records
