"""Importing this makes torchvision's Python importable beside a PyTorch that its compiled part was
not built for. Peers import it for its networks' classes; of the compiled part they call nothing."""

import torch

_DECLARED = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    if not hasattr(torch.ops.torchvision, _name):
        _DECLARED.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
