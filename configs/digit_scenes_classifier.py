"""A classifier of noisy latents for guidance: single digits of DigitScenes at 16 px.

    python train.py --config=configs/digit_scenes_classifier.py --workdir=runs/classifier \
        --first_stage=runs/class
    python sample.py --model=runs/class --classes 0 1 2 3 --num=4 --guidance=1 \
        --classifier=runs/classifier --classifier_scale=2 --out=samples

`--first_stage` names the model that is to be guided, whose latents it must see at their scale.

Two minutes of one core. Then the guided model with its classes dropped draws the digit that was
asked for in 0.12 of 64 pictures without the classifier, and in 0.42, 0.64 and 0.77 with scales 1, 3
and 10. See docs/digit_scenes_models.md.

Validation tells less: 0.48 of the digits at little noise, 0.12 at much. Single digits of training
never have the colours that those of validation have (of six colours a digit has four in training,
one in validation), so the classifier learns that a validation picture's colour excludes its digit,
which is right of what the guided model draws.
"""

from dataclasses import replace

from ldm_jax import config as cfg


def get_config() -> cfg.ClassifierRun:
    guided = cfg.load("digit_scenes_class")
    steps = 1000
    return cfg.ClassifierRun(
        data=replace(guided.data, batch_size=64),
        classifier=cfg.Classifier(
            in_channels=8, num_classes=10, block_out_channels=(32, 48),
            layers_per_block=1, attention=(False, True), num_heads=(4, 4), norm_num_groups=16,
            dropout=0.2,
        ),
        diffusion=guided.diffusion,
        optim=cfg.Optim(
            learning_rate=1e-3, schedule="cosine", warmup_steps=30, weight_decay=0.1,
            ema_decay=0.99,
        ),
        loop=cfg.Loop(
            steps=steps, log_every=20, checkpoint_every=steps, validate_every=200,
            validation_batches=4, sample_every=steps,
        ),
    )  # fmt: skip
