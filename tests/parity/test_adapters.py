"""Pictures drawn with adapters: our pipeline beside diffusers with PEFT, from the same files.

Relative differences of latents after 20 steps with guidance, as in `test_pipelines`.
"""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
peft = pytest.importorskip("peft")

from small_adapters import Maker  # noqa: E402
from tiny_pipelines import pipeline as peer_pipeline  # noqa: E402
from tiny_pipelines import scheduler  # noqa: E402

from ldm_jax import config as cfg  # noqa: E402
from ldm_jax import latent_diffusion as ldm  # noqa: E402
from ldm_jax.adapters.adapter import Adapter  # noqa: E402
from ldm_jax.convert.adapters.adapter_files import read_adapter  # noqa: E402
from ldm_jax.convert.adapters.adapter_writer import write_adapter  # noqa: E402
from ldm_jax.convert.adapters.module_names import ModuleNames  # noqa: E402
from ldm_jax.convert.loading import load  # noqa: E402
from ldm_jax.generation.pipeline import Pipeline  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
CLOSE = 1e-3
PROMPT, NEGATIVE = "a b cat", "ugly"
STEPS, SEED = 20, 3
SAMPLING = cfg.Sampling(
    sampler="ddim", spacing=None, steps=STEPS, guidance_scale=7.5, seed=SEED, height=16, width=16
)
BLOCKS = ("down_blocks.0.attentions.0.transformer_blocks.0", "mid_block.attentions.0"
          ".transformer_blocks.0")  # fmt: skip
DENSE = tuple(f"{b}.{n}" for b in BLOCKS for n in ("attn1.to_q", "attn2.to_k", "attn2.to_out.0",
                                                   "ff.net.0.proj"))  # fmt: skip
CONVOLVED = ("down_blocks.0.resnets.0.conv1", "up_blocks.0.resnets.0.conv_shortcut")
TEXT = ("text_model.encoder.layers.0.self_attn.q_proj", "text_model.encoder.layers.1.mlp.fc2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shallow")
    peer_pipeline(folder, "shallow").save_pretrained(folder / "model")
    return folder


@pytest.fixture(scope="module")
def names(folder):
    model = load(folder / "model")
    return ModuleNames.of(model.config, model.params)


@pytest.fixture(scope="module")
def ours(folder, names):
    """One pipeline for all: prompts name the adapters in the folder."""
    (folder / "adapters").mkdir()
    return Pipeline(folder / "model", lora_dir=folder / "adapters")


def made(names, kind, seed, dense=DENSE, convolved=CONVOLVED, text=TEXT):
    make = Maker(seed)

    def change(name):
        return (make.make(kind, names.places[name].shape),)

    unet = {names.places[n].path: change(n) for n in (*dense, *convolved)}
    parts = {"unet": unet, "text_encoder": {names.places[n].path: change(n) for n in text}}
    return Adapter({component: modules for component, modules in parts.items() if modules})


def with_one_alpha(adapter):
    return Adapter({
        component: {p: (replace(one, alpha=np.float32(2)),) for p, (one,) in modules.items()}
        for component, modules in adapter.components.items()
    })  # fmt: skip


def expected(folder, path, strength):
    """diffusers' latents with the adapter of a file or folder."""
    peer = diffusers.StableDiffusionPipeline.from_pretrained(
        folder / "model", safety_checker=None, requires_safety_checker=False
    )
    peer.set_progress_bar_config(disable=True)
    peer.scheduler = scheduler()
    if path is not None:
        peer.load_lora_weights(path.parent, weight_name=path.name, adapter_name="one")
        peer.set_adapters(["one"], [strength])
    noise = np.array(ldm.noise_of(SEED, "sample/initial", jnp.zeros(1, jnp.uint32), (8, 8, 4)))
    return peer(
        PROMPT, negative_prompt=NEGATIVE, height=16, width=16, output_type="latent",
        num_inference_steps=STEPS, guidance_scale=7.5,
        latents=torch.from_numpy(noise.transpose(0, 3, 1, 2).copy()),
    ).images.permute(0, 2, 3, 1).numpy()  # fmt: skip


def found(ours, tag=""):
    return ours.generate([PROMPT + tag], sampling=SAMPLING, negative=NEGATIVE, decode=False)


def apart(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize("form", ["kohya", "diffusers"])
@pytest.mark.parametrize("strength", [1.0, -0.6])
def test_lora(folder, names, ours, form, strength):
    """In U-Net and text encoder. Of kohya's files diffusers loses alphas that differ from the most
    frequent one and, with the CLIP of transformers 5, changes of the text encoder's attention."""
    adapter = made(names, "lora", 5)
    if form == "kohya":
        adapter = with_one_alpha(made(names, "lora", 5, text=TEXT[1:]))
    path = folder / "adapters" / f"{form}.safetensors"
    write_adapter(adapter, path, form, overwrite=True)
    latents = expected(folder, path, strength)
    assert apart(found(ours, f"<lora:{form}:{strength}>"), latents) <= CLOSE
    assert apart(found(ours), latents) > 0.05


def test_dora(folder, names, ours):
    """At the strength with which it was trained: at others PEFT scales ΔW inside the norm."""
    adapter = made(names, "dora out lora", 6, text=())
    path = folder / "adapters" / "dora.safetensors"
    write_adapter(adapter, path, "diffusers", overwrite=True)
    latents = expected(folder, path, 1.0)
    assert apart(found(ours, "<lora:dora>"), latents) <= CLOSE
    assert apart(found(ours), latents) > 0.05


def test_files_of_diffusers(folder, names, ours):
    """What diffusers itself saves of adapters of PEFT, with patterns of ranks and alphas."""
    peer = diffusers.StableDiffusionPipeline.from_pretrained(
        folder / "model", safety_checker=None, requires_safety_checker=False
    )
    config = peft.LoraConfig(
        r=4, lora_alpha=2, target_modules=["to_q", "to_v", "ff.net.2"], init_lora_weights=False,
        rank_pattern={"mid_block.*to_q": 2}, alpha_pattern={"to_v": 8}, use_rslora=True,
    )  # fmt: skip
    torch.manual_seed(0)
    peer.unet.add_adapter(config)
    from diffusers.utils import convert_state_dict_to_diffusers

    layers = convert_state_dict_to_diffusers(peft.get_peft_model_state_dict(peer.unet))
    from diffusers.training_utils import _collate_lora_metadata

    path = folder / "adapters" / "saved.safetensors"
    peer.save_lora_weights(
        path.parent, unet_lora_layers=layers, weight_name=path.name,
        **_collate_lora_metadata({"unet": peer.unet}),
    )  # fmt: skip
    read = read_adapter(path, names)
    changes = {path: np.asarray(kinds[0].delta(np.zeros(names.places[path.replace("/", ".")].shape,
               np.float32))) for path, kinds in read.components["unet"].items()}  # fmt: skip
    modules = dict(peer.unet.named_modules())
    assert len(changes) == sum(hasattr(m, "lora_A") for m in modules.values()) > 10
    for name, change in changes.items():
        wanted = modules[name.replace("/", ".")].get_delta_weight("default").detach().numpy()
        np.testing.assert_allclose(change, wanted, atol=1e-6)
    assert apart(found(ours, "<lora:saved>"), expected(folder, path, 1.0)) <= CLOSE


@pytest.mark.parametrize(
    ("kind", "convolved"),
    [("lora", CONVOLVED), ("dora out lora", CONVOLVED), ("loha", ()), ("loha tucker", CONVOLVED)],
)  # fmt: skip
def test_folders_that_peft_loads(folder, names, tmp_path, kind, convolved):
    """Folders written here, loaded by PEFT: the same change of each weight."""
    dense = () if "tucker" in kind else DENSE
    convolved = convolved[:1] if "tucker" in kind else convolved
    adapter = made(names, kind, 7, dense=dense, convolved=convolved, text=())
    write_adapter(adapter, tmp_path / "peft", "peft")
    unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "model" / "unet")
    before = {name: p.detach().clone() for name, p in unet.named_parameters()}
    loaded = peft.PeftModel.from_pretrained(unet, tmp_path / "peft").merge_and_unload()
    after = dict(loaded.named_parameters())
    for path, (one,) in adapter.components["unet"].items():
        name = f"{path.replace('/', '.')}.weight"
        wanted = (after[name] - before[name]).detach().numpy()
        np.testing.assert_allclose(np.asarray(one.delta(before[name].numpy())), wanted, atol=2e-5)
        assert np.abs(wanted).max() > 1e-3
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"{path.replace('/', '.')}.weight" for path in adapter.components["unet"]}


@pytest.mark.parametrize(
    ("config", "targets"),
    [
        (peft.LoHaConfig, {"r": 3, "alpha": 2, "use_effective_conv2d": True}),
        (peft.LoHaConfig, {"r": 3, "alpha": 2}),
        (peft.LoKrConfig, {"r": 3, "alpha": 2}),
        (peft.LoKrConfig, {"r": 2, "alpha": 3, "decompose_both": True, "decompose_factor": 8}),
        (peft.LoKrConfig, {"r": 64, "alpha": 16}),
        (peft.LoKrConfig, {"r": 3, "alpha": 2, "use_effective_conv2d": True}),
        (peft.LoraConfig, {"r": 3, "lora_alpha": 2, "use_dora": True}),
    ],
)
def test_folders_that_peft_writes(folder, names, tmp_path, config, targets):
    unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "model" / "unet")
    before = {name: p.detach().clone() for name, p in unet.named_parameters()}
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(
        unet, config(target_modules=["to_q", "attn2.to_k", "conv1"], **targets)
    )
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if parameter.requires_grad and "magnitude" not in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape))
    wrapped.save_pretrained(tmp_path / "peft")
    read = read_adapter(tmp_path / "peft", names).components["unet"]
    after = dict(wrapped.merge_and_unload().named_parameters())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"{path.replace('/', '.')}.weight" for path in read}
    for path, (one,) in read.items():
        name = f"{path.replace('/', '.')}.weight"
        wanted = (after[name] - before[name]).detach().numpy()
        np.testing.assert_allclose(np.asarray(one.delta(before[name].numpy())), wanted, atol=2e-5)
