"""Before any test imports a peer that imports torchvision."""

import torchvision_python  # noqa: F401
