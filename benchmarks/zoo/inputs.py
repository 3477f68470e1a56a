"""Small inputs for every kind of model: two sequences, the second one shorter and padded where it can be."""

from collections.abc import Sequence

import torch

from benchmarks.zoo.architecture import END, PAD, VOCABULARY, Inputs


def tokens(length: int = 13, *, short: int = 9, left: bool = False, seed: int = 1) -> Inputs:
    """Two sequences, the second one shorter and padded."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(END + 1, VOCABULARY, (2, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, slice(0, length - short) if left else slice(short, None)] = 0
    return {"input_ids": ids * mask + PAD * (1 - mask), "attention_mask": mask}


def translation(length: int = 13, *, short: int = 9, written: int = 7, padded: int = 5) -> Inputs:
    target = tokens(written, short=padded, seed=2)
    return tokens(length, short=short) | {
        "decoder_input_ids": target["input_ids"],
        "decoder_attention_mask": target["attention_mask"],
    }


def picked(inputs: Inputs, items: Sequence[int]) -> Inputs:
    """The inputs of these items of a batch; where pictures differ in size, their patches are all in one row."""
    found = {name: x[list(items)] for name, x in inputs.items() if name != "pixel_values"}
    if (pictures := inputs.get("pixel_values")) is None:
        return found
    if "image_grid_thw" not in inputs:
        return found | {"pixel_values": pictures[list(items)]}
    each = pictures.split(inputs["image_grid_thw"].prod(1).tolist())
    return found | {"pixel_values": torch.cat([each[item] for item in items])}


def pixels(size: int = 16) -> Inputs:
    return {"pixel_values": torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(3))}


def unmixed() -> Inputs:
    """Pictures for a masked autoencoder, which otherwise shuffles the patches at random."""
    return pixels() | {"noise": torch.linspace(0, 1, 16).expand(2, -1)}


def sound(length: int = 160) -> Inputs:
    mask = torch.ones(2, length, dtype=torch.long)
    mask[1, length * 3 // 5 :] = 0
    return {"input_values": torch.randn(2, length, generator=torch.Generator().manual_seed(4)), "attention_mask": mask}


def written(length: int = 7) -> Inputs:
    return {"decoder_input_ids": tokens(length, seed=2, short=length)["input_ids"]}


def spectrum() -> Inputs:
    return {"input_features": torch.randn(2, 8, 30, generator=torch.Generator().manual_seed(5))} | written()


def frames() -> Inputs:
    mask = torch.ones(2, 30, dtype=torch.long)
    mask[1, 21:] = 0
    features = torch.randn(2, 30, 8, generator=torch.Generator().manual_seed(6))
    return {"input_features": features, "attention_mask": mask} | written()


def speech() -> Inputs:
    return sound(4_000) | written()


def held(count: int) -> Inputs:
    """A text, padded on the left, that holds so many places for patches or frames."""
    text = tokens(9 + count, short=5 + count, left=True)
    text["input_ids"] = text["input_ids"].clamp_max(VOCABULARY - 2)
    text["input_ids"][:, 5 : 5 + count] = VOCABULARY - 1
    return text


def pictured() -> Inputs:
    """A picture's 16 patches, then text; the second sequence is padded on the left."""
    text = tokens(21, short=19, left=True)
    picture = slice(3, 19)
    text["input_ids"] = text["input_ids"].clamp_max(VOCABULARY - 2)
    text["input_ids"][:, picture] = VOCABULARY - 1
    return text | pixels()
