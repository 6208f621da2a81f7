"""A folder of adapters, which prompts name."""

from pathlib import Path

from ldm_jax.convert.adapters.adapter_files import PEFT_CONFIG, name_of, read_metadata
from ldm_jax.convert.named_folder import NamedFolder
from ldm_jax.core.reading import FileFormatError


class AdapterFolder(NamedFolder):
    """The adapters below a folder, by the names of their files, and else by what their trainers
    called them (`ss_output_name`)."""

    setting, tag, option, what = "lora_dir", "lora", "lora", "adapter"
    ends = (".safetensors", ".pt", ".bin", ".ckpt")

    def listed(self) -> list[Path]:
        """All files, and folders of PEFT's, in order."""
        folders = {path.parent for path in self.folder.rglob(PEFT_CONFIG)}
        files = {path for path in super().listed() if path.parent not in folders}
        return sorted(folders | files)

    def alias(self, path: Path) -> str | None:
        """What its trainer called it."""
        if path.suffix != ".safetensors" or path.is_dir():
            return None
        try:
            return name_of(path, read_metadata(path))
        except (FileFormatError, OSError):
            return None  # a damaged file is told of when it is named
