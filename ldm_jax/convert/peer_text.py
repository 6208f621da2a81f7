"""Text encoders and noise schedules as transformers and diffusers describe them in JSON."""

import json
from dataclasses import replace
from typing import Any

from ldm_jax import config as cfg
from ldm_jax.convert.bundle import ConvertError
from ldm_jax.convert.fields import Fields
from ldm_jax.models.process import betas

Json = dict[str, Any]

# What transformers writes into every config and that changes nothing of a forward pass.
_OF_ANY_MODEL = (
    "transformers_version", "architectures", "model_type", "torch_dtype", "dtype", "return_dict",
    "chunk_size_feed_forward", "id2label", "label2id", "problem_type", "output_hidden_states",
    "output_attentions", "is_encoder_decoder", "initializer_range", "initializer_factor",
    "pad_token_id", "bos_token_id", "eos_token_id", "use_cache", "num_hidden_layers", "init_std",
    # Of generating text, which nobody does with these; transformers 4 wrote them all.
    "max_length", "min_length", "num_beams", "num_beam_groups", "temperature", "top_k", "top_p",
    "typical_p", "repetition_penalty", "length_penalty", "diversity_penalty",
    "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "num_return_sequences", "pruned_heads",
    "tie_word_embeddings", "use_bfloat16", "return_dict_in_generate", "early_stopping",
    "exponential_decay_length_penalty",
)  # fmt: skip


def read_text_encoder(fields: Fields) -> cfg.TextCondition:
    """The condition that a CLIP or LDM-BERT text encoder makes.

    Raises:
        ConvertError: names the field whose value is not supported.
    """
    if fields.choice("model_type", None, {"clip_text_model": True, "ldmbert": False}):
        return cfg.TextCondition(_clip(fields), tokenizer="clip")
    return cfg.TextCondition(_bert(fields), tokenizer="bert")


def _clip(fields: Fields) -> cfg.CLIPText:
    layers = fields.whole("num_hidden_layers", 12)
    fields.only(layer_norm_eps=1e-5)
    # Dropout is of training; the projection belongs to the comparison with pictures.
    fields.ignore("projection_dim", "attention_dropout", "dropout", *_OF_ANY_MODEL)
    config = cfg.CLIPText(
        vocab_size=fields.whole("vocab_size", 49408),
        max_length=fields.whole("max_position_embeddings", 77),
        width=fields.whole("hidden_size", 512),
        layers=layers,
        num_heads=fields.whole("num_attention_heads", 8),
        intermediate=fields.whole("intermediate_size", 2048),
        activation=fields.choice(
            "hidden_act", "quick_gelu", {"quick_gelu": "quick_gelu", "gelu": "gelu"}
        ),
    )
    fields.close()
    return config


def _bert(fields: Fields) -> cfg.BERTText:
    width = fields.whole("d_model", 1280)
    layers = fields.whole("encoder_layers", 32)
    if fields.whole("encoder_ffn_dim", 5120) != 4 * width:
        raise fields.error("encoder_ffn_dim", f"{4 * width}, four times d_model")
    fields.only(activation_function="gelu", scale_embedding=False)
    fields.ignore("dropout", "attention_dropout", "activation_dropout", "encoder_layerdrop",
                  "classifier_dropout", *_OF_ANY_MODEL)  # fmt: skip
    config = cfg.BERTText(
        vocab_size=fields.whole("vocab_size", 30522),
        max_length=fields.whole("max_position_embeddings", 77),
        width=width,
        layers=layers,
        num_heads=fields.whole("encoder_attention_heads", 8),
        head_dim=fields.whole("head_dim", 64),
    )
    fields.close()
    return config


def write_text_encoder(encoder: Any) -> Json:
    """The `config.json` of a text encoder.

    Raises:
        ConvertError: it is this project's own, which no other program has.
    """
    match encoder:
        case cfg.CLIPText():
            return {
                "architectures": ["CLIPTextModel"], "model_type": "clip_text_model",
                "vocab_size": encoder.vocab_size, "max_position_embeddings": encoder.max_length,
                "hidden_size": encoder.width, "intermediate_size": encoder.intermediate,
                "num_hidden_layers": encoder.layers - encoder.skip_last,
                "num_attention_heads": encoder.num_heads, "hidden_act": encoder.activation,
                "layer_norm_eps": 1e-5, "attention_dropout": 0.0, "projection_dim": encoder.width,
                "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 1,
            }  # fmt: skip
        case cfg.BERTText():
            return {
                "architectures": ["LDMBertModel"], "model_type": "ldmbert",
                "vocab_size": encoder.vocab_size, "max_position_embeddings": encoder.max_length,
                "d_model": encoder.width, "encoder_ffn_dim": 4 * encoder.width,
                "encoder_layers": encoder.layers, "encoder_attention_heads": encoder.num_heads,
                "head_dim": encoder.head_dim, "activation_function": "gelu",
                "scale_embedding": False, "pad_token_id": 0,
            }  # fmt: skip
    raise ConvertError(
        f"condition.encoder is a {type(encoder).__name__}, which diffusers does not have; write "
        "the native form"
    )


# Which list of timesteps a scheduler has if its file does not say, and where its sampling ends.
_SCHEDULERS = {
    "DDIMScheduler": ("leading", True), "DDPMScheduler": ("leading", None),
    "PNDMScheduler": ("leading", False), "LMSDiscreteScheduler": ("linspace", None),
    "EulerDiscreteScheduler": ("linspace", None),
    "EulerAncestralDiscreteScheduler": ("linspace", None),
    "HeunDiscreteScheduler": ("linspace", None), "KDPM2DiscreteScheduler": ("linspace", None),
    "KDPM2AncestralDiscreteScheduler": ("linspace", None),
    "DPMSolverMultistepScheduler": ("linspace", None),
    "DPMSolverSinglestepScheduler": (None, None),
    "DEISMultistepScheduler": ("linspace", None), "UniPCMultistepScheduler": ("linspace", None),
}  # fmt: skip
# How a solver goes, which is chosen when sampling; some are of solvers that a folder had before.
_OF_SOLVERS = (
    "skip_prk_steps", "variance_type", "solver_order", "algorithm_type", "solver_type",
    "lower_order_final", "euler_at_final", "use_karras_sigmas", "use_exponential_sigmas",
    "use_beta_sigmas", "use_lu_lambdas", "final_sigmas_type", "lambda_min_clipped", "flow_shift",
    "time_shift_type", "predict_x0", "disable_corrector", "solver_p", "interpolation_type",
    "timestep_type", "sigma_min", "sigma_max", "timestep_values", "dynamic_thresholding_ratio",
    "clip_sample_range", "sample_max_value",
)  # fmt: skip
_PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
_SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine",
              "sigmoid": "sigmoid_betas"}  # fmt: skip


def read_scheduler(fields: Fields) -> tuple[cfg.Diffusion, tuple[str, ...]]:
    """The process that a scheduler's file describes, and what to know about it.

    Which solver it names plays no part: that is chosen when sampling.

    Raises:
        ConvertError: names the field whose value is not supported.
    """
    name = fields.get("_class_name", None)
    if name not in _SCHEDULERS:
        raise fields.error("_class_name", f"one of {', '.join(_SCHEDULERS)}")
    spacing, ends_at_one = _SCHEDULERS[name]
    fields.only(thresholding=False, use_flow_sigmas=False, use_dynamic_shifting=False,
                shift_terminal=None)  # fmt: skip
    clips = name in ("DDIMScheduler", "DDPMScheduler")
    if fields.flag("clip_sample", clips):
        raise fields.error("clip_sample", "false: latents are not confined to [-1, 1], and no "
                           "sampler here clips them")  # fmt: skip
    fields.ignore(*_OF_SOLVERS)
    notes = []
    kind = fields.choice(
        "timestep_spacing", spacing or "linspace",
        {"leading": "leading", "trailing": "trailing", "linspace": "linspace"},
    )  # fmt: skip
    offset = fields.get("steps_offset", 0)
    if offset not in (0, 1) or isinstance(offset, bool):
        raise fields.error("steps_offset", "0 or 1")
    if kind == "leading" and offset == 0:
        notes.append(
            "steps_offset is 0: diffusers samples at 0, 20, 40, ...; here leading is 1, 21, 41, "
            "..., as the original code has it"
        )
    ends = fields.get("set_alpha_to_one", ends_at_one)
    prediction = fields.choice("prediction_type", "epsilon", _PREDICTIONS)
    end = "first" if ends is False else "one"
    try:
        config = cfg.Diffusion(_read_betas(fields), prediction, spacing=kind, final_alpha_bar=end)
    except cfg.ConfigError as error:
        raise ConvertError(f"{fields.path}: {error}") from error
    fields.close()
    return config, tuple(notes)


def _read_betas(fields: Fields) -> cfg.Discrete:
    """The noise schedule; betas of its own count before any formula, as in diffusers."""
    rescaled = fields.flag("rescale_betas_zero_snr", False)
    given = fields.get("trained_betas", None)
    kind = fields.choice("beta_schedule", "linear", _SCHEDULES)
    count = fields.whole("num_train_timesteps", 1000)
    start, end = fields.number("beta_start", 0.0001), fields.number("beta_end", 0.02)
    if given is None:
        return cfg.Discrete(count, kind, start, end, zero_terminal_snr=rescaled)
    if not isinstance(given, list) or not all(type(beta) in (int, float) for beta in given):
        raise fields.error("trained_betas", "a list of numbers, or null")
    if len(given) != count:
        raise ConvertError(
            f"{fields.path}: trained_betas has {len(given)} numbers, but num_train_timesteps is "
            f"{count}"
        )
    return cfg.Discrete(count, "given", betas=tuple(given), zero_terminal_snr=rescaled)


def write_scheduler(config: cfg.Diffusion) -> Json:
    """The `scheduler_config.json` of a DDIM sampler of the process."""
    predictions = {ours: theirs for theirs, ours in _PREDICTIONS.items()}
    schedules = {ours: theirs for theirs, ours in _SCHEDULES.items()}
    process = config.process
    if not isinstance(process, cfg.Discrete) or config.prediction not in predictions:
        raise ConvertError(
            f"diffusion.process is a {type(process).__name__} with prediction "
            f"{config.prediction!r}; schedulers of diffusers' folders are written for a Discrete "
            f"one with {', '.join(predictions)}; write the native form"
        )
    # Formulas that it does not have, or not with this shift, are written out as their betas.
    plain = replace(process, zero_terminal_snr=False)
    listed = process.schedule not in schedules or process.shift != 1
    return {
        "_class_name": "DDIMScheduler", "num_train_timesteps": process.num_timesteps,
        "beta_schedule": "linear" if listed else schedules[process.schedule],
        "beta_start": process.beta_start, "beta_end": process.beta_end,
        "prediction_type": predictions[config.prediction],
        "timestep_spacing": config.spacing,
        "set_alpha_to_one": config.final_alpha_bar == "one",
        "steps_offset": 1 if config.spacing == "leading" else 0,
        "clip_sample": False, "thresholding": False,
        "rescale_betas_zero_snr": process.zero_terminal_snr,
        "trained_betas": betas(plain).tolist() if listed else None,
    }  # fmt: skip


def as_text(value: Json) -> bytes:
    """A JSON file as diffusers writes it."""
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
