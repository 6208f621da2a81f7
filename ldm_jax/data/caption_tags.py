"""Captions made of tags, shuffled and thinned out for training."""

from ldm_jax import config as cfg
from ldm_jax.data.random_stream import RandomStream


def changed_tags(caption: str, how: cfg.CaptionTags, stream: RandomStream) -> str:
    """A caption of tags between commas with those that may move in random order and some left
    out, as `how` says; empty tags vanish, and commas are followed by one space."""
    before, mark, after = caption.partition(how.keep_before) if how.keep_before else ("", "", "")
    if mark:
        kept, free = _tags(before), _tags(after)
    else:
        tags = _tags(caption)
        kept, free = tags[: how.keep_first], tags[how.keep_first :]
    # Each tag has a draw of its own, whatever became of the others.
    free = [tag for tag in free if stream.uniform() >= how.dropout]
    if how.shuffle:
        free = [free[place] for place in stream.order(len(free))]
    return ", ".join(kept + free)


def _tags(text: str) -> list[str]:
    return [tag for part in text.split(",") if (tag := part.strip())]
