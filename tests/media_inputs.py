"""Pictures to show to models, and the processors of transformers that prepare them."""

import importlib

import numpy as np
from PIL import Image


def image_processor(family, name, **settings):
    module = importlib.import_module(f"transformers.models.{family}.image_processing_pil_{family}")
    return getattr(module, f"{name}ImageProcessorPil")(**settings)


def picture(width=60, height=40, seed=0):
    """A picture of noise, smooth enough to be resized."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
