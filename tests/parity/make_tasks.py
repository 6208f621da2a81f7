"""Writes golden/tasks.npz: what the originals of super-resolution's, inpainting's and layout's data
compute.

    python tests/parity/make_tasks.py LATENT_DIFFUSION TAMING_TRANSFORMERS LAMA

The three are checkouts of CompVis/latent-diffusion (a506df5), CompVis/taming-transformers (3ba01b2)
and advimman/lama (786f593). Needs PyTorch and opencv-python-headless beside NumPy, SciPy and
Pillow, and none of the originals' other packages; the tests that read the file need no original.
"""

import json
import random
import sys
import types
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import scipy
from PIL import Image
from scipy import interpolate, ndimage
from task_inputs import COUNT, CROPS, SCALE, objects, picture, psnr

DRAWS = 2000


def stub(name: str, **members: object) -> None:
    """A module that is imported and has nothing but `members`."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))
    vars(sys.modules[name]).update(members)


class OldInterpolation:
    """SciPy's former interp2d on a grid: linear between its points, without extrapolation."""

    def __init__(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> None:
        self._spline = interpolate.RectBivariateSpline(y, x, z, kx=1, ky=1)

    def __call__(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return self._spline(y, x)


# ---------------------------------------------------------------------------- super-resolution


def degradations(path: str) -> dict[str, np.ndarray]:
    sys.path.insert(0, path)
    stub("albumentations")
    scipy.finfo = np.finfo  # which it had
    stub("torchvision.utils", make_grid=None)
    from ldm.modules.image_degradation import bsrgan, bsrgan_light
    from ldm.modules.image_degradation import utils_image as util

    found = steps(bsrgan, bsrgan_light, util)
    for name, module in (("full", bsrgan), ("light", bsrgan_light)):
        random.seed(0)
        np.random.seed(0)
        distances, black = np.zeros(DRAWS), 0
        for i in range(DRAWS):
            image = picture(i % COUNT)
            sides = (image.shape[1] // SCALE, image.shape[0] // SCALE)
            small = module.degradation_bsrgan_variant(image, sf=SCALE)["image"]
            clean = np.asarray(Image.fromarray(image).resize(sides, Image.Resampling.BICUBIC))
            distances[i], black = psnr(small, clean), black + (small.max() < 8)
        found[f"psnr/{name}"] = distances.astype(np.float32)
        print(name, "black pictures:", black, "of", DRAWS)
    return found


def steps(full: types.ModuleType, light: types.ModuleType, util: types.ModuleType) -> dict:
    """Each step with parameters of ours in place of its draws."""
    full.interp2d = light.interp2d = OldInterpolation
    image = util.uint2single(picture(100, 24, 36))
    found = {"image": image, "halved": util.imresize_np(image, 1 / 2, True)}
    for height, width in ((24, 36), (11, 17), (6, 9), (12, 18), (31, 41), (3, 4)):
        for name, number in (("linear", 1), ("cubic", 2), ("area", 3)):
            resized = cv2.resize(image, (width, height), interpolation=number)
            found[f"resize/{name}/{height}/{width}"] = resized
    for number, (module, size, draws) in enumerate((
        (full, 7, (0.3, 0.2, 0.9, 0.4)), (full, 2, (0.1, 0.8, 0.05, 0.7)),
        (light, 2, (0.2, 0.5, 0.1, 0.9)), (light, 11, (0.2, 0.9, 0.6, 0.2)),
        (full, 5, (0.6, 0.7)), (light, 3, (0.6, 0.8)), (light, 4, (0.9, 0.3)),
    )):  # fmt: skip
        with (
            mock.patch.object(random, "random", side_effect=draws),
            mock.patch.object(random, "randint", return_value=size),
        ):
            blurred = module.add_blur(image, sf=4)
        key = f"blur/{number}/{'full' if module is full else 'light'}"
        found |= {f"{key}/size": np.array(size), f"{key}/draws": np.array(draws), key: blurred}
    for scale, deviation in ((2, 0.7), (4, 2.1), (4, 0.15)):
        kernel = full.shift_pixel(full.fspecial("gaussian", 25, deviation), scale)
        kernel = (kernel / kernel.sum())[..., None]
        shrunk = ndimage.convolve(image, kernel, mode="mirror")[::scale, ::scale]
        found[f"shrink/{scale}/{deviation}"] = shrunk
    for quality in (30, 77, 95):
        with mock.patch.object(random, "randint", return_value=quality):
            found[f"jpeg/{quality}"] = util.single2uint(full.add_JPEG_noise(image))
    shares, mixing = np.array([0.3, 0.9, 0.6]), np.random.RandomState(3).rand(3, 3)
    with (
        mock.patch.object(random, "randint", return_value=9),
        mock.patch.object(np.random, "rand", side_effect=[0.5, shares, mixing]),
        mock.patch.object(np.random, "multivariate_normal", return_value=image * 0) as drawn,
    ):
        full.add_Gaussian_noise(image, 2, 25)
    return found | {"shares": shares, "mixing": mixing, "covariance": drawn.call_args.args[1]}


# ---------------------------------------------------------------------------------- inpainting

LENGTHS = {"training": (1, 5, 200, 100), "thick": (1, 5, 200, 100), "medium": (4, 5, 100, 50),
           "thin": (4, 50, 40, 10)}  # fmt: skip
BOXES = {"training": (1.0, 1, 4, 30, 150, 10), "thick": (0.3, 1, 3, 30, 150, 10),
         "medium": (0.3, 1, 5, 10, 50, 0), "thin": (0.0, 1, 1, 30, 150, 10)}  # fmt: skip
LINES = ((100, 40, 180, 200, 31), (10, 250, 250, 256, 80), (60, 60, 61, 75, 12), (5, 9, 90, 9, 5))


def masks(path: str) -> dict[str, np.ndarray]:
    """Shares that masks of 256 pixels cover, without the additional stroke."""
    sys.path.insert(0, path)
    stub("saicinpainting.evaluation.masks.mask", SegmentationMask=None)
    stub("saicinpainting.utils", LinearRamp=None)
    source = Path(path, "saicinpainting/training/data/masks.py").read_text()
    module = types.ModuleType("masks")
    exec(compile(source, "masks.py", "exec"), vars(module))
    found = {}
    for name, (low, high, length, width) in LENGTHS.items():
        np.random.seed(0)
        weight, least, most, small, large, margin = BOXES[name]
        draw = module.MixedMaskGenerator(
            irregular_proba=1, segm_proba=0, box_proba=weight,
            irregular_kwargs={"min_times": low, "max_times": high - 1, "max_len": length,
                              "max_width": width},
            box_kwargs={"min_times": least, "max_times": most, "bbox_min_size": small,
                        "bbox_max_size": large, "margin": margin},
        )  # fmt: skip
        shares = [draw(np.zeros((3, 256, 256))).mean() for _ in range(DRAWS)]
        found[f"covered/{name}"] = np.array(shares, np.float32)
    for y, x, end_y, end_x, width in LINES:
        mask = np.zeros((256, 256), np.uint8)
        cv2.line(mask, (x, y), (end_x, end_y), 1, width)
        found[f"line/{y}/{x}/{end_y}/{end_x}/{width}"] = np.packbits(mask)
    return found


# -------------------------------------------------------------------------------------- layout


def layouts(path: str) -> dict[str, np.ndarray]:
    sys.path.insert(0, path)
    import taming.data.helper_types  # noqa: F401 - before a stub stands for its package

    stub("more_itertools.recipes", grouper=None)
    stub("torchvision.transforms")
    unused = ("convert_pil_to_tensor", "CenterCropReturnCoordinates", "RandomHorizontalFlipReturn",
              "RandomCrop1dReturnCoordinates", "Random2dCropReturnCoordinates")  # fmt: skip
    stub("taming.data.image_transforms", **dict.fromkeys(unused))
    stub("tqdm", tqdm=None)
    sys.modules["torchvision"].transforms = None
    from taming.data.annotated_objects_coco import AnnotatedObjectsCoco, load_categories
    from taming.data.conditional_builder.objects_bbox import ObjectsBoundingBoxConditionalBuilder
    from taming.data.helper_types import Annotation

    found = {}
    for number, (_, _, height, width, top, left, side) in enumerate(CROPS):
        crop = left / width, top / height, side / width, side / height
        for mirrored in (False, True):
            for name, classes, more in (("coco", 171, False), ("open_images", 340, True)):
                boxes, kinds, flags = objects(number, 12, classes)
                annotations = [
                    Annotation(
                        area=None, image_id=None, bbox=tuple(box), category_no=int(kind),
                        category_id=None, is_group_of=bool(flag & 1), is_occluded=bool(flag & 2),
                        is_depiction=bool(flag & 4), is_inside=bool(flag & 8),
                    )
                    for box, kind, flag in zip(boxes.tolist(), kinds, flags, strict=True)
                ]  # fmt: skip
                builder = ObjectsBoundingBoxConditionalBuilder(classes, 30, 8192, True, True, more)
                with mock.patch.object(random, "shuffle"):
                    tokens = builder.build(annotations, crop, mirrored).numpy()
                found[f"tokens/{name}/{number}/{int(mirrored)}"] = tokens.astype(np.int16)
    listed = []
    for kind in ("instances", "stuff"):
        file = Path(path, f"data/coco_annotations_100/annotations/{kind}_val2017.json")
        listed += json.loads(file.read_text())["categories"]
    dataset = AnnotatedObjectsCoco.__new__(AnnotatedObjectsCoco)
    dataset.categories, dataset.category_allow_list = load_categories(listed), None
    dataset.setup_category_id_and_number()
    found["coco_ids"] = np.array([int(key) for key in dataset.category_ids], np.int16)
    return found


def main() -> None:
    """Computes and writes everything."""
    latent_diffusion, taming, lama = sys.argv[1:]
    found = degradations(latent_diffusion) | masks(lama) | layouts(taming)
    np.savez_compressed(Path(__file__).parent / "golden" / "tasks.npz", **found)


if __name__ == "__main__":
    main()
