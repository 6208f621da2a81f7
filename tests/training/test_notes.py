"""What a run says at its beginning of its parameters, its memory and its captions."""

from types import SimpleNamespace

import numpy as np
import pytest

from ldm_jax import config as cfg
from ldm_jax.core.command import REFUSED
from ldm_jax.data.tokenizer import train_tokenizer
from ldm_jax.training import step_memory
from ldm_jax.training.caption_note import caption_note
from ldm_jax.training.parameter_counts import parameters_note
from ldm_jax.training.state import TrainState


def weights(count):
    return {"kernel": np.zeros(count, np.float32)}


def test_parameters_are_counted_by_part():
    params = {"unet": weights(11_900_000), "conditioners": {"text_encoder": weights(400_000)}}
    state = TrainState(0, params, {}, ())
    frozen = {"autoencoder": weights(2_100_000), "latent_scale": np.float32(1), "untrained": {}}
    assert parameters_note(state, frozen) == (
        "training 12.3 M parameters (unet 11.9 M, text_encoder 400 k); frozen: 2.1 M parameters "
        "(first stage)"
    )
    alone = {"untrained": {"unet": weights(99), "conditioners": {"text_encoder": weights(1000)}}}
    told = parameters_note(TrainState(0, {"unet": weights(860_000_000)}, {}, ()), alone)
    assert told == (
        "training 860 M parameters (unet); frozen: 1.1 k parameters (text_encoder 1 k, unet 99)"
    )


GB = 10**9


def program(arguments, rest):
    found = SimpleNamespace(
        argument_size_in_bytes=arguments, output_size_in_bytes=arguments,
        alias_size_in_bytes=arguments, temp_size_in_bytes=rest,
    )  # fmt: skip
    return SimpleNamespace(memory_analysis=lambda: found)


def device(platform, limit):
    stats = None if limit is None else {"bytes_limit": limit}
    return SimpleNamespace(platform=platform, memory_stats=lambda: stats)


def test_a_step_that_does_not_fit_a_device_is_refused():
    gpus = [device("gpu", 16 * GB), device("gpu", 16 * GB)]
    told = step_memory.memory_note(program(GB, GB // 4), gpus)
    assert told == "a step takes 1.25 GB of the 16 GB of each device"
    wanted = r"takes 21 GB on each device, which has 16 GB; make data\.batch_size .*accumulation"
    with pytest.raises(step_memory.TooLarge, match=wanted) as raised:
        step_memory.memory_note(program(GB, 20 * GB), gpus)
    assert raised.value.status == REFUSED


def test_a_step_that_is_large_for_this_machine_is_only_warned_of(monkeypatch):
    cpu = [device("cpu", None)]
    monkeypatch.setattr(step_memory, "free_memory", lambda: 8 * GB)
    told = step_memory.memory_note(program(GB, 2 * GB), cpu)
    assert told == "a step takes about 3 GB of the 9 GB of memory that are free"
    told = step_memory.memory_note(program(GB, 20 * GB), cpu)
    assert told.startswith("a step takes about 21 GB, but only 9 GB of memory are free: it may")
    assert "loop.dtype=bfloat16" in told
    monkeypatch.setattr(step_memory, "free_memory", lambda: None)
    assert step_memory.memory_note(program(GB, GB), cpu) == "a step takes about 2 GB"
    assert step_memory.memory_note(SimpleNamespace(memory_analysis=lambda: None), cpu) == ""


def test_captions_that_are_cut_and_words_that_are_unknown_are_counted():
    train = ["a red cat", "a cat", "a red cat and a dog"]
    tokenizer = train_tokenizer(train, 64)
    text = cfg.TextConditioner(cfg.TextTransformer(max_length=4))
    assert caption_note(text, tokenizer, train, ["a blue cat", "a"]) == (
        "captions: 1 of 3 lose their end: they are longer than 4 tokens (max_length of the text "
        "encoder); 25 % of the words of the held-out ones are unknown to the tokenizer"
    )
    assert caption_note(text, tokenizer, train, None, 3).startswith("captions: ")
    assert caption_note(text, tokenizer, train, None, 3000).startswith("captions (3 of 3,000): ")
    text = cfg.TextConditioner(cfg.TextTransformer(max_length=6))
    assert caption_note(text, tokenizer, train, None) == (
        "captions: none is longer than 6 tokens; the tokenizer knows every word of the training "
        "ones"
    )
