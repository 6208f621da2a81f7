"""DigitScenes: scanned handwritten digits composed into small coloured scenes that know their
caption, boxes and class map. Every scene is a pure function of (split, index)."""

import functools
import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Shaped, UInt8

VERSION = "1.0.0"
SIZES = (16, 32, 64)
SPLITS = ("train", "validation", "test")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# Every colour reaches 255 in one channel, so the largest channel of a pixel is its stroke's alpha.
COLOURS = {
    "red": (255, 48, 48),
    "green": (32, 255, 64),
    "blue": (32, 96, 255),
    "yellow": (255, 232, 32),
    "purple": (208, 40, 255),
    "white": (255, 255, 255),
}
COLOURED_DIGITS = tuple(f"{colour} {digit}" for colour in COLOURS for digit in DIGITS)
BACKGROUND = (8, 8, 12)
CANVAS = 16  # places are measured in pixels of the 16-pixel canvas
CELL = 8  # the side of a scan on that canvas
STROKE = 128  # alpha (of 255) from which a pixel belongs to a digit's class and box
_NAMES = tuple(COLOURS)
_HORIZONTAL = ("left of", "right of")
_RELATIONS = ("left of", "right of", "above", "below")
_TOP_FIRST = {"left of": True, "right of": False, "above": True, "below": False}


@dataclass(frozen=True)
class Place:
    """Where a digit lies: the top-left corner of its 8x8 cell on the 16-pixel canvas."""

    y: int
    x: int


@dataclass(frozen=True)
class Thing:
    """One digit as a caption names it: its value (0..9), its colour's name, its place."""

    digit: int
    colour: str
    place: Place


@dataclass(frozen=True)
class Description:
    """What a caption says: one to three things in order of mention, and the relation between each
    and the next."""

    things: tuple[Thing, ...]
    relations: tuple[str, ...]

    @property
    def caption(self) -> str:
        words = [f"a {t.colour} {DIGITS[t.digit]}" for t in self.things]
        if not self.relations:
            return f"{words[0]} alone"
        joined = words[0]
        for relation, phrase in zip(self.relations, words[1:], strict=True):
            joined += f" {relation} {phrase}"
        return joined


@dataclass(frozen=True)
class Scene:
    """A description with the scans (indices into `load_scans`) that draw it."""

    description: Description
    scans: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Scans:
    """The handwriting: alpha of each scan's strokes (0..255), its digit, and its split as an index
    into SPLITS."""

    alpha: UInt8[np.ndarray, "n 8 8"]
    digits: Int[np.ndarray, " n"]
    splits: Int[np.ndarray, " n"]

    def of(self, split: str) -> Int[np.ndarray, " k"]:
        """Indices of the scans of one split."""
        return np.flatnonzero(self.splits == _split_number(split))


class _Draws:
    """Whole numbers from Philox keyed by a text. Only the generator's raw words are used: NumPy
    fixes those for ever, which it doesn't promise for its distributions."""

    def __init__(self, *names: object):
        digest = hashlib.sha256("/".join(map(str, (VERSION, *names))).encode()).digest()
        self._philox = np.random.Philox(key=np.frombuffer(digest[:16], dtype="<u8"))
        self._words: list[int] = []

    def below(self, n: int) -> int:
        if not self._words:
            self._words = self._philox.random_raw(32).tolist()[::-1]
        return self._words.pop() % n

    def order(self, n: int) -> Int[np.ndarray, " n"]:
        return np.argsort(self._philox.random_raw(n), kind="stable")


def _split_number(split: str) -> int:
    if split not in SPLITS:
        raise ValueError(f"split {split!r} of DigitScenes does not exist; use one of {SPLITS}")
    return SPLITS.index(split)


@functools.cache
def load_scans() -> Scans:
    """scikit-learn's 1,797 scans (8x8, 17 grey levels; E. Alpaydin and C. Kaynak, Optical
    Recognition of Handwritten Digits, UCI 1998), each digit's split 70/10/20 % into train,
    validation and test by a fixed permutation. No scan is in two splits; the writers, whom the
    source does not name, may be.

    Raises ImportError, saying what to install, where scikit-learn is missing."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "DigitScenes is drawn with scikit-learn's scanned digits: pip install scikit-learn"
        ) from error
    source = load_digits()
    alpha = np.round(source.images * (255 / 16)).astype(np.uint8)
    digits = source.target.astype(np.int64)
    splits = np.empty_like(digits)
    for digit in range(10):
        members = np.flatnonzero(digits == digit)
        members = members[_Draws("scans", digit).order(len(members))]
        ends = [len(members) * 7 // 10, len(members) * 8 // 10]
        for number, part in enumerate(np.split(members, ends)):
            splits[part] = number
    for array in (alpha, digits, splits):
        array.setflags(write=False)
    return Scans(alpha, digits, splits)


@functools.cache
def _by_digit(split: str) -> tuple[tuple[int, ...], ...]:
    scans = load_scans()
    members = scans.of(split)
    return tuple(tuple(members[scans.digits[members] == d].tolist()) for d in range(10))


@functools.cache
def _strokes(size: int) -> UInt8[np.ndarray, "n cell cell"]:
    """Alpha of all scans at the cell size of a canvas: as scanned at 16, bicubic above."""
    if size not in SIZES:
        raise ValueError(f"size {size} of DigitScenes does not exist; use one of {SIZES}")
    alpha = load_scans().alpha
    if size == CANVAS:
        return alpha
    from PIL import Image

    cell = (CELL * size // CANVAS,) * 2
    resize = Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(a).resize(cell, resize)) for a in alpha])


@functools.cache
def _layout(relations: tuple[str, ...]) -> tuple[Place, ...] | None:
    """Places, in order of mention, for the relations between the things; None where the
    grammar has no such scene. In scenes of three the two side by side bind closer than the third,
    so there is one relation of each direction."""
    near, middle, far = 0, (CANVAS - CELL) // 2, CELL
    first = [near if _TOP_FIRST[r] else far for r in relations]
    match tuple(r in _HORIZONTAL for r in relations):
        case ():
            return (Place(middle, middle),)
        case (True,):
            return tuple(Place(middle, x) for x in (first[0], far - first[0]))
        case (False,):
            return tuple(Place(y, middle) for y in (first[0], far - first[0]))
        case (True, False):
            x, y = first
            return (Place(y, x), Place(y, far - x), Place(far - y, middle))
        case (False, True):
            y, x = first
            return (Place(y, middle), Place(far - y, x), Place(far - y, far - x))
    return None


def describe(things: list[tuple[str, int]], relations: tuple[str, ...]) -> Description:
    """The description of (colour, digit) pairs joined by relations; no relation means 'alone'.

    Raises ValueError where relations don't make a scene of DigitScenes."""
    found = _layout(relations) if len(relations) == len(things) - 1 else None
    if found is None:
        raise ValueError(
            f"relations {relations} between {len(things)} digits are not a scene of DigitScenes; "
            "allowed: none for one digit, any one for two, and for three one of 'left of'/'right "
            "of' together with one of 'above'/'below'"
        )
    named = zip(things, found, strict=True)
    return Description(tuple(Thing(digit, colour, p) for (colour, digit), p in named), relations)


def places(description: Description) -> tuple[Place, ...]:
    """The place of each thing, in order of mention."""
    return tuple(thing.place for thing in description.things)


def parse_caption(caption: str) -> Description:
    """Reads `a COLOUR DIGIT alone` or `a COLOUR DIGIT RELATION a COLOUR DIGIT [RELATION a COLOUR
    DIGIT]`, in lower case with single spaces. 'a red three left of a blue seven above a green one'
    has the first two side by side above the third.

    Raises ValueError naming the word that does not fit and the words that would."""
    words = caption.split(" ")
    at = 0

    def take(allowed: tuple[str, ...]) -> str:
        nonlocal at
        for option in allowed:
            length = option.count(" ") + 1
            if " ".join(words[at : at + length]) == option:
                at += length
                return option
        found = repr(words[at]) if at < len(words) else "its end"
        raise ValueError(
            f"caption {caption!r}: word {at + 1} is {found}, expected {' or '.join(allowed)}"
        )

    things: list[tuple[str, int]] = []
    relations: list[str] = []
    while True:
        take(("a",))
        things.append((take(_NAMES), DIGITS.index(take(DIGITS))))
        if at == len(words) and relations:
            break
        relation = take(_RELATIONS if relations else ("alone", *_RELATIONS))
        if relation == "alone":
            break
        relations.append(relation)
    if at < len(words):
        raise ValueError(f"caption {caption!r}: {words[at]!r} follows 'alone', which must end it")
    try:
        return describe(things, tuple(relations))
    except ValueError as error:
        raise ValueError(f"caption {caption!r}: {error}") from None


def coloured_classes(caption: str) -> Int[np.ndarray, " n"]:
    """The numbers in `COLOURED_DIGITS` of the digits that a caption names, in its order."""
    named = [f"{thing.colour} {DIGITS[thing.digit]}" for thing in parse_caption(caption).things]
    return np.array([COLOURED_DIGITS.index(name) for name in named], np.int64)


def _canonical(description: Description) -> str:
    """The same arrangement worded from top to bottom and left to right."""
    things = sorted(description.things, key=lambda t: (t.place.y, t.place.x))
    words = [f"a {t.colour} {DIGITS[t.digit]}" for t in things]
    for n in range(1, len(things)):
        beside = things[n].place.y == things[n - 1].place.y
        words[n] = f"{'left of' if beside else 'above'} {words[n]}"
    return " ".join(words)


def caption_split(description: Description) -> str:
    """The only split that shows this caption. Single digits: colour (digit+1) mod 6 is test,
    (digit+4) mod 6 validation. Otherwise SHA-256 of `_canonical` modulo 8 (0 test, 1
    validation), so that 'A left of B' and 'B right of A', one picture, are in one split."""
    if len(description.things) == 1:
        thing = description.things[0]
        part = (_NAMES.index(thing.colour) - thing.digit) % 6
        return {1: "test", 4: "validation"}.get(part, "train")
    part = hashlib.sha256(_canonical(description).encode()).digest()[-1] % 8
    return {0: "test", 1: "validation"}.get(part, "train")


def _draw_description(draws: _Draws, count: int, split: str) -> Description:
    while True:
        things = [(_NAMES[draws.below(6)], draws.below(10)) for _ in range(count)]
        if count == 1:
            relations: tuple[str, ...] = ()
        elif count == 2:
            relations = (_RELATIONS[draws.below(4)],)
        else:
            pair = (_RELATIONS[draws.below(2)], _RELATIONS[2 + draws.below(2)])
            relations = pair if draws.below(2) else pair[::-1]
        description = describe(things, relations)
        if caption_split(description) == split:
            return description


def draw_scene(split: str, index: int) -> Scene:
    """Scene `index` of a split, the same at every picture size. Of train's scenes 40/30/30 % have
    one, two and three digits; elsewhere the count goes 1, 2, 3, 1, ... with the index."""
    _split_number(split)
    draws = _Draws("scene", split, index)
    share = draws.below(10)
    count = (1 + (share >= 4) + (share >= 7)) if split == "train" else 1 + index % 3
    description = _draw_description(draws, count, split)
    pools = _by_digit(split)
    scans = tuple(pools[t.digit][draws.below(len(pools[t.digit]))] for t in description.things)
    return Scene(description, scans)


def render(scene: Scene, size: int = CANVAS) -> dict[str, Shaped[np.ndarray, "..."]]:
    """The picture of a scene and what is known of it.

    `image` uint8 [size, size, 3]; `class_map` uint8 [size, size], digit + 1 where a stroke covers
    at least half of the pixel, 0 elsewhere; `boxes` float32 [n, 4] (ymin, xmin, ymax, xmax as
    fractions of the side), tight around those pixels; `classes` int64 [n], the digits. Boxes and
    classes are in the caption's order."""
    strokes, scale = _strokes(size), size // CANVAS
    cell = CELL * scale
    background = np.array(BACKGROUND, np.uint16)
    image = np.tile(np.array(BACKGROUND, np.uint8), (size, size, 1))
    class_map = np.zeros((size, size), np.uint8)
    boxes = np.zeros((len(scene.scans), 4), np.float32)
    drawn = zip(scene.description.things, scene.scans, strict=True)
    for n, (thing, scan) in enumerate(drawn):
        y, x = thing.place.y * scale, thing.place.x * scale
        alpha = strokes[scan].astype(np.uint16)[:, :, None]
        colour = np.array(COLOURS[thing.colour], np.uint16)
        mixed = (background * (255 - alpha) + colour * alpha + 127) // 255
        image[y : y + cell, x : x + cell] = mixed.astype(np.uint8)
        covered: Bool[np.ndarray, "cell cell"] = strokes[scan] >= STROKE
        class_map[y : y + cell, x : x + cell] = covered * np.uint8(thing.digit + 1)
        rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
        box = (y + rows[0], x + columns[0], y + rows[-1] + 1, x + columns[-1] + 1)
        boxes[n] = np.array(box, np.float32) / size
    classes = np.array([t.digit for t in scene.description.things], np.int64)
    return {"image": image, "class_map": class_map, "boxes": boxes, "classes": classes}


def example(split: str, index: int, size: int = CANVAS) -> dict[str, object]:
    """Example `index` of a split: `render`'s arrays with `caption` (str), `label` (0..9, the digit
    that the caption names first), `count` (1..3 digits) and `index`."""
    scene = draw_scene(split, index)
    things = scene.description.things
    facts = {"caption": scene.description.caption, "label": things[0].digit}
    return {**render(scene, size), **facts, "count": len(things), "index": index}


def pictures(
    split: str, count: int, size: int = CANVAS
) -> tuple[UInt8[np.ndarray, "n h w 3"], list[str]]:
    """Images and captions of a split's first `count` examples."""
    found = [example(split, index, size) for index in range(count)]
    images = [e["image"] for e in found] or [np.zeros((size, size, 3), np.uint8)]
    return np.stack(images)[:count], [str(e["caption"]) for e in found]


def _walk_captions(count: int, split: str) -> Iterator[str]:
    """All captions of a split's scenes of one or two digits, in a fixed mixed order; then again."""
    phrases, relations = 60, (1, 4)[count - 1]
    kept = []
    for code in _Draws("prompts", split, count).order(phrases**count * relations).tolist():
        code, relation = divmod(code, relations)
        numbers = (code % phrases, code // phrases)[:count]
        things = [(_NAMES[n // 10], n % 10) for n in numbers]
        description = describe(things, (_RELATIONS[relation],) * (count - 1))
        if caption_split(description) == split:
            kept.append(description.caption)
            yield kept[-1]
    yield from itertools.cycle(kept)


def _draw_captions(split: str) -> Iterator[str]:
    """Captions of a split's scenes of three digits, all different; there are some 200,000."""
    draws, seen = _Draws("prompts", split, 3), set()
    while True:
        caption = _draw_description(draws, 3, split).caption
        if caption not in seen:
            seen.add(caption)
            yield caption


def held_out_prompts(count: int, split: str = "test") -> list[str]:
    """`count` captions that train never shows: one, two, three, one, ... digits, so a shorter list
    is the beginning of a longer one. Captions of two and three digits are all different while
    there are any left; of one digit there are ten, which come round again.

    Raises ValueError for the train split, whose captions are not held out, and for counts outside
    0..30000."""
    if split not in SPLITS[1:]:
        raise ValueError(f"prompts of split {split!r} are not held out; use one of {SPLITS[1:]}")
    if not 0 <= count <= 30_000:
        raise ValueError(f"count of held-out prompts is {count}; allowed are 0 to 30000")
    walks = [_walk_captions(1, split), _walk_captions(2, split), _draw_captions(split)]
    return [next(walks[i % 3]) for i in range(count)]
