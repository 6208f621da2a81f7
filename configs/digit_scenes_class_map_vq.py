"""VQ autoencoder of class maps: DigitScenes at 32 px, f = 4, for digit_scenes_class_map_codes.

python train.py --config=configs/digit_scenes_class_map_vq.py --workdir=runs/map_vq

600 steps took seven minutes on two cores that others used as well. Of the pixels of held-out scenes
97.6 % then have the right class, with 83 % of 256 codes in use. See docs/code_transformer.md.
"""

from dataclasses import replace

from ldm_jax import config as cfg


def get_config() -> cfg.AutoencoderRun:
    images = cfg.load("digit_scenes_vq_f4")
    classes = 11  # the background and ten digits
    return replace(
        images,
        autoencoder=replace(images.autoencoder, image_channels=classes),
        maps=cfg.ClassMaps(num_classes=classes, ignore=None),
        loss=cfg.AutoencoderLoss(),
    )
