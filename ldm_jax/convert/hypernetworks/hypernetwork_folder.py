"""A folder of hypernetworks, which prompts name."""

from ldm_jax.convert.named_folder import NamedFolder


class HypernetworkFolder(NamedFolder):
    """The hypernetworks below a folder, by the names of their files."""

    setting, tag, option = "hypernetwork_dir", "hypernet", "hypernetwork"
    what = "hypernetwork"
    ends = (".pt",)
