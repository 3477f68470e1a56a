"""Tiny models that see, with random weights and the real processors of their families, as folders that users bring."""

import json
from pathlib import Path

import torch
import transformers
from benchmarks.zoo.architecture import scatter
from tests.media_inputs import image_processor
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

WORDS = ["What is on the mat? The cat sat on it. USER ASSISTANT user assistant image picture two one red blue."] * 2
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "head_dim": 8,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    # random weights would end a text as soon as write anything else
    "eos_token_id": None,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 7,
}
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def tokenizer(*special, **settings):
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    known = ["<pad>", "<begin>", "<end>", *special]
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=known, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(WORDS, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<begin>",
        eos_token="<end>",
        pad_token="<pad>",
        model_input_names=["input_ids", "attention_mask"],
        **settings,
    )


CLIP_SIZES = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}


def vit():
    config = transformers.ViTConfig(**VISION, num_labels=3)
    return (
        transformers.ViTForImageClassification(config),
        image_processor("vit", "ViT", size={"height": 28, "width": 28}),
    )


def dinov2():
    config = transformers.Dinov2WithRegistersConfig(**VISION, num_register_tokens=3, mlp_ratio=2)
    processor = image_processor("bit", "Bit", size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28})
    return transformers.Dinov2WithRegistersModel(config), processor


def clip():
    text = {**TEXT, "vocab_size": 320, "eos_token_id": 2}
    config = transformers.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)
    parts = image_processor("clip", "CLIP", **CLIP_SIZES), tokenizer()
    return transformers.CLIPModel(config), transformers.CLIPProcessor(*parts)


def siglip():
    text = {**TEXT, "vocab_size": 320, "eos_token_id": 2}
    config = transformers.SiglipConfig(text_config=text, vision_config=VISION)
    parts = image_processor("siglip", "Siglip", size={"height": 28, "width": 28}), tokenizer()
    return transformers.SiglipModel(config), transformers.SiglipProcessor(*parts)


def llava():
    words = tokenizer("<image>", chat_template=TEMPLATE.replace("IMAGE", "<image>\n"))
    text = transformers.LlamaConfig(**TEXT, vocab_size=len(words))
    config = transformers.LlavaConfig(
        text_config=text,
        vision_config=transformers.CLIPVisionConfig(**VISION),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )
    processor = transformers.LlavaProcessor(
        image_processor("clip", "CLIP", **CLIP_SIZES),
        words,
        patch_size=7,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=words.chat_template,
    )
    return transformers.LlavaForConditionalGeneration(config), processor


QWEN = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
QWEN_SIZES = {"size": {"shortest_edge": 28 * 28, "longest_edge": 56 * 84}, "patch_size": 7, "merge_size": 2}
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}


def _qwen(words):
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    return dict(zip(names, words.convert_tokens_to_ids(list(QWEN)), strict=True))


def qwen2_vl():
    template = TEMPLATE.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    words = tokenizer(*QWEN, chat_template=template)
    config = transformers.Qwen2VLConfig(
        text_config={**TEXT, "vocab_size": len(words), "rope_parameters": MROPE},
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2, "patch_size": 7},
        **_qwen(words),
    )
    parts = image_processor("qwen2_vl", "Qwen2VL", **QWEN_SIZES), words
    return transformers.Qwen2VLForConditionalGeneration(config), ("Qwen2VLProcessor", *parts)


def llava_next(kind="LlavaNext"):
    family = {"LlavaNext": "llava_next", "LlavaOnevision": "llava_onevision"}[kind]
    template = TEMPLATE.replace("IMAGE", "<image>\n")
    words = tokenizer("<image>", "<video>", chat_template=template)
    is_next = kind == "LlavaNext"
    grids = [[28, 56], [56, 28], [56, 56]]
    towers = transformers.CLIPVisionConfig if is_next else transformers.SiglipVisionConfig
    text = transformers.LlamaConfig if is_next else transformers.Qwen2Config
    config = getattr(transformers, f"{kind}Config")(
        text_config=text(**TEXT, vocab_size=len(words)),
        vision_config=towers(**VISION, **({} if is_next else {"vision_use_head": False})),
        image_grid_pinpoints=grids,
        vision_feature_layer=-1,
        tie_word_embeddings=False,
        image_token_id=words.convert_tokens_to_ids("<image>"),
        **({} if is_next else {"video_token_id": words.convert_tokens_to_ids("<video>")}),
    )
    sizes = (
        {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
        if is_next
        else {"size": {"height": 28, "width": 28}}
    )
    images = image_processor(family, kind, image_grid_pinpoints=grids, **sizes)
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
    settings = {"patch_size": 7, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    if is_next:
        return model, transformers.LlavaNextProcessor(images, words, **settings, chat_template=template)
    settings = {"num_image_tokens": 16, "vision_feature_select_strategy": "full"}
    return model, ("LlavaOnevisionProcessor", images, words, settings)


def llava_onevision():
    return llava_next("LlavaOnevision")


def paligemma():
    words = tokenizer("<image>", extra_special_tokens={"image_token": "<image>"})
    words.add_tokens([f"<loc{index:04}>" for index in range(4)])
    config = transformers.PaliGemmaConfig(
        text_config=transformers.GemmaConfig(**TEXT, vocab_size=len(words)),
        vision_config=transformers.SiglipVisionConfig(**VISION, projection_dim=32, vision_use_head=False),
        projection_dim=32,
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )
    images = image_processor("siglip", "Siglip", size={"height": 28, "width": 28})
    images.image_seq_length = 16
    return transformers.PaliGemmaForConditionalGeneration(config), transformers.PaliGemmaProcessor(images, words)


GEMMA = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}


def gemma3():
    template = TEMPLATE.replace("IMAGE", "<start_of_image>")
    words = tokenizer(*GEMMA.values(), chat_template=template, extra_special_tokens=GEMMA)
    text = {
        **TEXT,
        "sliding_window": 512,
        "query_pre_attn_scalar": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    }
    config = transformers.Gemma3Config(
        text_config=transformers.Gemma3TextConfig(**text, vocab_size=len(words)),
        vision_config=transformers.SiglipVisionConfig(**VISION, vision_use_head=False),
        mm_tokens_per_image=4,
        image_token_id=words.convert_tokens_to_ids("<image_soft_token>"),
        boi_token_index=words.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=words.convert_tokens_to_ids("<end_of_image>"),
    )
    images = image_processor(
        "gemma3",
        "Gemma3",
        size={"height": 28, "width": 28},
        do_pan_and_scan=True,
        pan_and_scan_min_crop_size=10,
        pan_and_scan_max_num_crops=2,
        pan_and_scan_min_ratio_to_activate=1.1,
    )
    model = transformers.Gemma3ForConditionalGeneration(config)
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.2)
    return model, transformers.Gemma3Processor(images, words, image_seq_length=4, chat_template=template)


TILES = [f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)]
IDEFICS = {
    "image_token": "<image>",
    "fake_image_token": "<fake_token_around_image>",
    "global_image_token": "<global-img>",
    "end_of_utterance_token": "<end_of_utterance>",
}


def idefics3(kind="Idefics3"):
    template = TEMPLATE.replace("IMAGE", "<image>")
    words = tokenizer(*IDEFICS.values(), *TILES, chat_template=template, extra_special_tokens=IDEFICS)
    config = getattr(transformers, f"{kind}Config")(
        text_config=transformers.LlamaConfig(**TEXT, vocab_size=len(words)),
        vision_config=VISION,
        scale_factor=2,
        image_token_id=words.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=False,
        pad_token_id=0,
    )
    sizes = {"size": {"longest_edge": 56}, "max_image_size": {"longest_edge": 28}}
    images = image_processor(kind.lower(), kind, **sizes)
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
    if kind == "SmolVLM":
        return model, ("SmolVLMProcessor", images, words, {"image_seq_len": 4})
    return model, transformers.Idefics3Processor(images, words, image_seq_len=4, chat_template=template)


def smolvlm():
    return idefics3("SmolVLM")


INTERN = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}


def internvl():
    template = TEMPLATE.replace("IMAGE", "<IMG_CONTEXT>\n")
    words = tokenizer(*INTERN.values(), chat_template=template, extra_special_tokens=INTERN)
    vision = {**VISION, "image_size": [28, 28], "patch_size": [7, 7]}
    config = transformers.InternVLConfig(
        text_config=transformers.Qwen2Config(**TEXT, vocab_size=len(words)),
        vision_config=transformers.InternVLVisionConfig(**vision),
        image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    sizes = {"size": {"height": 28, "width": 28}, "crop_to_patches": True, "min_patches": 1, "max_patches": 4}
    images = image_processor("got_ocr2", "GotOcr2", **sizes)
    return transformers.InternVLForConditionalGeneration(config), (
        "InternVLProcessor",
        images,
        words,
        {"image_seq_length": 4},
    )


def qwen2_5_vl():
    template = TEMPLATE.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    words = tokenizer(*QWEN, chat_template=template)
    vision = {"depth": 2, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 4, "intermediate_size": 48}
    config = transformers.Qwen2_5_VLConfig(
        text_config={**TEXT, "vocab_size": len(words), "rope_parameters": MROPE},
        vision_config={**vision, "patch_size": 7, "window_size": 28, "fullatt_block_indexes": [1]},
        **_qwen(words),
    )
    parts = image_processor("qwen2_vl", "Qwen2VL", **QWEN_SIZES), words
    return transformers.Qwen2_5_VLForConditionalGeneration(config), ("Qwen2_5_VLProcessor", *parts)


def qwen3_vl():
    template = TEMPLATE.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    words = tokenizer(*QWEN, chat_template=template)
    vision = {"depth": 2, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 4, "intermediate_size": 48}
    config = transformers.Qwen3VLConfig(
        text_config={**TEXT, "vocab_size": len(words), "rope_parameters": {**MROPE, "mrope_interleaved": True}},
        vision_config={**vision, "patch_size": 7, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]},
        tie_word_embeddings=False,
        **_qwen(words),
    )
    parts = image_processor("qwen2_vl", "Qwen2VL", **QWEN_SIZES), words
    return transformers.Qwen3VLForConditionalGeneration(config), ("Qwen3VLProcessor", *parts)


def mllama():
    template = TEMPLATE.replace("IMAGE", "<|image|>")
    words = tokenizer(chat_template=template)
    config = transformers.MllamaConfig(
        text_config={
            **{name: value for name, value in TEXT.items() if name != "head_dim"},
            "vocab_size": len(words),
            "num_hidden_layers": 3,
            "cross_attention_layers": [1],
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        },
        vision_config={
            **VISION,
            "attention_heads": 4,
            "num_global_layers": 1,
            "max_num_tiles": 4,
            "vision_output_dim": 64,
            "intermediate_layers_indices": [0],
        },
        image_token_index=len(words),
    )
    words.add_special_tokens({"additional_special_tokens": ["<|image|>"]})
    images = image_processor("mllama", "Mllama", size={"height": 28, "width": 28}, max_image_tiles=4)
    model = transformers.MllamaForConditionalGeneration(config)
    with torch.no_grad():
        # gates that begin shut would hide the picture
        for name, parameter in model.named_parameters():
            if "gate" in name:
                parameter.fill_(0.7)
    return model, transformers.MllamaProcessor(images, words, chat_template=template)


def blip_2():
    words = tokenizer("<image>")
    config = transformers.Blip2Config(
        text_config=transformers.OPTConfig(
            vocab_size=len(words), hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
            word_embed_proj_dim=32, max_position_embeddings=512, pad_token_id=0, bos_token_id=1, eos_token_id=None,
        ).to_dict(),
        vision_config={**VISION},
        qformer_config={**TEXT, "vocab_size": 100, "encoder_hidden_size": 32, "cross_attention_frequency": 1},
        num_query_tokens=4,
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    images = image_processor("blip", "Blip", size={"height": 28, "width": 28})
    return transformers.Blip2ForConditionalGeneration(config), transformers.Blip2Processor(
        images, words, num_query_tokens=4
    )


FAMILIES = {
    "vit": vit,
    "dinov2": dinov2,
    "clip": clip,
    "siglip": siglip,
    "llava": llava,
    "llava_next": llava_next,
    "llava_onevision": llava_onevision,
    "paligemma": paligemma,
    "gemma3": gemma3,
    "idefics3": idefics3,
    "smolvlm": smolvlm,
    "internvl": internvl,
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "mllama": mllama,
    "blip_2": blip_2,
}
# those that write about pictures
WRITERS = tuple(name for name in FAMILIES if name not in ("vit", "dinov2", "clip", "siglip"))
# in which each picture of a text has its places there
PLACED = tuple(name for name in WRITERS if name not in ("mllama", "blip_2"))


def make(name, folder):
    """The folder of a tiny model of a family, as `save_pretrained` writes it."""
    torch.manual_seed(0)
    module, processor = FAMILIES[name]()
    scatter(module, 1.5)
    module.eval().save_pretrained(folder)
    if isinstance(processor, tuple):
        # one that has a part for videos, which needs torchvision
        name, images, words, *more = processor
        images.save_pretrained(folder)
        words.save_pretrained(folder)
        settings = Path(folder, "preprocessor_config.json")
        values = json.loads(settings.read_text(encoding="utf-8"))
        settings.write_text(json.dumps({**values, "processor_class": name}), encoding="utf-8")
        own = {"processor_class": name, **(more[0] if more else {})}
        Path(folder, "processor_config.json").write_text(json.dumps(own), encoding="utf-8")
    else:
        processor.save_pretrained(folder)
    return Path(folder)
