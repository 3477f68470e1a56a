"""Which part of a picture did each word of the answer look at? Run it with a model: python picture.py MODEL"""

import sys

import numpy as np
from PIL import Image, ImageDraw

import regard
from regard.reading.media import ImageArea

picture = Image.new("RGB", (192, 128), "white")
pen = ImageDraw.Draw(picture)
pen.ellipse((20, 50, 70, 100), fill="red")
pen.rectangle((120, 50, 170, 100), fill="blue")

model = regard.load(sys.argv[1] if len(sys.argv) > 1 else "HuggingFaceTB/SmolVLM-256M-Instruct")
assert isinstance(model, regard.LanguageModel)
reading = model.read("What colour is the ball?", images=picture, max_new_tokens=6)
reading.plot("image", "picture.png")

areas = {place: token.area for place, token in enumerate(reading.keys("decoder")) if isinstance(token.area, ImageArea)}
patches = list(areas)
weights = reading.weights("decoder").mean(axis=(0, 1))  # row, key: the mean of layers and heads
for token, row in zip(reading.written("decoder") or [], weights, strict=True):
    area = areas[patches[int(np.argmax(row[patches]))]]
    told = f"{row[patches].sum():.0%} on the picture, most at {area.left:.0f}, {area.top:.0f}"
    print(f"{token.text if token else ''!r:12} {told}")
