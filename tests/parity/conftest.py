"""Before any test imports a peer that imports torchvision."""

from benchmarks import torchvision_python  # noqa: F401
