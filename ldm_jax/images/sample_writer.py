"""Drawn pictures as files in a folder, with a grid and a manifest of them."""

import contextlib
import fcntl
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ldm_jax.config.request import Request
from ldm_jax.core.files import check_writable, reason_of, write_atomically, writing
from ldm_jax.core.reading import (
    FileFormatError,
    open_file,
    read_bytes,
    read_json,
    shown,
)
from ldm_jax.core.signals import at_end, undisturbed
from ldm_jax.core.stores import Unreachable, is_stored
from ldm_jax.images.adapter_text import Hashes
from ldm_jax.images.grid import grid, save_png, save_webp
from ldm_jax.images.picture_files import read_picture
from ldm_jax.images.picture_text import picture_text

MANIFEST = "manifest.json"
GRID = "grid.png"
THUMBNAIL, LEAST_THUMBNAIL = 512, 32
"""Pixels of a picture's longer side in the grid, at most and at least."""
GRID_PIXELS = 2**24
"""Pixels of all thumbnails together, at most: a grid stays a file that programs open."""
SMALL_SIDE = 128
"""Pixels to which small pictures are enlarged in a grid, where there is room."""
UNCOUNTED = 1024
"""Pictures for which there is room in the grid, and on the disk for the manifest, where nobody
knows how many come."""
RESERVE = ".reserve"
"""A file that keeps room for the manifest while pictures are written, for a disk may fill. Whoever
draws holds its lock; without one it is left of a drawing that was killed."""
PARTS = ".parts_of_"
"""Begins the name of the hidden folder in which several processes keep what they have drawn."""
_DRAWN = re.compile(r"\d{4,}_\d{4,}(_\d+)?(_strip\.png|\.png|\.webp)")
_DRAFT = re.compile(rf"\.({_DRAWN.pattern}|{re.escape(GRID)}|{re.escape(MANIFEST)})\.\d+\.tmp")


class FolderError(ValueError):
    """A folder that pictures cannot be written into; the text says why and what to do."""


def check_folder(
    out: Path,
    overwrite: bool,
    inputs: Collection[tuple[str, Path]],
    own: Collection[str] = (),
    stored: bool = False,
) -> None:
    """Raises FolderError, NotWritable, FileFormatError unless pictures can be written into `out`.

    It must be new or empty, or be overwritten: then it must have the manifest of a former drawing,
    or nothing but files called as in `own`, which a command writes instead of pictures; and it must
    not hold one of `inputs`, files and folders with the options that name them. What
    processes keep there of a drawing that they share does not count. If it may be `stored`, it may
    lie in a store, where nothing is overwritten.
    """
    check_writable(out, f"--out={out}", stored)
    if not out.is_dir():
        return
    if is_stored(out):
        if any(not _left(p) and not p.name.startswith(PARTS) for p in out.iterdir()):
            raise FolderError(
                f"--out={out} is not empty, and nothing is overwritten in a store; choose another"
            )
        return
    for option, path in inputs:
        if path.resolve() == out.resolve() or path.resolve().parent == out.resolve():
            raise FolderError(
                f"--{option}={path} is in --out={out}, where pictures are overwritten; name "
                "another folder"
            )
    check_alone(out)
    names = {p.name for p in out.iterdir() if not _left(p) and not p.name.startswith(PARTS)}
    if names and not overwrite:
        raise FolderError(f"--out={out} is not empty; choose another, or --overwrite")
    _check_listed(out)
    if MANIFEST not in names and not names <= {*own}:
        raise FolderError(
            f"--out={out} has files but no {MANIFEST} of a former drawing, so that --overwrite "
            "would replace files of others; name another folder"
        )


def check_alone(out: Path) -> None:
    """Raises FolderError for a folder that another command is drawing into now."""
    with contextlib.suppress(FileFormatError), open_file(out / RESERVE) as file:
        _lock(file, out)


def _lock(reserve: BinaryIO, out: Path) -> None:
    try:
        fcntl.flock(reserve, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FolderError(
            f"--out={out} is being drawn into by another command; name another folder"
        ) from error
    except OSError:
        pass  # a file system without locks


def _left(path: Path) -> bool:
    """Whether it is a hidden file of a drawing that was killed."""
    return path.name == RESERVE or bool(_DRAFT.fullmatch(path.name))


def _check_listed(out: Path) -> list[Path]:
    """The files of a former drawing in `out`, as `_former`.

    Raises:
        FolderError: a killed drawing left pictures that no manifest lists, so that nobody knows
            whose they are, and they would stand between the new ones.
    """
    former = _former(out)
    if (out / RESERVE).exists():
        found = sorted(path for path in out.iterdir() if _DRAWN.fullmatch(path.name))
        if unlisted := [path for path in found if path not in former]:
            more = f" and {len(unlisted) - 1} more" if len(unlisted) > 1 else ""
            raise FolderError(
                f"--out={out} has pictures of a drawing that was killed, which no {MANIFEST} "
                f"lists: {unlisted[0].name}{more}; remove them, or name another folder"
            )
    return former


class SampleWriter:
    """Writes pictures into a folder as they are drawn, and last `manifest.json` and `grid.png`.

    That it can be written to is known before anything is drawn. The pictures of a former manifest
    in the folder are deleted with the first new one, and nothing else. A context manager: what was
    drawn before an error, an interruption or a full disk is listed too. A folder in a store gets
    everything at the end, and its manifest last.
    """

    def __init__(
        self,
        out: Path,
        request: Request,
        total: int | None,
        *,
        filled: Collection[str] = (),
        hashes: Sequence[Hashes] = (),
        origin: Mapping[str, Any],
        versions: Mapping[str, str],
    ) -> None:
        """For `total` pictures of the resolved `request`; None is as many as come, of requests
        that `turn_to` names.

        `filled` are the settings that have the usual values of model and sampler, `hashes` those
        of files as `turn_to` has them; `origin` and `versions` say what the model is and what runs
        it.

        Raises:
            FolderError, NotWritten: the folder cannot be written to.
        """
        self.out, self._versions = out, dict(versions)
        self._folder = Path(tempfile.mkdtemp(prefix="ldm_jax_")) if is_stored(out) else out
        """Where they are written."""
        self._about: dict[str, Any] = {"origin": dict(origin)}
        self.turn_to(request, filled, hashes)
        self._entries: dict[str, dict[str, Any]] = {}
        self._again: dict[str, int] = {}
        self._thumbnails: dict[str, UInt8[np.ndarray, "h w 3"]] = {}
        self._total, self._finished = total, False
        total = UNCOUNTED if total is None else total
        self._side = max(LEAST_THUMBNAIL, min(THUMBNAIL, math.isqrt(GRID_PIXELS // total)))
        self._shown = min(total, GRID_PIXELS // self._side**2)
        self._new = is_stored(out) or not out.exists()
        if not is_stored(out) and out.is_dir():
            check_alone(out)
            _check_listed(out)
        with writing(out):
            if is_stored(out):
                (out / RESERVE).write_bytes(b"")
            self._folder.mkdir(parents=True, exist_ok=True)
            for path in [*self._folder.iterdir()]:
                if _left(path):
                    path.unlink()
            self._reserve = (self._folder / RESERVE).open("xb")
        try:
            _lock(self._reserve, self._folder)
            with writing(self._folder):
                self._reserve.write(bytes(2**16 + 512 * total))
                self._reserve.flush()
                os.fsync(self._reserve.fileno())
        except BaseException:
            self._give_back()
            self._leave()
            raise

    @property
    def grid(self) -> Path:
        """The path of the grid."""
        return self.out / GRID

    def __enter__(self) -> "SampleWriter":
        self._at_end = at_end(self._interrupted)
        self._at_end.__enter__()
        return self

    def turn_to(
        self, request: Request, filled: Collection[str] = (), hashes: Sequence[Hashes] = ()
    ) -> None:
        """The next pictures are those of another resolved `request`, of which `filled` are usual
        values; `hashes` are as in `picture_text`, of each of its conditions."""
        self._request, self._hashes = request, hashes
        named = [name for name in request.to_dict() if name in filled]
        self._about = {"filled": named, "origin": self._about["origin"]}

    def write(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        place: int,
        number: int,
        previews: UInt8[np.ndarray, "k h w 3"] | None = None,
        video: bool = False,
    ) -> Path:
        """Picture `number` of the request's condition at `place`; returns its path.

        `previews`, what the picture was to become on the way, are written beside it as a strip,
        NAME_strip.png, and with `video` as an animated WebP, NAME.webp.
        """
        with undisturbed():
            return self._write(image, place, number, previews, video)

    def _write(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        place: int,
        number: int,
        previews: UInt8[np.ndarray, "k h w 3"] | None,
        video: bool,
    ) -> Path:
        self._clear()
        one = self._request.one(place, number)
        (condition,) = one.conditions
        stem = numbered = f"{one.first_prompt:04d}_{one.first_image:04d}"
        while f"{stem}.png" in self._entries:  # drawn again with other settings
            self._again[numbered] = self._again.get(numbered, 1) + 1
            stem = f"{numbered}_{self._again[numbered]}"
        name = f"{stem}.png"
        text = picture_text(one, self._about, self._hashes[place] if self._hashes else {})
        save_png(self._folder / name, image, text)
        digest = hashlib.sha256((self._folder / name).read_bytes()).hexdigest()
        entry = {
            "file": name, "condition": condition, "prompt": one.first_prompt,
            "image": one.first_image, "sha256": digest,
        }  # fmt: skip
        if self._total is None:
            entry["request"] = one.to_dict()
        self._entries[name] = entry
        if previews is not None:
            beside = [f"{stem}_strip.png", f"{stem}.webp"][: 1 + video]
            entry["beside"] = beside
            save_png(self._folder / beside[0], grid(previews, len(previews)), text)
            if video:
                save_webp(self._folder / beside[1], previews)
        self._show(name, image)
        return self.out / name

    def take(self, entry: Mapping[str, Any], folder: Path) -> None:
        """Copies a picture, with what is beside it, that another writer has written into `folder`;
        `entry` is what the manifest there has of it."""
        with undisturbed():
            self._clear()
            for name in (entry["file"], *entry.get("beside", ())):
                content = read_bytes(folder / Path(name).name)
                (self._folder / Path(name).name).write_bytes(content)
            name = Path(entry["file"]).name
            self._entries[name] = {**entry}
            self._show(name, read_picture(self._folder / name))

    def _clear(self) -> None:
        """Deletes a former drawing, before the first picture."""
        if not self._entries:
            for path in _former(self._folder):
                path.unlink(missing_ok=True)

    def _show(self, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Gives a picture a place in the grid, while there is one."""
        if len(self._thumbnails) < self._shown:
            small = _thumbnail(image, self._side)
            # A grid has pictures of one size.
            if all(small.shape == other.shape for other in self._thumbnails.values()):
                self._thumbnails[name] = small

    @property
    def count(self) -> int:
        """Pictures written so far."""
        return len(self._entries)

    def __exit__(self, *exception: object) -> None:
        try:
            self._finish()
        finally:
            self._at_end.__exit__(*exception)

    def _interrupted(self) -> str:
        """Finishes where a signal ends the command; says what there is."""
        self._finish()
        if not self._entries:
            return "nothing was drawn"
        of = "" if self._total is None else f" of {self._total}"
        count = self.count
        what = "picture" if count == 1 and not of else "pictures"
        return (
            f"{count}{of} {what} {'is' if count == 1 else 'are'} finished, in {self.out} and "
            f"listed in its {MANIFEST}"
        )

    def _finish(self) -> None:
        """Writes what lists the pictures, once."""
        with undisturbed():
            if self._finished:
                return
            self._give_back()
            if self._entries:
                self._write_manifest()
                save_png(self._folder / GRID, self._grid())
                self._publish()
            else:
                self._leave()
            self._finished = True

    def _give_back(self) -> None:
        """Frees the room that was kept for the manifest."""
        (self._folder / RESERVE).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # what it could not write it tries again
            self._reserve.close()

    def _publish(self) -> None:
        """Puts everything into the store where the folder is one in a store.

        Raises:
            Unreachable: it does not take it; names the folder of this machine that has it.
        """
        if not is_stored(self.out):
            return
        names = sorted(path.name for path in self._folder.iterdir())
        try:
            self.out.put_files(self._folder, [name for name in names if name != MANIFEST])
            self.out.put_files(self._folder, [MANIFEST])
            (self.out / RESERVE).unlink(missing_ok=True)
        except OSError as error:
            raise Unreachable(
                f"{reason_of(error)}. The pictures are finished, in {self._folder}"
            ) from error
        shutil.rmtree(self._folder, ignore_errors=True)

    def _leave(self) -> None:
        """Leaves no folder behind in which nothing was drawn."""
        if self._new and not any(self._folder.iterdir()):
            self._folder.rmdir()
        if is_stored(self.out):
            with contextlib.suppress(OSError):
                (self.out / RESERVE).unlink(missing_ok=True)

    def _in_order(self, names: Iterable[str]) -> list[str]:
        return sorted(names, key=lambda n: (self._entries[n]["prompt"], self._entries[n]["image"]))

    def _write_manifest(self) -> None:
        entries = [self._entries[name] for name in self._in_order(self._entries)]
        manifest = {"request": self._request.to_dict()} | self._about
        if self._total is not None:
            manifest["wanted"] = self._total  # more than there are images, if it was stopped
        manifest |= {"versions": self._versions, "images": entries}
        write_atomically(self._folder / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())

    def _grid(self) -> UInt8[np.ndarray, "h w 3"]:
        names = self._in_order(self._thumbnails)
        images = np.stack([self._thumbnails[name] for name in names])
        conditions = [self._entries[name]["condition"] for name in names]
        per_prompt = len({self._entries[name]["image"] for name in names})
        longer = max(images.shape[1:3])
        # As many columns as make it about square, but few pictures in a row, and those of one
        # prompt side by side where they have room.
        most = max(8, math.isqrt(len(names)))
        return grid(
            images, min(most, per_prompt if per_prompt > 1 else len(names)),
            labels=None if all(c is None for c in conditions) else [str(c) for c in conditions],
            scale=max(1, min(SMALL_SIDE, self._side) // longer),
        )  # fmt: skip


def _thumbnail(image: UInt8[np.ndarray, "h w 3"], side: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    """`image`, made smaller where its longer side has more than `side` pixels."""
    if max(image.shape[:2]) <= side:
        return image
    small = Image.fromarray(image)
    small.thumbnail((side, side), Image.Resampling.BOX)
    return np.asarray(small)


def _former(out: Path) -> list[Path]:
    """The files in `out` that a former manifest there lists, and the manifest itself."""
    manifest = out / MANIFEST
    if not os.path.lexists(manifest):
        return []
    try:
        listed = read_json(manifest)
        # Whatever a manifest says, only what lies beside it and was drawn is deleted.
        found = [path for one in listed["images"] for path in _drawn(out, one)]
        listed["request"], listed["versions"]  # noqa: B018 - others' manifests have none
    except FileFormatError as error:
        raise FolderError(
            f"{error}; --overwrite deletes what it lists, so remove it, or name another folder"
        ) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise FolderError(
            f"{manifest} is not the manifest of drawn pictures (it has no list {shown('images')} "
            "of files, no request or no versions), which --overwrite would replace; name another "
            "folder"
        ) from error
    return [*found, manifest]


def _drawn(out: Path, entry: Mapping[str, Any]) -> list[Path]:
    """The files of one picture of a manifest, if the picture is still the one that was drawn."""
    path = out / Path(entry["file"]).name
    try:
        same = hashlib.sha256(read_bytes(path)).hexdigest() == entry.get("sha256")
    except FileFormatError:
        return []
    strip, video = f"{path.stem}_strip.png", f"{path.stem}.webp"
    beside = [out / name for name in entry.get("beside", ()) if name in (strip, video)]
    return [path, *beside] if same else []
