"""Files of adapters: how their modules are spelled, PEFT's settings, and writing. What is refused,
and why, is in `test_adapter_corpus`."""

import json
import re

import jax
import ml_dtypes
import numpy as np
import pytest
from small_adapters import (
    BLOCK,
    CONVOLUTION,
    KEY,
    OUT,
    QUERY,
    TEXT,
    Maker,
    loras,
    mixed,
    names,
    shape_of,
)

from ldm_jax.adapters.adapter import Adapter
from ldm_jax.adapters.dora import DoRA
from ldm_jax.adapters.lokr import LoKr
from ldm_jax.adapters.lora import LoRA
from ldm_jax.convert.adapters.adapter_files import METADATA, read_adapter, tag_counts
from ldm_jax.convert.adapters.adapter_writer import write_adapter
from ldm_jax.convert.adapters.kohya_form import kohya_form
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.formats.safetensors_file import read_safetensors, tensors_digest, write_safetensors

ATTENTION = "lora_unet_" + BLOCK.replace("/", "_") + "_attn1_to_q"
TO_K = "lora_unet_" + BLOCK.replace("/", "_") + "_attn2_to_k"
CONV = "lora_unet_" + CONVOLUTION.replace("/", "_")
WORDS = "lora_te_" + TEXT.replace("/", "_")


def same(found: Adapter, expected: Adapter) -> None:
    assert found.components.keys() == expected.components.keys()
    for component, modules in expected.components.items():
        assert found.components[component].keys() == modules.keys()
        for path, kinds in modules.items():
            one = found.components[component][path]
            assert [type(kind) for kind in one] == [type(kind) for kind in kinds]
            equal = jax.tree.map(
                lambda a, b: np.array_equal(a, b) and a.dtype == b.dtype, one, kinds
            )
            assert jax.tree.all(equal), (component, path)


def kohya(adapter=None):
    return kohya_form(adapter or loras())[0]


def renamed(*rules, adapter=None):
    """The tensors of kohya's form under other keys."""
    tensors = {}
    for key, array in kohya(adapter).items():
        for pattern, new in rules:
            key = re.sub(pattern, new, key)
        tensors[key] = array
    return tensors


DOTS = [(f"^lora_unet_{path.replace('/', '_')}", "unet." + path.replace("/", "."))
        for path in (QUERY, KEY, OUT, CONVOLUTION)]  # fmt: skip
TEXT_DOTS = (f"^{WORDS}", "text_encoder." + TEXT.replace("/", "."))
AB = [(r"lora_down\.weight$", "lora_A.weight"), (r"lora_up\.weight$", "lora_B.weight")]
ORIGINAL = [
    ("^lora_unet_down_blocks_0_attentions_0", "lora_unet_input_blocks_1_1"),
    ("^lora_unet_down_blocks_0_resnets_0_conv1", "lora_unet_input_blocks_1_0_in_layers_2"),
]
LINEAR = [(r"\.lora_(down|up)\.weight$", r".lora_linear_layer.\1.weight"),
          (r"\.alpha$", ".lora_linear_layer.alpha")]  # fmt: skip
SPELLINGS = {
    "kohya": [],
    "kohya te1": [("^lora_te_", "lora_te1_")],
    "lycoris": [("^lora_unet_", "lycoris_"), ("^lora_te_", "lycoris_")],
    "original names": ORIGINAL,
    "diffusers": [*DOTS, TEXT_DOTS, *AB],
    "diffusers .lora.": [*DOTS, TEXT_DOTS, (r"\.lora_(down|up)\.weight$", r".lora.\1.weight"),
                         (r"\.alpha$", ".lora.alpha")],
    "diffusers linear layers": [*DOTS, TEXT_DOTS, *LINEAR],
    "without text_model": [("^lora_te_text_model_", "lora_te_")],
    "bare": [*((a, b.removeprefix("unet.")) for a, b in DOTS), TEXT_DOTS, *AB],
    "peft": [*((a, b.replace("unet.", "base_model.model.")) for a, b in DOTS), *AB,
             (TEXT_DOTS[0], TEXT_DOTS[1].replace("text_encoder.", "base_model.model."))],
    "the original's dots": [
        *ORIGINAL, ("^lora_unet_input_blocks_1_1_transformer_blocks_0_",
                    "diffusion_model.input_blocks.1.1.transformer_blocks.0."),
        (r"(attn\d)_to_(q|k)", r"\1.to_\2"), (r"(attn\d)_to_out_0", r"\1.to_out.0"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings(tmp_path, spelling):
    tensors = renamed(*SPELLINGS[spelling])
    if spelling not in ("kohya",):
        assert tensors.keys() != kohya().keys()
    write_safetensors(tmp_path / "a.safetensors", tensors)
    found = read_adapter(tmp_path / "a.safetensors", names())
    same(found, loras())
    assert found.name == "a" and found.notes == ()


@pytest.mark.parametrize("prefix", ["unet.", ""])
def test_projections_of_old_files(tmp_path, prefix):
    """Of attention alone, with and without the component, and of CLIP under the U-Net's names."""
    make, block = Maker(), BLOCK.replace("/", ".")
    chosen = {f"attn1/to_{n}": "lora" for n in ("q", "v", "out/0")}
    kinds = {n: make.make(k, shape_of(f"{BLOCK}/{n}")) for n, k in chosen.items()}
    tensors = {}
    for name, one in kinds.items():
        old = f"{prefix}{block}.attn1.processor.to_{name.split('_')[1].split('/')[0]}_lora"
        tensors |= {f"{old}.down.weight": one.down, f"{old}.up.weight": one.up}
    text = make.make("lora", shape_of(TEXT))
    clip = "text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora"
    tensors |= {f"{clip}.down.weight": text.down, f"{clip}.up.weight": text.up}
    write_safetensors(tmp_path / "a.safetensors", tensors)
    found = read_adapter(tmp_path / "a.safetensors", names())
    assert found.components["unet"].keys() == {f"{BLOCK}/{name}" for name in kinds}
    for name, one in kinds.items():
        (read,) = found.components["unet"][f"{BLOCK}/{name}"]
        np.testing.assert_array_equal(read.down, one.down)
        assert read.alpha == read.rank  # where nothing says it
    np.testing.assert_array_equal(found.components["text_encoder"][TEXT][0].up, text.up)


def test_nine_channels(tmp_path):
    one = Maker().make("lora", (32, 4, 3, 3))
    tensors = kohya(Adapter({"unet": {"conv_in": (one,)}}))
    write_safetensors(tmp_path / "a.safetensors", tensors)
    assert read_adapter(tmp_path / "a.safetensors", names("inpainting")).count() == {"unet": 1}
    decomposed = DoRA(np.ones((32, 1, 1, 1), np.float32), one)
    tensors = kohya(Adapter({"unet": {"conv_in": (decomposed,)}}))
    write_safetensors(tmp_path / "a.safetensors", tensors)
    with pytest.raises(ConvertError, match="does not fit unet/conv_in"):
        read_adapter(tmp_path / "a.safetensors", names("inpainting"))


def test_an_embedding_in_the_file_is_kept_and_told(tmp_path):
    extra = {"bundle_emb.mine.string_to_param.*": Maker().array(2, 64)}
    write_safetensors(tmp_path / "a.safetensors", kohya() | extra)
    found = read_adapter(tmp_path / "a.safetensors", names())
    same(found, loras())
    assert "'mine'" in found.notes[0]
    write_adapter(found, tmp_path / "b.safetensors", "kohya")
    assert read_safetensors(tmp_path / "b.safetensors")[0].keys() >= extra.keys()
    with pytest.raises(ConvertError, match="cannot hold an embedding"):
        write_adapter(found, tmp_path / "c.safetensors", "diffusers")


def test_families_that_only_the_text_tells(tmp_path):
    tensors = {k: v for k, v in kohya().items() if "attn2" not in k}
    path = tmp_path / "a.safetensors"
    write_safetensors(path, tensors, {"ss_base_model_version": "sdxl_base_v1-0"})
    assert read_adapter(path, names()).family == "SDXL"  # the model's own family is not known


def test_no_text_encoder(tmp_path):
    write_safetensors(tmp_path / "a.safetensors", kohya())
    with pytest.raises(ConvertError, match="reads none|no text encoder"):
        read_adapter(tmp_path / "a.safetensors", names("faces"))


# ------------------------------------------------------------------------------------------ PEFT


def peft_folder(folder, config, adapter=None, component=""):
    folder.mkdir(parents=True)
    tensors = renamed(*SPELLINGS["peft"], adapter=adapter)
    tensors = {k: v for k, v in tensors.items() if not k.endswith("alpha")}
    if component:
        tensors = {k: v for k, v in tensors.items() if ("text_model" in k) == (component != "unet")}
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


LORA_CONFIG = {"peft_type": "LORA", "r": 3, "lora_alpha": 6}


def alphas(adapter):
    return {path: float(kinds[0].alpha) for modules in adapter.components.values()
            for path, kinds in modules.items()}  # fmt: skip


def test_settings_of_peft(tmp_path):
    config = LORA_CONFIG | {"alpha_pattern": {"attn2.to_k": 12, r"resnets\.\d+\.conv1": 1.5}}
    found = read_adapter(peft_folder(tmp_path / "a", config), names())
    assert alphas(found) == {QUERY: 6, KEY: 12, OUT: 6, CONVOLUTION: 1.5, TEXT: 6}
    rooted = read_adapter(peft_folder(tmp_path / "b", config | {"use_rslora": True}), names())
    assert alphas(rooted)[QUERY] == pytest.approx(6 * 3**0.5)


def test_folders_of_components(tmp_path):
    peft_folder(tmp_path / "a" / "unet", LORA_CONFIG, component="unet")
    peft_folder(tmp_path / "a" / "text_encoder", LORA_CONFIG | {"lora_alpha": 9}, component="text")
    found = alphas(read_adapter(tmp_path / "a", names()))
    assert found[QUERY] == 6 and found[TEXT] == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "OFT"}, "peft_type is 'OFT'; LORA, LOHA, LOKR are read"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is 'True'"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the model that the adapter is added to"),
        ({"r": 5}, "says the rank of down_blocks.0.* is 5, but its tensors have 3"),
        ({"use_dora": True}, "has no magnitudes"),
        ({"rank_pattern": {"(": 3}}, "is no pattern"),
        ({"lora_alpha": 0}, "lora_alpha is 0, wanted a number above 0"),
    ],
)
def test_refused_settings_of_peft(tmp_path, change, message):
    with pytest.raises(ConvertError, match=message):
        read_adapter(peft_folder(tmp_path / "a", LORA_CONFIG | change), names())


def test_products_of_two_whole_factors_are_scaled_in_peft(tmp_path):
    one = LoKr(w1=Maker().array(4, 2), w2=Maker().array(8, 16))
    tensors = {f"base_model.model.{QUERY.replace('/', '.')}.lokr_{n}": getattr(one, n)
               for n in ("w1", "w2")}  # fmt: skip
    (tmp_path / "a").mkdir()
    write_safetensors(tmp_path / "a/adapter_model.safetensors", tensors)
    (tmp_path / "a/adapter_config.json").write_text('{"peft_type": "LOKR", "r": 4, "alpha": 2}')
    (found,) = read_adapter(tmp_path / "a", names()).components["unet"][QUERY]
    weight = np.zeros((32, 32), np.float32)
    np.testing.assert_allclose(np.asarray(found.delta(weight)), 0.5 * np.asarray(one.delta(weight)))


def test_alphas_in_the_text_of_diffusers(tmp_path):
    tensors = {k: v for k, v in renamed(*SPELLINGS["diffusers"]).items() if "alpha" not in k}
    said = {"unet.r": 3, "unet.lora_alpha": 1.5, "text_encoder.r": 3, "text_encoder.lora_alpha": 2,
            "unet.alpha_pattern": {QUERY.replace("/", "."): 9}}  # fmt: skip
    write_safetensors(tmp_path / "a.safetensors", tensors, {METADATA: json.dumps(said)})
    found = alphas(read_adapter(tmp_path / "a.safetensors", names()))
    assert found == {QUERY: 9, KEY: 1.5, OUT: 1.5, CONVOLUTION: 1.5, TEXT: 2}


# --------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_kohya_there_and_back(tmp_path, dtype):
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    write_adapter(mixed(dtype=dtype), paths[0], "kohya")
    first = read_adapter(paths[0], names())
    same(first, mixed(dtype=dtype))
    write_adapter(first, paths[1], "kohya")
    assert paths[0].read_bytes() == paths[1].read_bytes()
    tensors, metadata = read_safetensors(paths[1])
    assert metadata["sshs_model_hash"] == tensors_digest(tensors)
    assert metadata["ss_network_module"] == "lycoris.kohya"
    assert metadata["ss_output_name"] == "mixed"


def test_the_hash_is_that_of_the_bytes_behind_the_header(tmp_path):
    import hashlib

    write_adapter(loras(), tmp_path / "a.safetensors", "kohya")
    content = (tmp_path / "a.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    _, metadata = read_safetensors(tmp_path / "a.safetensors")
    assert metadata["sshs_model_hash"] == hashlib.sha256(content[8 + length :]).hexdigest()
    assert metadata["ss_network_module"] == "networks.lora"
    assert metadata["ss_network_dim"] == "3"


def decomposed():
    make = Maker(4)
    paths = (QUERY, KEY, CONVOLUTION)
    return Adapter(
        {"unet": {path: (make.make("dora out lora", shape_of(path)),) for path in paths}}
    )


@pytest.mark.parametrize("form", ["diffusers", "peft"])
@pytest.mark.parametrize("adapter", [loras, decomposed])
def test_forms_of_peft_there_and_back(tmp_path, form, adapter):
    end = ".safetensors" if form == "diffusers" else ""
    write_adapter(adapter(), tmp_path / f"a{end}", form)
    found = read_adapter(tmp_path / f"a{end}", names())
    same(found, adapter())
    write_adapter(found, tmp_path / f"b{end}", form)
    again = read_adapter(tmp_path / f"b{end}", names())
    same(again, adapter())


@pytest.mark.parametrize("kind", ["loha", "loha tucker"])
def test_lycoris_in_folders_of_peft(tmp_path, kind):
    make = Maker()
    one = Adapter({"unet": {CONVOLUTION: (make.make(kind, shape_of(CONVOLUTION)),)}})
    write_adapter(one, tmp_path / "a", "peft")
    (found,) = read_adapter(tmp_path / "a", names()).components["unet"][CONVOLUTION]
    weight = np.zeros(shape_of(CONVOLUTION), np.float32)
    (expected,) = one.components["unet"][CONVOLUTION]
    np.testing.assert_array_equal(
        np.asarray(found.delta(weight)), np.asarray(expected.delta(weight))
    )


def test_what_a_form_cannot_hold(tmp_path):
    with pytest.raises(ConvertError, match="diffusers cannot hold the change of unet/.*kohya"):
        write_adapter(mixed(), tmp_path / "a.safetensors", "diffusers")
    with pytest.raises(ConvertError, match="PEFT cannot hold"):
        write_adapter(mixed(), tmp_path / "a", "peft")
    half = decomposed().components["unet"] | {OUT: loras().components["unet"][OUT]}
    with pytest.raises(ConvertError, match="all are DoRA, or none"):
        write_adapter(Adapter({"unet": half}), tmp_path / "a", "peft")
    assert not [*tmp_path.iterdir()]


def test_targets(tmp_path):
    path = tmp_path / "a.safetensors"
    write_adapter(loras(), path, "kohya", dtype="float16")
    tensors, _ = read_safetensors(path)
    assert {array.dtype for name, array in tensors.items() if "alpha" not in name} == {
        np.dtype(np.float16)
    }
    with pytest.raises(ConvertError, match="exists"):
        write_adapter(loras(), path, "kohya")
    write_adapter(loras(), path, "kohya", overwrite=True)
    with pytest.raises(ConvertError, match="does not end in .safetensors"):
        write_adapter(loras(), tmp_path / "a.bin", "kohya")
    write_adapter(loras(), tmp_path / "folder", "peft")
    write_adapter(loras(), tmp_path / "folder", "peft", overwrite=True)
    assert isinstance(read_adapter(tmp_path / "folder", names()).components["unet"][QUERY][0], LoRA)


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ('{"10_a": {"red cat": 7, "sits": 3}, "d": {" sits": 6}}', {"sits": 9, "red cat": 7}),
        ("{}", {}), ("[1]", {}), ("no JSON", {}), ('{"a": 3, "b": {"c": "d", "e": true}}', {}),
    ],
)  # fmt: skip
def test_tags_of_captions_are_counted(text, counts):
    found = tag_counts({"ss_tag_frequency": text})
    assert found == counts and [*found] == [*counts]
    assert tag_counts({}) == {}
