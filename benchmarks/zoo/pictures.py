"""Models that write text about pictures, each with its own way of letting the text see them."""

from typing import Any

import torch
import transformers
from torch.nn import functional
from transformers.models.mllama.configuration_mllama import MllamaTextConfig, MllamaVisionConfig

from benchmarks.zoo.architecture import BEGIN, SETTINGS, VOCABULARY, Architecture, Inputs, beside_text, older_than
from benchmarks.zoo.inputs import held, pictured, pixels, tokens

IMAGE = VOCABULARY - 1
TEXT: dict[str, Any] = SETTINGS | {"head_dim": 16}
VISION: dict[str, Any] = SETTINGS | {"image_size": 16, "patch_size": 4}
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}


def prefixed() -> Inputs:
    """A prefix that is seen both ways, picture and question, and two tokens of an answer."""
    inputs = pictured()
    return inputs | {"token_type_ids": functional.pad(torch.zeros_like(inputs["input_ids"][:, 2:]), (0, 2), value=1)}


def tiled() -> Inputs:
    """Pictures of two tiles and of one, which the text sees from its third real token on."""
    text = tokens(left=True)
    seen = text["attention_mask"].cumsum(1) > 2
    text["input_ids"][text["attention_mask"].cumsum(1) == 3] = VOCABULARY
    tiles = torch.tensor([[[1, 1]], [[1, 0]]])
    picture = torch.randn(2, 1, 2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    return text | {
        "pixel_values": picture,
        "aspect_ratio_ids": torch.tensor([[2], [1]]),
        "aspect_ratio_mask": tiles,
        "cross_attention_mask": seen[:, :, None, None] * tiles[:, None],
    }


def patches() -> Inputs:
    """Pictures of unequal size, all patches of a batch in one row; two by two they are a token."""
    text = tokens(left=True)
    ids = text["input_ids"].clamp_max(IMAGE - 3)
    for item, (start, count) in enumerate([(3, 8), (6, 4)]):
        # the mark that a picture begins stands before it
        ids[item, start - 1] = IMAGE - 2
        ids[item, start : start + count] = IMAGE
    return text | {
        "input_ids": ids,
        "pixel_values": torch.randn(48, 96, generator=torch.Generator().manual_seed(3)),
        "image_grid_thw": torch.tensor([[1, 4, 8], [1, 4, 4]]),
        "mm_token_type_ids": (ids == IMAGE).long(),
    }


def queried(count: int = 4) -> Inputs:
    """A picture that comes as so many tokens."""
    return held(count) | pixels()


def told_apart() -> Inputs:
    """Such a picture, whose tokens see each other both ways."""
    inputs = queried()
    return inputs | {"token_type_ids": (inputs["input_ids"] == IMAGE).long()}


def anyres() -> Inputs:
    """A picture as a whole and in two tiles, of four patches each: the rows of the joined tiles end in a token."""
    whole = torch.randn(2, 3, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    return queried(4 + 2 * (4 + 1)) | {"pixel_values": whole, "image_sizes": torch.tensor([[16, 32], [16, 32]])}


def cut() -> Inputs:
    """A picture in a list of one, that comes as four tokens."""
    inputs = queried()
    return inputs | {"pixel_values": inputs["pixel_values"][:, None]}


def marked() -> Inputs:
    """A picture in four places that a mask tells, whatever ids they have: here one that is never written."""
    inputs = queried()
    places = inputs["input_ids"] == IMAGE
    return inputs | {
        "input_ids": inputs["input_ids"].masked_fill(places, BEGIN),
        "image_embeds_position_mask": places.long(),
    }


QWEN_TOKENS = {
    "image_token_id": IMAGE,
    "video_token_id": IMAGE - 1,
    "vision_start_token_id": IMAGE - 2,
    "vision_end_token_id": IMAGE - 3,
}
QWEN_VISION = SETTINGS | {"depth": 2, "num_heads": 4, "patch_size": 4, "out_hidden_size": 64}
TILES = {"image_grid_pinpoints": [[16, 32], [32, 16]], "image_token_id": IMAGE, "vision_feature_layer": -1}
COARSE = VISION | {"patch_size": 8}


PICTURES: dict[str, Architecture] = {
    # a picture as a whole and in tiles
    "llava_next": beside_text(
        "LlavaNextForConditionalGeneration",
        anyres,
        "vision",
        text_config=transformers.LlamaConfig(**TEXT),
        vision_config=transformers.CLIPVisionConfig(**COARSE),
        **TILES,
    ),
    "llava_onevision": beside_text(
        "LlavaOnevisionForConditionalGeneration",
        anyres,
        "vision",
        text_config=transformers.Qwen2Config(**TEXT),
        vision_config=transformers.SiglipVisionConfig(**COARSE, vision_use_head=False),
        video_token_id=IMAGE - 1,
        **TILES,
    ),
    # patches are pooled, and those of a picture seen both ways
    "gemma3_pictures": beside_text(
        "Gemma3ForConditionalGeneration",
        told_apart,
        "vision",
        text_config=transformers.Gemma3TextConfig(
            **TEXT, sliding_window=8, query_pre_attn_scalar=16, layer_types=["sliding_attention", "full_attention"]
        ),
        vision_config=transformers.SiglipVisionConfig(**VISION, vision_use_head=False),
        mm_tokens_per_image=4,
        image_token_id=IMAGE,
        boi_token_index=IMAGE - 1,
        eoi_token_index=IMAGE - 2,
    ),
    # squares of patches are merged
    **{
        name.lower(): beside_text(
            f"{name}ForConditionalGeneration",
            cut,
            "vision",
            text_config=transformers.LlamaConfig(**TEXT),
            vision_config=VISION,
            scale_factor=2,
            image_token_id=IMAGE,
        )
        for name in ("Idefics3", "SmolVLM")
    },
    "internvl": beside_text(
        "InternVLForConditionalGeneration",
        queried,
        "vision",
        text_config=transformers.Qwen2Config(**TEXT),
        vision_config=VISION | {"image_size": [16, 16], "patch_size": [4, 4]},
        image_token_id=IMAGE,
        image_seq_length=4,
    ),
    # the first layer that sees looks within windows
    "qwen2_5_vl": beside_text(
        "Qwen2_5_VLForConditionalGeneration",
        patches,
        "vision",
        text_config=SETTINGS | {"rope_parameters": MROPE},
        vision_config=QWEN_VISION | {"window_size": 16, "fullatt_block_indexes": [1]},
        **QWEN_TOKENS,
    ),
    "qwen3_vl": beside_text(
        "Qwen3VLForConditionalGeneration",
        patches,
        "vision",
        text_config=TEXT | {"rope_parameters": {**MROPE, "mrope_interleaved": True}},
        vision_config=QWEN_VISION | {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]},
        **QWEN_TOKENS,
    ),
    # picture and question are seen both ways
    "paligemma": Architecture(
        model="PaliGemmaForConditionalGeneration",
        make_inputs=prefixed,
        layers={"decoder": (0, 1), "vision": (0, 1)},
        generates=True,
        settings={
            "text_config": transformers.GemmaConfig(**TEXT),
            "vision_config": transformers.SiglipVisionConfig(**VISION, projection_dim=64, vision_use_head=False),
            "projection_dim": 64,
            "image_token_index": IMAGE,
        },
    ),
    # layers of its decoder look at the picture alone
    "mllama": Architecture(
        model="MllamaForConditionalGeneration",
        make_inputs=tiled,
        layers={"decoder": (0, 2), "cross": (1,), "vision": (0, 1, 2)},
        generates=True,
        settings={
            "text_config": MllamaTextConfig(
                **SETTINGS | {"num_hidden_layers": 3, "cross_attention_layers": [1]},
                rope_parameters={"rope_type": "default", "rope_theta": 1e4},
            ),
            "vision_config": MllamaVisionConfig(
                **VISION | {"attention_heads": 4, "num_global_layers": 1, "max_num_tiles": 2},
                vision_output_dim=128,
                intermediate_layers_indices=[0],
                supported_aspect_ratios=[[1, 1], [1, 2], [2, 1]],
            ),
            "image_token_index": VOCABULARY,
        },
    ),
    # each picture of a batch is a call of its own
    "qwen2_vl": Architecture(
        model="Qwen2VLForConditionalGeneration",
        make_inputs=patches,
        layers={"decoder": (0, 1), "vision": (0, 1)},
        generates=True,
        settings={
            "text_config": SETTINGS | {"rope_parameters": MROPE},
            "vision_config": {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 4, "mlp_ratio": 2}
            | {"patch_size": 4},
            **QWEN_TOKENS,
        },
    ),
    # learned queries gather the picture
    "blip_2": Architecture(
        model="Blip2ForConditionalGeneration",
        make_inputs=queried,
        layers={"decoder": (0, 1), "vision": (0, 1), "queries": (0, 1), "resampler": (0,)},
        generates=True,
        # older versions have eager code alone for its queries, which no witness sees beside FlexAttention
        eager_parts=() if transformers.Blip2QFormerModel._supports_sdpa else ("qformer_config",),
        refuses=() if transformers.Blip2QFormerModel._supports_sdpa else ("flex_attention",),
        settings={
            "text_config": transformers.OPTConfig(
                **SETTINGS | {"ffn_dim": 96, "word_embed_proj_dim": 64, "dropout": 0.0}
            ),
            "vision_config": transformers.Blip2VisionConfig(**VISION),
            "qformer_config": transformers.Blip2QFormerConfig(
                **SETTINGS | {"encoder_hidden_size": 64, "cross_attention_frequency": 2}
            ),
            "num_query_tokens": 4,
            "image_token_index": IMAGE,
        },
    ),
    # a mask says where the picture stands
    "kosmos_2": Architecture(
        model="Kosmos2ForConditionalGeneration",
        make_inputs=marked,
        layers={"decoder": (0, 1), "vision": (0, 1), "resampler": (0,)},
        generates=True,
        settings={
            "text_config": SETTINGS
            | {"embed_dim": 64, "layers": 2, "ffn_dim": 96, "attention_heads": 4, "dropout": 0.0},
            "vision_config": VISION,
            "latent_query_num": 4,
        },
        # in a step its positions count padding
        steps_agree=False,
    ),
    # the picture is put before the text
    "git": Architecture(
        model="GitForCausalLM",
        make_inputs=lambda: tokens(left=True) | pixels(),
        layers={"decoder": (0, 1), "vision": (0, 1)},
        generates=True,
        settings={"vision_config": VISION},
        # a step counted the picture twice
        steps_agree=not older_than("5.18"),
        before_text=17,
    ),
}
