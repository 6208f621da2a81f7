"""Configs refuse what cannot work, survive JSON, and answer before JAX is imported."""

import dataclasses
import json
import os
import subprocess
import sys
import typing

import pytest
import tiny

from ldm_jax import config as cfg
from ldm_jax.cli import train
from ldm_jax.config.choices import choose, parts
from ldm_jax.config.published_models import MODELS
from ldm_jax.core.command import run_command

DATA = cfg.Data()
WITH_MAP = (cfg.TextConditioner(tiny.ENCODER), tiny.CAPTION_MAP)
SMALL = {"block_out_channels": (32,), "attention": (True,), "num_heads": (4,)}


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: cfg.Data(image_size=24), r"data.image_size is 24; it must be one of \(16, 32, 64"),
        (
            lambda: cfg.Data(batch_size=0),
            "Data.batch_size is 0; it must be a whole number of at least 1",
        ),
        (lambda: cfg.DigitScenes(max_digits=4), "max_digits is 4; it must be a whole .* at most 3"),
        (lambda: cfg.DigitScenes("data", 3, 2), "min_digits is 3; it must be at most max_digits 2"),
        (lambda: cfg.Autoencoder(block_out_channels=(40,)), "each a multiple of norm_num_groups"),
        (lambda: cfg.UNet(attention=(True,)), r"UNet.attention is .* a tuple of 4 entries"),
        (lambda: cfg.UNet(**SMALL | {"num_heads": (3,)}), "num_heads .* divisors of"),
        (
            lambda: cfg.UNet(**SMALL, attention_kind="plain", context_dim=8),
            "context_dim is 8; .* None when",
        ),
        (
            lambda: cfg.UNet(attention=(False, True, True, True), only_cross_attention=(True,) * 4),
            "only_cross_attention is .*those only on levels with attention",
        ),
        (lambda: cfg.Discrete(beta_start=0.1, beta_end=0.05), r"\(0, beta_end = 0.05\]"),
        (lambda: cfg.Discrete(2, "given", betas=(0.1,)), "a tuple of 2 numbers, .* it has 1"),
        (lambda: cfg.Discrete(betas=(0.1,)), "a tuple of 0 numbers, as schedule is 'scaled_lin"),
        (lambda: cfg.Discrete(2, "given", betas=(1.0, 0.1)), r"betas\[0\] is 1.0; .* 0 and 1"),
        (lambda: cfg.VP(t_min=0.0), r"VP.t_min is 0.0; it must be a number above 0 and at most 1"),
        (lambda: cfg.VE(sigma_max=0.001), "VE.sigma_min is 0.01"),
        (lambda: cfg.EDM(t_max=0.001), "EDM.t_min is 0.002"),
        (lambda: cfg.RectifiedFlow(shift=0.0), "RectifiedFlow.shift is 0.0"),
        (
            lambda: cfg.Diffusion(cfg.Discrete(zero_terminal_snr=True)),
            "prediction is 'eps'; it must be x0, v, velocity or edm: the process ends in noise",
        ),
        (lambda: cfg.Diffusion(cfg.RectifiedFlow(), "score"), "prediction is 'score'"),
        (
            lambda: cfg.Diffusion(cfg.VP(), learned_variance=True),
            "learned_variance is True; it must be False for process VP",
        ),
        (lambda: cfg.Diffusion(cfg.EDM(), "edm", spacing="leading"), "for process EDM"),
        (lambda: cfg.AutoencoderLoss(l1_weight=0.0), "positive unless l2_weight is"),
        (
            lambda: cfg.AutoencoderLoss(kl_weight=-1.0),
            "AutoencoderLoss.kl_weight is -1.0; it must be a number of at least 0",
        ),
        (
            lambda: cfg.AutoencoderLoss(reduction="published_vq", logvar=1.0),
            "loss.logvar is 1.0; it must be 0 with reduction 'published_vq'",
        ),
        (lambda: cfg.Adversarial(start=-1), "Adversarial.start is -1; it must be a whole"),
        (lambda: cfg.Adversarial(r1_gamma=1.0), "adversarial.norm is 'batch'; it must be 'none'"),
        (
            lambda: cfg.AutoencoderRun(
                DATA, cfg.Autoencoder(), cfg.AutoencoderLoss(reduction="published_vq")
            ),
            "loss.reduction is 'published_vq'; it must be another with bottleneck KL",
        ),
        (
            lambda: cfg.AutoencoderRun(
                DATA, cfg.Autoencoder(), cfg.AutoencoderLoss(adversarial=cfg.Adversarial(layers=4))
            ),
            "data.image_size is 32; it must be 48 or more for loss.adversarial.layers 4",
        ),
        (lambda: cfg.Mesh(data=-1, fsdp=-1), "at most one of them -1"),
        (lambda: cfg.Loop(steps=0), "Loop.steps is 0"),
        (lambda: cfg.CLIPText(skip_last=12), "between 0 and 11"),
        (
            lambda: cfg.AutoencoderRun(DATA, cfg.Autoencoder(), optim=cfg.Optim(accumulation=3)),
            "data.batch_size is 64; it must be a multiple of 3, optim.accumulation",
        ),
        (
            lambda: cfg.AutoencoderRun(DATA, cfg.Autoencoder(patch_size=8)),
            "data.image_size is 32; it must be a multiple of 64, the autoencoder's factor",
        ),
        (
            lambda: cfg.DiffusionRun(DATA, cfg.UNet(**SMALL, context_dim=768)),
            "unet.context_dim is 768; it must be None to match the conditioners .none",
        ),
        (
            lambda: cfg.DiffusionRun(
                DATA, cfg.UNet(**SMALL, class_count=10), (cfg.ClassConditioner(10),)
            ),
            "unet.class_count is 10; it must be 11 to match the conditioners .ClassConditioner",
        ),
        (
            lambda: cfg.DiffusionRun(
                DATA, cfg.UNet(**SMALL, context_dim=8), (cfg.TextConditioner(tiny.ENCODER),)
            ),
            "unet.context_dim is 8; it must be 16 to match the conditioners .TextConditioner",
        ),
        (
            lambda: tiny.diffusion_run(
                "folder",
                conditioners=WITH_MAP,
                unet=dataclasses.replace(tiny.UNET, concat_channels=3),
            ),
            "unet.concat_channels is 3; it must be 4 to match the conditioners "
            ".TextConditioner, CaptionMapConditioner",
        ),
        (
            lambda: tiny.diffusion_run("folder", conditioners=WITH_MAP[1:]),
            "a caption_map only after a text_encoder that is a TextTransformer",
        ),
        (
            lambda: tiny.diffusion_run("folder", conditioners=WITH_MAP[:1] * 2),
            "it must be of different kinds",
        ),
    ],
)
def test_what_cannot_work_is_refused_by_name(make, complaint):
    with pytest.raises(cfg.ConfigError, match=complaint):
        make()


def test_a_first_stage_that_does_not_fit_is_refused():
    run = tiny.diffusion_run("folder", unet=dataclasses.replace(tiny.UNET, in_channels=4))
    run.model(tiny.AUTOENCODER)
    for changes, complaint in (
        ({"latent_channels": 8}, "unet.in_channels is 4; it must be 8"),
        ({"patch_size": 32}, "image_size is 16; it must be a multiple of 32"),
    ):
        with pytest.raises(cfg.ConfigError, match=complaint):
            run.model(dataclasses.replace(tiny.AUTOENCODER, **changes))

    run = tiny.diffusion_run("folder", conditioners=WITH_MAP)
    run.model(tiny.AUTOENCODER)
    with pytest.raises(
        cfg.ConfigError, match=r"caption_map.size is 8; it must be .*latents, \(4, 4\)"
    ):
        run.model(dataclasses.replace(tiny.AUTOENCODER, patch_size=4))
    learned = tiny.diffusion_run(
        "folder",
        diffusion=cfg.Diffusion(learned_variance=True),
        objective=cfg.Objective(loss="hybrid"),
        unet=dataclasses.replace(tiny.UNET, out_channels=4),
    )
    with pytest.raises(cfg.ConfigError, match="out_channels is 4; it must be 8, twice the latent"):
        learned.model(tiny.AUTOENCODER)
    with pytest.raises(cfg.ConfigError, match="map_weight is 1.0; it must be 0 without a Caption"):
        tiny.diffusion_run("folder", objective=cfg.Objective(map_weight=1.0))


def test_what_a_unet_leaves_open_follows_from_first_stage_and_conditioners():
    conditioners = (
        cfg.TextConditioner(tiny.ENCODER), cfg.CaptionMapConditioner(), cfg.ClassConditioner(10),
    )  # fmt: skip
    run = tiny.diffusion_run(
        "folder", conditioners=conditioners, diffusion=cfg.Diffusion(learned_variance=True),
        objective=cfg.Objective(loss="hybrid"),
    )  # fmt: skip
    model = run.model(dataclasses.replace(tiny.AUTOENCODER, latent_channels=3))
    unet, drawn = model.unet, cfg.find(model.conditioners, cfg.CaptionMapConditioner)
    assert (unet.in_channels, unet.out_channels, unet.concat_channels) == (3, 6, 3)
    assert (unet.context_dim, unet.pooled_dim, unet.class_count) == (16, 16, 11)
    assert (drawn.size, drawn.channels) == (8, 3)


@pytest.mark.parametrize(
    "run",
    [
        tiny.autoencoder_run("folder"),
        tiny.diffusion_run("folder"),
        cfg.DiffusionRun(
            DATA, cfg.UNet(**SMALL, context_dim=32), (cfg.ClassConditioner(context_dim=32),)
        ),
        cfg.Diffusion(cfg.Discrete(2, "given", betas=(0.1, 1.0)), "v"),
        cfg.Diffusion(cfg.RectifiedFlow(shift=3.0), "velocity"),
    ],
)
def test_json_gives_an_equal_config_back(run):
    text = cfg.to_json(run)
    assert cfg.from_json(text) == run
    assert cfg.to_json(cfg.from_json(text)) == text


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda d: d["optim"].update(learnig_rate=1), "learnig_rate is no field of Optim; "
         "perhaps you meant 'learning_rate'"),
        (lambda d: d["loop"].update(steps="many"), "config.loop.steps is 'many'; it must be a"),
        (lambda d: d["loop"].update(steps=1.5), "config.loop.steps is 1.5"),
        (lambda d: d["loop"].update(seed=True), "config.loop.seed is True"),
        (lambda d: d["loop"].update(dtype="float16"), "config.loop.dtype is 'float16'"),
        (lambda d: d["data"].update(image_size=[16, 16]), "16, 16.* must be 16, one number for"),
        (lambda d: d["data"].update(image_size=[16]), "or a tuple of 2, each entry a whole number"),
        (lambda d: d["data"].update(image_size=-16), "image_size is -16; it must be a whole"),
        (lambda d: d["data"].update(type="Dato"), "config.data.type is 'Dato'; known are"),
        (lambda d: d.pop("data"), "config: .*missing .*'data'"),
    ],
)  # fmt: skip
def test_damaged_json_is_refused_by_name(damage, complaint):
    content = json.loads(cfg.to_json(tiny.autoencoder_run("folder")))
    damage(content)
    with pytest.raises(cfg.ConfigError, match=complaint):
        cfg.from_json(json.dumps(content))
    with pytest.raises(cfg.ConfigError, match="not JSON"):
        cfg.from_json(json.dumps(content)[:-5])


def test_files_without_a_config_are_refused(tmp_path):
    with pytest.raises(cfg.ConfigError, match="does not exist; train.py --help lists"):
        cfg.load(tmp_path / "absent.py")
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(cfg.ConfigError, match=r"defines no get_config\(\)"):
        cfg.load(tmp_path / "empty.py")


def test_a_shipped_config_is_named_without_its_folder():
    assert cfg.load("digit_scenes_class") == cfg.load(tiny.ROOT / "configs/digit_scenes_class.py")
    with pytest.raises(cfg.ConfigError, match="does not exist; perhaps you meant digit_scenes_fl"):
        cfg.load("digit_scenes_flows")


def test_a_size_that_stage_two_could_not_divide_is_refused_in_stage_one():
    with pytest.raises(cfg.ConfigError, match=r"^--size is 60; .* of 8, what auto.*: 56 or 64$"):
        cfg.load("image_folder_autoencoder", size=60)
    assert cfg.load("image_folder_autoencoder", size=60, network="medium").data.image_size == 60


def test_a_config_has_options(tmp_path, capsys):
    """Which its other settings follow from; further words are overrides."""
    (tmp_path / "config.py").write_text(
        '"""About it."""\nfrom typing import Literal\nfrom ldm_jax import config as cfg\n\n\n'
        'def get_config(size: cfg.Side, network: Literal["small", "large"] = "small"):\n'
        "    channels = (32,) if network == 'small' else (64,)\n"
        "    autoencoder = cfg.Autoencoder(block_out_channels=channels)\n"
        "    return cfg.AutoencoderRun(cfg.Data(cfg.ImageFolder(), size), autoencoder)\n"
    )

    def parse(*words):
        return train.parse([f"--config={tmp_path / 'config.py'}", "--workdir=run", *words])[0]

    run = parse("--size", "48", "--network=large", "--loop.steps=3")
    assert (run.data.image_size, run.loop.steps) == (48, 3)
    assert run.autoencoder.block_out_channels == (64,)
    for words, complaint in (
        ([], "config.py needs --size, which must be a whole number of at least 1"),
        (["--size=big"], "--size is 'big'; it must be a whole number"),
        (["--size"], "--size needs a value"),
        (["--size=48", "--network=huge"], "--network is 'huge'; it must be one of 'small', 'large"),
    ):
        with pytest.raises(cfg.ConfigError, match=complaint):
            parse(*words)
    with pytest.raises(cfg.ConfigError, match=r"has no option --width; it has --size, --network"):
        cfg.load(tmp_path / "config.py", size=48, width=3)
    with pytest.raises(SystemExit):
        parse("--size=48", "--help")
    text = capsys.readouterr().out
    assert "About it." in text and "--network=small: one of 'small', 'large'" in text
    assert "--loss.adversarial=None: Adversarial or None" in text and "--loop.steps" in text


def test_parts_are_chosen_on_the_command_line(tmp_path):
    file = tiny.write_config(tmp_path / "config.py", tiny.diffusion_run("folder"))
    stage_one = tiny.write_config(tmp_path / "one.py", tiny.autoencoder_run("folder"))

    def parse(*words, config=file):
        return train.parse([f"--config={config}", "--workdir=run", *words])[0]

    run = parse("--diffusion.process=RectifiedFlow", "--diffusion.prediction=velocity",
                "--diffusion.process.shift=3", "--data.source=DigitScenes")  # fmt: skip
    assert run.diffusion.process == cfg.RectifiedFlow(shift=3.0)
    assert run.data.source == cfg.DigitScenes()
    run = parse("--conditioners=ClassConditioner,TextConditioner", "--conditioners.0.num_classes=3")
    text = tiny.diffusion_run("folder").conditioners[0]
    assert run.conditioners == (cfg.ClassConditioner(3), text)  # what was there stays as it was
    run = parse("--conditioners.0.encoder=CLIPText", "--conditioners.0.encoder.layers=3")
    assert run.conditioners[0].encoder == cfg.CLIPText(layers=3)
    assert parse("--conditioners=None").conditioners == ()
    run = parse("--loss.adversarial=adversarial", "--loss.adversarial.layers=1", config=stage_one)
    assert run.loss.adversarial == cfg.Adversarial(layers=1)
    words = ("--autoencoder.bottleneck=FSQ", "--autoencoder.latent_channels=3",
             "--autoencoder.bottleneck.levels", "8", "8", "8")  # fmt: skip
    run = parse(*words, config=stage_one)
    assert (run.autoencoder.codes, run.autoencoder.latent_channels) == (512, 3)

    for words, complaint in (
        (["--diffusion.process=DDPM"], "process=DDPM: it must be Discrete or VP or SubVP or VE"),
        (["--diffusion.process", "VP"], "write --diffusion.process=KIND with Discrete or VP"),
        (["--conditioners=text"], "TextConditioner or .*, with commas between several, or None"),
        (["--diffusion.process.sigma_max=3"], "process is Discrete, which has .*process=VE too"),
        (["--loop.step=3"], "--loop.step is no setting of this config; perhaps .* --loop.steps"),
        (["--qqqq=3"], "--qqqq is no setting of this config; with --config=..., --help lists"),
    ):  # fmt: skip
        with pytest.raises(cfg.ConfigError, match=complaint):
            parse(*words)
    latents = ["--latents=here", "--data.source=ImageFolder", "--data.source.path=photos"]
    for words in (latents, ["--latents=here", "--data.source.path=photos"]):
        with pytest.raises(cfg.ConfigError, match="leave out --latents to train on images"):
            parse(*words)
    with pytest.raises(cfg.ConfigError, match="adversarial is None, which has .*=Adversarial too"):
        parse("--loss.adversarial.weight=1", config=stage_one)


@pytest.mark.parametrize("name", cfg.shipped())
def test_all_kinds_of_all_parts_of_shipped_configs_can_be_chosen(name):
    """As far as reading them: whether they fit the others is checked afterwards."""
    file = cfg.open_config(name)
    needed = {n: o.annotation for n, o in file.options.items() if o.default is o.empty}
    options = {
        n: MODELS["Stable Diffusion 1"] if kind is cfg.Model else typing.get_args(kind)[0]
        for n, kind in needed.items()
    }
    run = file.make(**options)
    taken = {*train.PLACES, *(f.name for f in dataclasses.fields(run))}
    assert not {*file.options} & taken - {n for n, kind in needed.items() if kind is cfg.Model}
    for part in parts(run).values():
        for kind in part.kinds:
            name = "None" if kind is type(None) else kind.__name__
            chosen, rest = choose(run, [f"--{part.path}={name}"])
            assert not rest and parts(chosen)[part.path].now == name


def test_overrides_are_typed_and_checked_again(tmp_path):
    file = tiny.write_config(tmp_path / "config.py", tiny.diffusion_run("folder"))

    def parse(*overrides):
        return train.parse([f"--config={file}", "--workdir=run", *overrides])

    run, places = parse("--optim.learning_rate=3e-5", "--unet.dropout=0.25", "--loop.remat")
    assert (run.optim.learning_rate, run.unet.dropout, run.loop.remat) == (3e-5, 0.25, True)
    assert run.optim.beta1 == 0.9 and places.workdir == "run"
    run, _ = parse("--data.source.path=elsewhere", "--conditioners.0.encoder.layers=2")
    assert run.data.source == cfg.ImageFolder(path="elsewhere", validation_fraction=0.2)
    assert run.conditioners[0].encoder.layers == 2
    for words in (["--loop.no-remat"], ["--loop.remat=False", "--data.source.flip=true"]):
        run, _ = parse("--loop.remat=True", *words)
        assert (run.loop.remat, run.data.source.flip) == (False, len(words) == 2)
    run, _ = parse("--diffusion.process.beta_end=0.02")
    assert run.diffusion.process == cfg.Discrete(100, "cosine", beta_end=0.02)
    run, _ = parse("--objective.min_snr_gamma=3", "--optim.clip_norm=None")
    assert (run.objective.min_snr_gamma, run.optim.clip_norm) == (3.0, None)
    sizes = ["--data.source.buckets.sizes", "16", "16", "8", "32"]
    run, _ = parse("--data.source.buckets=Buckets", *sizes)
    assert run.data.buckets.sizes == ((16, 16), (8, 32))
    with pytest.raises(cfg.ConfigError, match="each entry a tuple of 2"):
        parse("--data.source.buckets=Buckets", *sizes[:-1])


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--loop.steps=abc"], "--loop.steps is 'abc'; it must be a whole number of at least 1"),
        (["--loop.steps", "0"], "--loop.steps is 0; it must be a whole number of at least 1"),
        (["--loop.steps"], "--loop.steps has no value; it must be a whole number"),
        (["--optim.learning-rate=fast"], "--optim.learning-rate is 'fast'; it must be a number"),
        (["--diffusion.prediction=noise"], "is 'noise'; it must be one of 'eps', 'x0'"),
        (["--unet.num_heads", "2", "b"], "--unet.num_heads is 'b'; it must be a whole number"),
        (["--data.image_size", "8", "9", "10"], "--data.image_size is (8, 9, 10); it must be"),
        (["--loop.remat=3"], "--loop.remat is '3'; it is a switch: --loop.remat, or --loop.remat="),
        (["--loop.remat", "true"], "'true' belongs to no option; write --loop.remat=True"),
        (["a", "dog"], "'a' belongs to no option; write --name=VALUE"),
        (["--loop.stepps=3"], "is no setting of this config; perhaps you meant --loop.steps"),
        (["--wrkdir=3"], "--wrkdir is no setting of this config; perhaps you meant --workdir"),
        (
            ["--loop.prompts", "--loop.steps=3"],
            "--loop.prompts has no value; write one or more behind it, each text, or "
            "--loop.prompts=None for none",
        ),
    ],
)
def test_options_that_cannot_be_read_are_refused_in_one_line(capsys, words, complaint):
    arguments = ["--config=digit_scenes_text2img", "--workdir=run", *words]
    assert run_command("train.py", train.main, arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("train.py: ") and complaint in line


def test_lists_go_on_and_can_be_emptied():
    def prompts(*words):
        arguments = ["--config=digit_scenes_text2img", "--workdir=run", *words]
        return train.parse(arguments)[0].loop.prompts

    assert prompts("--loop.prompts", "a", "b c", "--loop.prompts=-1") == ("a", "b c", "-1")
    assert prompts("--loop.prompts=a", "--loop.prompts=None") == ()


@pytest.mark.parametrize("module", ["ldm_jax.config", "train", "sample"])
def test_importing_settings_and_command_lines_does_not_import_jax(module):
    heavy = ("jax", "flax", "numpy", "tensorflow_datasets")
    program = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tiny.ROOT, check=True
    )
    assert found.stdout.strip() == "[]"


UNKNOWN = "UNet.__init__() got an unexpected keyword argument 'block_out_chanels'"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("def get_config(:\n", "line 1: SyntaxError"),
        ("import nowhere\n", "line 1: ModuleNotFoundError: No module named 'nowhere'"),
        ("def get_config():\n    return 1 / 0\n", "line 2: ZeroDivisionError"),
        (
            "from ldm_jax import config as c\n\n\ndef get_config():\n    c.Optim(eps=-1.0)\n",
            "line 5: Optim.eps is -1.0; it must be",
        ),
        (
            # As Python says it of a class that the tests' checks of types have not wrapped.
            f"raise TypeError({UNKNOWN!r})\n",
            "line 1: block_out_chanels is no field of UNet; perhaps you meant 'block_out_channels'",
        ),
        ("def get_config():\n    dict(**{3: 4})\n", "line 2: TypeError: keywords must be strings"),
        ("raise SystemExit(0)\n", "line 1: SystemExit"),
        ("get_config = 3\n", "defines no get_config"),
    ],
)
def test_errors_in_a_config_file_say_where(tmp_path, text, complaint):
    file = tmp_path / "broken.py"
    file.write_text(text)
    with pytest.raises(cfg.ConfigError, match=rf"broken\.py.*{complaint}"):
        cfg.load(file)


def test_what_is_no_file_is_no_config(tmp_path):
    os.mkfifo(tmp_path / "pipe.py")
    with pytest.raises(cfg.ConfigError, match="not a regular file"):
        cfg.load(tmp_path / "pipe.py")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"type": []}', r"config.type is \[\]; known are"),
        ('{"type": {"type": 1}}', "config.type is"),
        ("[" * 200_000, "nested too deeply"),
        ("[]", "not a JSON object"),
        ('{"type": "Optim", "eps": 1, "eps": 2}', "names 'eps' twice"),
        ('{"type": "Optim", "eps": NaN}', "config.eps is nan; it must be a number"),
        ('{"type": "Optim", "eps": true}', "config.eps is True; it must be a number"),
        ('{"type": "Optim", "accumulation": 1.0}', "config.accumulation is 1.0; .* whole number"),
    ],
)
def test_hostile_json_is_refused(text, complaint):
    with pytest.raises(cfg.ConfigError, match=complaint):
        cfg.from_json(text)
