"""Asks what a model that was trained on `python -m ldm_jax.data.clipart` has learnt:
`python -m benchmarks.own_pictures --model=runs/text2img --pictures=pictures
--out=own_pictures`.

A drawing is read by the nearest real picture, by the mean squared difference of pixels. Of captions
that training showed it should be the picture with that caption. Of captions that it never showed,
playing cards and arrows, it should be the held-out picture, or at least one with the same words in
places; sets without such captions are measured by the rest. Variety is the mean distance between
drawings of one caption that several training pictures have, against the mean distance between
those. OUT/report.json has the numbers, OUT/held_out.png drawings under the real pictures."""

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import tyro
from jaxtyping import UInt8

import ldm_jax
from ldm_jax import config as cfg
from ldm_jax.core.files import write_atomically
from ldm_jax.core.reading import read_text
from ldm_jax.data.loader import in_order
from ldm_jax.data.sources import open_source
from ldm_jax.images.grid import grid, save_png


@dataclass(frozen=True)
class Arguments:
    model: Path
    pictures: Path
    """The folder of pictures that the model was trained on."""
    out: Path
    captions: int = 64
    """Training captions that are drawn."""
    num: int = 4
    """Drawings of each held-out caption."""
    varied: int = 16
    """Drawings of each caption that several training pictures have."""
    steps: int = 25
    guidance: float = 2.0
    seed: int = 0


@dataclass(frozen=True)
class Pictures:
    """Real pictures of one split as the model is shown them."""

    captions: tuple[str, ...]
    arrays: UInt8[np.ndarray, "n h w 3"]

    @classmethod
    def of(cls, data: cfg.Data, split: str) -> "Pictures":
        source = open_source(data, split)
        examples = list(in_order(source, data, range(len(source))))
        arrays = np.stack([example["image"] for example in examples])
        return cls(tuple(example["caption"] for example in examples), arrays)

    def those(self, pattern: str) -> "Pictures":
        """Those whose caption matches."""
        kept = [i for i, caption in enumerate(self.captions) if re.fullmatch(pattern, caption)]
        return Pictures(tuple(self.captions[i] for i in kept), self.arrays[kept])

    def nearest(self, drawn: UInt8[np.ndarray, "h w 3"]) -> str:
        """The caption of the picture that looks most like a drawing."""
        return self.captions[int(np.argmin([distance(drawn, real) for real in self.arrays]))]


def distance(one: UInt8[np.ndarray, "h w 3"], other: UInt8[np.ndarray, "h w 3"]) -> float:
    """Root of the mean squared difference of pixels, which are 0 to 1."""
    return float(np.sqrt(np.mean((one / 255.0 - other / 255.0) ** 2)))


def variety(pictures: Sequence[UInt8[np.ndarray, "h w 3"]]) -> float:
    """Mean distance between all pairs."""
    return float(np.mean([distance(a, b) for a, b in combinations(pictures, 2)]))


CARD = r"(\w+) playing card, (\w+) of (\w+)"
ARROW = r"([\w ]+) arrow pointing (\w+)"


def held_out(
    draw: object, train: Pictures, validation: Pictures, pattern: str, num: int
) -> tuple[dict[str, object], list[UInt8[np.ndarray, "h w 3"]]]:
    """How many words of captions that training never showed, in the places of `pattern`, are
    right in the real picture, of all with such a caption, that looks most like a drawing; with the
    share that chance gives."""
    seen, asked = train.those(pattern), validation.those(pattern)
    real = Pictures(seen.captions + asked.captions, np.concatenate([seen.arrays, asked.arrays]))
    words = [re.fullmatch(pattern, caption).groups() for caption in real.captions]
    right, shown = [], []
    for caption, picture in zip(asked.captions, asked.arrays, strict=True):
        drawn = draw(caption, num)
        wanted = re.fullmatch(pattern, caption).groups()
        found = [re.fullmatch(pattern, real.nearest(one)).groups() for one in drawn]
        right += [[a == b for a, b in zip(wanted, one, strict=True)] for one in found]
        shown += [picture, drawn[0]]
    chance = [
        float(np.mean([np.mean([w[i] == words_of[i] for w in words]) for words_of in words]))
        for i in range(len(words[0]))
    ]
    return {
        "captions": len(asked.captions), "each_word_right": np.mean(right, axis=0).tolist(),
        "each_word_by_chance": chance, "all_words_right": float(np.mean(np.all(right, axis=1))),
        "all_words_by_chance": 1 / len(real.captions),
    }, shown  # fmt: skip


def main(arguments: Arguments) -> None:
    """Writes the report and prints it."""
    run = cfg.from_json(read_text(arguments.model / "config.json"))
    data = replace(run.data, source=cfg.ImageFolder(path=str(arguments.pictures)))
    train, validation = Pictures.of(data, "train"), Pictures.of(data, "validation")
    model = ldm_jax.open(arguments.model)

    def draw(caption: str, num: int) -> list[UInt8[np.ndarray, "h w 3"]]:
        drawn = model.draw(caption, num=num, seed=arguments.seed, steps=arguments.steps,
                           guidance_scale=arguments.guidance)  # fmt: skip
        return [sample.array for sample in drawn]

    arguments.out.mkdir(parents=True, exist_ok=True)
    count = defaultdict(int)
    for caption in train.captions:
        count[caption] += 1
    alone = sorted(caption for caption, n in count.items() if n == 1)
    chosen = np.random.default_rng(0).permutation(alone)[: arguments.captions]
    known = [train.nearest(draw(str(caption), 1)[0]) == caption for caption in chosen]
    report: dict[str, object] = {
        "training captions drawn as their own picture": float(np.mean(known)),
        "by chance": 1 / len(train.captions),
    }
    rows = []
    for name, pattern in (("cards", CARD), ("arrows", ARROW)):
        if not len(validation.those(pattern).captions):
            continue
        report[f"held-out {name}"], shown = held_out(draw, train, validation, pattern,
                                                     arguments.num)  # fmt: skip
        rows += shown
    if rows:
        save_png(arguments.out / "held_out.png", grid(np.stack(rows), columns=2))
    for caption in (c for c, n in count.items() if n >= 8):
        real = train.those(re.escape(caption)).arrays
        report[f"variety of {caption!r}"] = {
            "drawings": variety(draw(caption, arguments.varied)), "training": variety(real)
        }  # fmt: skip
    text = json.dumps(vars(arguments) | report, indent=1, default=str) + "\n"
    write_atomically(arguments.out / "report.json", text.encode())
    print(text)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
