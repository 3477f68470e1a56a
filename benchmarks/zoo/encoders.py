"""Encoders of text, of pictures and of sound."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
import transformers

from benchmarks.zoo.architecture import DTYPES, FLOAT32, SETTINGS, UNKNOWN, VOCABULARY, Architecture, Inputs, Layers
from benchmarks.zoo.inputs import pixels, sound, tokens, unmixed

CONVOLUTIONS = {
    "conv_dim": [16, 16],
    "conv_kernel": [5, 3],
    "conv_stride": [4, 2],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "mask_time_prob": 0.0,
}


def encoder(
    model: str, *, layers: Layers = (0, 1), unread: Layers = (), gain: float = 1.5,
    inputs: Callable[[], Inputs] = tokens, kind: str = "encoder", dtypes: tuple[torch.dtype, ...] = DTYPES,
    **settings: Any,
) -> Architecture:  # fmt: skip
    return Architecture(
        model=model,
        make_inputs=inputs,
        layers={kind: layers} if layers else {},
        unread={kind: unread} if unread else {},
        settings=settings,
        gain=gain,
        dtypes=dtypes,
    )


def vision(model: str, *, inputs: Callable[[], Inputs] = pixels, **settings: Any) -> Architecture:
    return encoder(model, kind="vision", inputs=inputs, **{"image_size": 16, "patch_size": 4} | settings)


# float32 alone where transformers mixes dtypes or takes a Fourier transform
ENCODERS: dict[str, Architecture] = {
    "bert": encoder("BertModel"),
    "roberta": encoder("RobertaModel"),
    "xlm_roberta": encoder("XLMRobertaModel"),
    "electra": encoder("ElectraModel", embedding_size=64),
    "camembert": encoder("CamembertModel"),
    "ernie": encoder("ErnieModel"),
    "megatron_bert": encoder("MegatronBertModel"),
    "rembert": encoder("RemBertModel", input_embedding_size=64),
    "roformer": encoder("RoFormerModel", embedding_size=64),
    "data2vec_text": encoder("Data2VecTextModel"),
    "distilbert": encoder("DistilBertModel", dim=64, n_heads=4, n_layers=2, hidden_dim=96),
    "albert": encoder("AlbertModel", embedding_size=32),
    "mpnet": encoder("MPNetModel"),
    "deberta": encoder("DebertaModel", dtypes=FLOAT32, relative_attention=True, pos_att_type=["c2p", "p2c"]),
    "deberta_v2": encoder("DebertaV2Model", relative_attention=True, pos_att_type=["c2p", "p2c"], share_att_key=True),
    "modernbert": encoder("ModernBertModel", local_attention=6, layer_types=["full_attention", "sliding_attention"]),
    "nomic_bert": encoder("NomicBertModel"),
    "eurobert": encoder("EuroBertModel"),
    "big_bird": encoder("BigBirdModel", attention_type="original_full"),
    "longformer": encoder("LongformerModel", layers=(), unread=(0, 1), attention_window=4),
    "reformer": encoder(
        "ReformerModel",
        layers=(),
        unread=(0, 1),
        attn_layers=["local", "lsh"],
        attention_head_size=16,
        feed_forward_size=96,
        axial_pos_embds=False,
        local_attn_chunk_length=4,
        lsh_attn_chunk_length=4,
        num_buckets=4,
        is_decoder=False,
    ),
    "convbert": encoder("ConvBertModel", embedding_size=64, head_ratio=2),
    "xlnet": encoder(
        "XLNetModel",
        dtypes=FLOAT32,
        initializer_range=0.19,
        max_position_embeddings=UNKNOWN,
        d_model=64,
        n_layer=2,
        n_head=4,
        d_inner=96,
    ),
    "xlm": encoder("XLMModel", emb_dim=64, n_layers=2, n_heads=4, n_words=VOCABULARY),
    "flaubert": encoder("FlaubertModel", emb_dim=64, n_layers=2, n_heads=4, n_words=VOCABULARY),
    "fnet": encoder(
        "FNetModel", dtypes=FLOAT32, layers=(), unread=(0, 1), inputs=lambda: {"input_ids": tokens()["input_ids"]}
    ),
    "nystromformer": encoder(
        "NystromformerModel",
        dtypes=FLOAT32,
        layers=(),
        unread=(0, 1),
        num_landmarks=4,
        segment_means_seq_len=12,
        inputs=lambda: {"input_ids": tokens(12)["input_ids"]},
    ),
    "squeezebert": encoder("SqueezeBertModel", embedding_size=64),
    "funnel": encoder(
        "FunnelBaseModel",
        num_hidden_layers=UNKNOWN,
        # later blocks pool their queries
        layers=(0,),
        unread=(1, 2),
        block_sizes=[1, 1, 1],
        d_model=64,
        n_head=4,
        d_head=16,
        d_inner=96,
    ),
    "mobilebert": encoder(
        "MobileBertModel", gain=0.9, embedding_size=32, intra_bottleneck_size=32, true_hidden_size=32
    ),
    "esm": encoder("EsmModel", mask_token_id=3, position_embedding_type="rotary"),
    "splinter": encoder("SplinterModel"),
    "vit": vision("ViTModel"),
    "deit": vision("DeiTModel"),
    "dinov2": vision("Dinov2Model"),
    "dinov3": vision("DINOv3ViTModel", num_register_tokens=2),
    "ijepa": vision("IJepaModel"),
    "beit": vision("BeitModel", use_relative_position_bias=True),
    "yolos": vision("YolosModel", image_size=[16, 16], num_detection_tokens=3),
    "vit_mae": vision("ViTMAEModel", inputs=unmixed, mask_ratio=0.0),
    "swin": vision(
        "SwinModel",
        # within windows
        layers=(),
        unread=(0, 1, 2),
        num_attention_heads=UNKNOWN,
        num_hidden_layers=UNKNOWN,
        hidden_size=UNKNOWN,
        embed_dim=16,
        depths=[2, 1],
        num_heads=[2, 4],
        window_size=2,
        patch_size=2,
    ),
    "siglip_vision": dataclasses.replace(vision("SiglipVisionModel"), layers={"vision": (0, 1), "resampler": (0,)}),
    "clip_vision": vision("CLIPVisionModel"),
    # CLIP reads text causally
    "clip_text": encoder("CLIPTextModel", kind="decoder"),
    "clip": Architecture(
        model="CLIPModel",
        make_inputs=lambda: tokens() | pixels(),
        layers={"decoder": (0, 1), "vision": (0, 1)},
        settings={"text_config": SETTINGS, "vision_config": SETTINGS | {"image_size": 16, "patch_size": 4}},
    ),
    "siglip": Architecture(
        model="SiglipModel",
        make_inputs=lambda: {"input_ids": tokens()["input_ids"]} | pixels(),
        layers={"encoder": (0, 1), "vision": (0, 1), "resampler": (0,)},
        settings={"text_config": SETTINGS, "vision_config": SETTINGS | {"image_size": 16, "patch_size": 4}},
    ),
    "detr": Architecture(
        model="DetrModel",
        gain=1.2,
        eager_parts=("backbone_config",),
        refuses=("flex_attention",),
        make_inputs=lambda: pixels(64),
        layers={"encoder": (0, 1), "decoder": (0, 1), "cross": (0, 1)},
        settings={
            "backbone_config": transformers.ResNetConfig(
                embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]
            ),
            "d_model": 64,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 96,
            "decoder_ffn_dim": 96,
            "num_queries": 5,
        },
    ),
    "wav2vec2": encoder("Wav2Vec2Model", inputs=sound, **CONVOLUTIONS),
    "hubert": encoder("HubertModel", inputs=sound, **CONVOLUTIONS),
    "wavlm": encoder("WavLMModel", inputs=sound, **CONVOLUTIONS),
}
