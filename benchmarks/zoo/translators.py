"""Encoder–decoders of text and of speech: three kinds of attention each."""

from collections.abc import Callable
from typing import Any

from benchmarks.zoo.architecture import BEGIN, UNKNOWN, VOCABULARY, Architecture, Inputs, older_than
from benchmarks.zoo.inputs import frames, spectrum, speech, translation

SIZES: dict[str, Any] = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 96,
    "decoder_ffn_dim": 96,
    "decoder_start_token_id": BEGIN,
    "forced_eos_token_id": None,
}


def translator(
    model: str, *, inputs: Callable[[], Inputs] = translation, unread: tuple[str, ...] = (), gain: float = 1.5,
    refuses: tuple[str, ...] = (), generates: bool = True, steps_agree: bool = True, **settings: Any,
) -> Architecture:  # fmt: skip
    return Architecture(
        model=model,
        make_inputs=inputs,
        layers={kind: (0, 1) for kind in ("encoder", "decoder", "cross") if kind not in unread},
        unread=dict.fromkeys(unread, (0, 1)),
        generates=generates,
        settings=SIZES | settings,
        gain=gain,
        refuses=refuses,
        steps_agree=steps_agree,
    )


def t5(model: str, **settings: Any) -> Architecture:
    sizes = {"num_layers": 2, "num_decoder_layers": 2, "num_heads": 4, "d_kv": 16, "d_ff": 96}
    # T5 does not scale its scores: smaller weights leave as much to see. Its position bias has a batch axis of 1, which
    # FlexAttention as transformers calls it cannot index
    return translator(model, gain=0.8, refuses=("flex_attention",), **sizes | settings)


TRANSLATORS: dict[str, Architecture] = {
    "bart": translator("BartForConditionalGeneration"),
    "mbart": translator("MBartForConditionalGeneration"),
    "pegasus": translator("PegasusForConditionalGeneration"),
    "pegasus_x": translator("PegasusXForConditionalGeneration", unread=("encoder",), block_size=4, num_global_tokens=2),
    "marian": translator("MarianMTModel", gain=1.0),
    "blenderbot": translator("BlenderbotForConditionalGeneration"),
    "blenderbot_small": translator("BlenderbotSmallForConditionalGeneration"),
    "m2m_100": translator("M2M100ForConditionalGeneration"),
    "plbart": translator("PLBartForConditionalGeneration"),
    "fsmt": translator(
        "FSMTForConditionalGeneration",
        # a step did not count the positions before it
        steps_agree=not older_than("5.18"),
        src_vocab_size=VOCABULARY,
        tgt_vocab_size=VOCABULARY,
        scale_embedding=False,
    ),
    "mvp": translator("MvpForConditionalGeneration"),
    "prophetnet": translator(
        "ProphetNetForConditionalGeneration",
        num_hidden_layers=UNKNOWN,
        encoder_layers=UNKNOWN,
        decoder_layers=UNKNOWN,
        num_encoder_layers=2,
        num_decoder_layers=2,
        num_encoder_attention_heads=4,
        num_decoder_attention_heads=4,
        ngram=2,
        unread=("decoder", "cross"),
    ),
    "led": translator(
        "LEDForConditionalGeneration",
        unread=("encoder",),
        attention_window=4,
        max_encoder_position_embeddings=64,
        max_decoder_position_embeddings=64,
    ),
    "bigbird_pegasus": translator("BigBirdPegasusForConditionalGeneration", attention_type="original_full"),
    "t5": t5("T5ForConditionalGeneration"),
    "mt5": t5("MT5ForConditionalGeneration"),
    "umt5": t5("UMT5ForConditionalGeneration"),
    "longt5": t5("LongT5ForConditionalGeneration", unread=("encoder",), local_radius=4, encoder_attention_type="local"),
    "switch_transformers": t5(
        "SwitchTransformersForConditionalGeneration",
        num_experts=2,
        num_sparse_encoder_layers=1,
        num_sparse_decoder_layers=1,
        expert_capacity=64,
    ),
    "pop2piano": t5("Pop2PianoForConditionalGeneration", generates=False),
    "whisper": translator(
        "WhisperForConditionalGeneration",
        inputs=spectrum,
        num_mel_bins=8,
        max_source_positions=15,
        max_target_positions=64,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    ),
    "moonshine": translator(
        "MoonshineForConditionalGeneration",
        inputs=speech,
        encoder_num_hidden_layers=2,
        decoder_num_hidden_layers=2,
        encoder_num_attention_heads=4,
        decoder_num_attention_heads=4,
        num_key_value_heads=4,
        encoder_num_key_value_heads=4,
        decoder_num_key_value_heads=4,
    ),
    "speech_to_text": translator(
        "Speech2TextForConditionalGeneration",
        inputs=frames,
        input_feat_per_channel=8,
        num_conv_layers=1,
        conv_kernel_sizes=[3],
        conv_channels=16,
        max_source_positions=64,
        max_target_positions=64,
    ),
}
