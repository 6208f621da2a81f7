"""A file of taming-transformers, read here, beside the same equations in PyTorch."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_codes
import torch
from torch.nn import functional as F

from ldm_jax import code_model
from ldm_jax.convert.code_models import load_code_model
from ldm_jax.models.build import build_code_transformer


def logits_of(tensors, tokens, heads, n_unmasked=0):
    """Radford 2019's pre-norm transformer, from the tensors of a file."""

    def linear(name, x):
        bias = tensors.get(f"transformer.{name}.bias")
        return F.linear(x, tensors[f"transformer.{name}.weight"], bias)

    def norm(name, x):
        weight, bias = (tensors[f"transformer.{name}.{part}"] for part in ("weight", "bias"))
        return F.layer_norm(x, x.shape[-1:], weight, bias, 1e-5)

    length = tokens.shape[1]
    seen = torch.ones(length, length, dtype=torch.bool).tril()
    seen[:n_unmasked, :n_unmasked] = True
    x = F.embedding(tokens, tensors["transformer.tok_emb.weight"])
    x = x + tensors["transformer.pos_emb"][:, :length]
    layers = len({name.split(".")[2] for name in tensors if ".blocks." in f".{name}"})
    for i in range(layers):
        y = norm(f"blocks.{i}.ln1", x)
        q, k, v = (
            linear(f"blocks.{i}.attn.{part}", y).unflatten(-1, (heads, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        scores = scores.masked_fill(~seen, -math.inf)
        y = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + linear(f"blocks.{i}.attn.proj", y)
        y = linear(f"blocks.{i}.mlp.0", norm(f"blocks.{i}.ln2", x))
        x = x + linear(f"blocks.{i}.mlp.2", F.gelu(y))
    return linear("head", norm("ln_f", x))


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The model as it is read from a `.ckpt`, and its tensors in PyTorch."""
    config = tiny_codes.config(num_heads=4)
    tensors = tiny_codes.taming_tensors(config, *tiny_codes.params_of(config))
    tensors = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
    path = tmp_path_factory.mktemp("taming") / "last.ckpt"
    torch.save({"state_dict": tensors, "global_step": 7}, path)
    model = load_code_model(path, heads=4, num_classes=5)
    assert model.config == config
    return model, tensors


def test_logits_and_the_greedy_continuation_are_those_of_pytorch(both):
    model, tensors = both
    bundle = code_model.build(model.config)
    codes = np.random.default_rng(0).integers(0, 12, (2, 16), np.int32)
    labels = jnp.asarray([4, 1], jnp.int32)
    prefix = bundle.prefix({}, {"label": labels}, 2)
    found = bundle.logits(model.params, prefix, jnp.asarray(codes))
    tokens = torch.from_numpy(np.concatenate([np.asarray(prefix), codes], 1)).long()
    with torch.no_grad():
        expected = logits_of(tensors, tokens[:, :-1], heads=4)
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
        sequence = tokens[:, :1]
        for _ in range(16):
            following = logits_of(tensors, sequence, heads=4)[:, -1:].argmax(-1)
            sequence = torch.cat([sequence, following], 1)
    choice, numbers = tiny_codes.choice(model.config, top_k=1), jnp.arange(2, dtype=jnp.uint32)
    drawn = jax.jit(bundle.draw)(model.params, prefix, jnp.uint32(0), numbers, choice)
    np.testing.assert_array_equal(drawn.reshape(2, -1), sequence[:, 1:].numpy())


def test_codes_of_the_condition_may_see_each_other(both):
    _, tensors = both
    config = tiny_codes.config(num_heads=4).transformer
    module = build_code_transformer(dataclasses.replace(config, n_unmasked=5))
    tokens = np.random.default_rng(1).integers(0, 12, (2, 16), np.int32)
    found = module.apply({"params": both[0].params["transformer"]}, jnp.asarray(tokens))
    with torch.no_grad():
        expected = logits_of(tensors, torch.from_numpy(tokens).long(), 4, n_unmasked=5)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
