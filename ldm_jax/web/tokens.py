"""Prompts against the tokenizer of a model in memory: how many tokens they have, what is cut off
them, and what is refused. JAX is not asked, so any thread may."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ldm_jax.config import ConfigError, TextConditioner, find
from ldm_jax.config.request import Request
from ldm_jax.core.reading import shown
from ldm_jax.data import prompts
from ldm_jax.data.adapter_tags import cut_tags
from ldm_jax.web import refused
from ldm_jax.web.form import token_limit
from ldm_jax.web.limits import MAX_TEXT
from ldm_jax.web.refused import Refused

if TYPE_CHECKING:
    from ldm_jax.generation.library import Model
    from ldm_jax.generation.pipeline import Pipeline


def count_tokens(model: "Model", text: str) -> dict[str, Any]:
    """Tokens of `text`, how many a caption or chunk has room for, how many chunks it fills, and
    the words that the model does not know.

    Raises Refused (422): a model without captions, too long a text, or syntax without a meaning.
    """
    pipeline = model.pipeline
    conditioner = find(pipeline.config.conditioners, TextConditioner)
    if conditioner is None or pipeline.tokenizer is None:
        raise Refused(422, ("model", "this model takes no prompts"))
    if len(text) > MAX_TEXT:
        raise Refused(422, ("text", f"text has more than {MAX_TEXT} characters"))
    text = _without_tags(model, [text])[0]
    tokenizer, limit = pipeline.tokenizer, token_limit(conditioner)
    if conditioner.chunked:
        try:
            emphasis = not pipeline.choice.literal_prompts
            chunks = prompts.chunks_of(tokenizer, text, limit, emphasis, pipeline.words)
        except prompts.PromptError as error:
            raise refused.of_error(error) from error
        count = sum(map(len, chunks))
        return {"count": count, "limit": limit, "chunks": len(chunks), "unknown": []}
    (count,) = _lengths(pipeline, [text])
    unknown = [word for one in tokenizer.unknown([text]) for word, _ in one.words]
    return {"count": count, "limit": limit, "chunks": 1, "unknown": unknown}


def _without_tags(model: "Model", texts: Sequence[str]) -> list[str]:
    """Prompts without the adapters that they name; raises Refused (422) for tags that cannot be."""
    choice = model.pipeline.choice
    if choice.literal_prompts or choice.lora_dir is choice.hypernetwork_dir is None:
        return [*texts]
    try:
        return [cut_tags(text)[0] for text in texts]
    except ConfigError as error:
        raise Refused(422, ("prompt", str(error))) from error


def cut_prompts(model: "Model", request: Request) -> list[str]:
    """A sentence for each prompt of `request` whose end the model does not read."""
    pipeline = model.pipeline
    conditioner = find(pipeline.config.conditioners, TextConditioner)
    if conditioner is None or pipeline.tokenizer is None:
        return []
    if conditioner.chunked:
        return []  # which reads on in further chunks
    texts = [*_without_tags(model, request.prompt), request.negative_prompt or ""]
    limit = token_limit(conditioner)
    found = zip(texts, _lengths(pipeline, texts), strict=True)
    return [
        f"the prompt {shown(text)} has {length} tokens; the model reads the first {limit}, "
        "and the rest is cut off" for text, length in found if length > limit
    ]  # fmt: skip


def _lengths(pipeline: "Pipeline", texts: Sequence[str]) -> list[int]:
    """How many tokens each text has, those of embeddings' vectors included."""
    replaced = list if pipeline.words is None else pipeline.words.replaced
    return [len(replaced(one.ids)) for one in pipeline.tokenizer.encodings(texts)]


def check_conditions(model: "Model", request: Request) -> None:
    """Raises Refused (422), naming the field, for prompts or classes that the model cannot take."""
    from ldm_jax.generation.conditions import encode_conditions

    pipeline = model.pipeline
    texts = _without_tags(model, request.prompt) or request.conditions
    try:
        encode_conditions(
            pipeline.config.conditioners, pipeline.tokenizer, texts,
            request.negative_prompt, not pipeline.choice.literal_prompts,
            request.unknown_words == "skip", pipeline.words,
        )  # fmt: skip
    except ValueError as error:
        raise refused.of_error(error) from error
