"""What a folder names beside its images: boxes, class maps, pictures to edit, depth maps."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldm_jax import config as cfg
from ldm_jax.core.reading import printable
from ldm_jax.data.annotations import NO_OBJECTS, BoxAnnotations, read_boxes, read_coco
from ldm_jax.data.class_maps import find_class_maps
from ldm_jax.data.depth_maps import find_depth_maps
from ldm_jax.data.edit_pairs import find_edit_images
from ldm_jax.data.sources import DataError


@dataclass(frozen=True)
class Companions:
    """Of the images that a source has, each by its path below the folder."""

    folder: cfg.ImageFolder
    names: tuple[str, ...]
    annotations: BoxAnnotations | None
    class_maps: dict[str, Path]
    edit_images: dict[str, Path]
    depth_maps: dict[str, Path]

    @classmethod
    def find(cls, folder: cfg.ImageFolder, names: Sequence[str]) -> "Companions":
        """What `folder` names of the images `names`; of boxes alone an image may have none.

        Raises:
            DataError, FileFormatError: images without a file, or files that are malformed.
        """
        where = folder.class_maps, folder.edit_images, folder.depth_maps
        finders = find_class_maps, find_edit_images, find_depth_maps
        files = (find(at, names) if at else {} for find, at in zip(finders, where, strict=True))
        return cls(folder, tuple(names), _read_objects(folder), *files)

    @property
    def beside(self) -> frozenset[str]:
        """As that of a `Source`."""
        there = {"edit_image": self.edit_images, "depth": self.depth_maps}
        return frozenset(name for name, files in there.items() if files)

    def of(self, name: str) -> dict[str, Any]:
        """The part of an example that is not read from pictures."""
        found: dict[str, Any] = {}
        if self.annotations is not None:
            objects = self.annotations.objects.get(name, NO_OBJECTS)
            found |= {"boxes": objects.boxes, "classes": objects.classes, "flags": objects.flags}
        if name in self.class_maps:
            found["class_map"] = self.class_maps[name]
        if name in self.depth_maps:
            found["depth"] = self.depth_maps[name]
        return found

    def told(self) -> str:
        """What there is, as the end of a line for the user."""
        text = ""
        if self.annotations is not None:
            without = sum(name not in self.annotations.objects for name in self.names)
            rest = f" (none for {without} of {len(self.names)} images)"
            text += f", boxes{rest * bool(without)}"
        if self.class_maps:
            text += f", class maps in {printable(self.folder.class_maps)}"
        if self.edit_images:
            text += f", pictures to edit from {printable(self.folder.edit_images)}"
        if self.depth_maps:
            text += f", depth maps in {printable(self.folder.depth_maps)}"
        return text

    def identity(self) -> str:
        """What a run that is continued must find again, for digests."""
        text = ""
        if self.annotations is not None:
            objects = [self.annotations.objects.get(name, NO_OBJECTS) for name in self.names]
            text += json.dumps([self.annotations.class_names, *(one.listed() for one in objects)])
        if self.class_maps:
            text += ", class maps"
        if self.edit_images:
            text += json.dumps([self.edit_images[name].name for name in self.names])
        if self.depth_maps:
            text += ", depth maps"
        return text


def _read_objects(folder: cfg.ImageFolder) -> BoxAnnotations | None:
    """The boxes of a folder's images; None where its settings name none."""
    if not folder.boxes:
        return None
    if folder.boxes.lower().endswith(".jsonl"):
        return read_boxes(folder.boxes, folder.box_classes)
    found = read_coco(folder.boxes)
    if folder.box_classes not in ((), found.class_names):
        raise DataError(
            f"data.source.box_classes is given, but {folder.boxes} names its classes itself: "
            f"{', '.join(found.class_names[:20])}; leave it out"
        )
    return found
