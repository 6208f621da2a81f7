"""What a text encoder will not see of the captions, in a line for the user."""

from collections.abc import Iterable

from ldm_jax import config as cfg
from ldm_jax.data.tokenizer import Tokenizer, caption_statistics


def caption_note(
    text: cfg.TextConditioner,
    tokenizer: Tokenizer,
    training: Iterable[str],
    validation: Iterable[str] | None,
    examples: int | None = None,
) -> str:
    """How many training captions are cut, and what share of the words of held-out captions (of
    training captions where none are held out) the tokenizer does not know.

    Of more `examples` than there are captions in `training`, it says that these are some of them.
    """
    length = text.encoder.max_length
    found = caption_statistics(tokenizer, training, length)
    held_out = found
    if validation is not None:
        held_out = caption_statistics(tokenizer, validation, length)
    which = "training" if validation is None else "held-out"
    cut = f"none is longer than {length} tokens"
    if found.cut:
        cut = (
            f"{found.cut:,} of {found.captions:,} lose their end: they are longer than {length} "
            "tokens (max_length of the text encoder)"
        )
    unknown = f"the tokenizer knows every word of the {which} ones"
    if held_out.unknown:
        share = 100 * held_out.unknown / held_out.words
        unknown = f"{share:.2g} % of the words of the {which} ones are unknown to the tokenizer"
    some = examples is not None and found.captions < examples
    of = f"captions ({found.captions:,} of {examples:,})" if some else "captions"
    return f"{of}: {cut}; {unknown}"
