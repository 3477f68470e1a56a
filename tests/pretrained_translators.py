"""Tiny pretrained translators with random weights, each with a tokenizer of its own family, trained on a few lines."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

SOURCES = [
    "the cat sleeps on the mat",
    "a small dog runs fast in the park",
    "two birds sing in the old tree",
    "she reads a book about the sea",
]
TARGETS = [
    "le chat dort sur le tapis",
    "un petit chien court vite dans le parc",
    "deux oiseaux chantent dans le vieil arbre",
    "elle lit un livre sur la mer",
]
SIZES: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "init_std": 0.3,
    "attention_dropout": 0.0,
    "encoder_layerdrop": 0.0,
    "decoder_layerdrop": 0.0,
}
# what the loader is told of each: languages are given where a model has several
LANGUAGES: dict[str, dict[str, str]] = {
    "marian": {},
    "marian_many": {"target_language": "fra"},
    "m2m_100": {"source_language": "en", "target_language": "fr"},
    "nllb": {"source_language": "eng_Latn", "target_language": "fra_Latn"},
    "mbart": {"source_language": "en_XX", "target_language": "fr_XX"},
    "mbart_50": {"source_language": "en_XX", "target_language": "fr_XX"},
    "t5": {},
    "bart": {},
}


def make(name: str, folder: Path) -> Path:
    """The folder of a translator of this family, as save_pretrained writes it."""
    from regard.models.pretrained.needs import quiet

    with quiet():
        write(name, folder)
    return folder


def write(name: str, folder: Path) -> None:
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    tokenizer, model, settings = MAKERS[name](folder)
    config = getattr(transformers, model).config_class(**settings)
    module = getattr(transformers, model)(config).eval()
    for parameter in module.parameters():
        # biases too, so that nothing is 0 by chance
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    if hasattr(module, "final_logits_bias"):
        module.final_logits_bias.normal_()
    if name.startswith("marian"):
        # as their folders have it: the start is an embedding of zeros, and never written
        module.generation_config.bad_words_ids = [[settings["pad_token_id"]]]
        module.get_input_embeddings().weight.data[settings["pad_token_id"]] = 0.0
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def sentencepiece_model(lines: list[str], path: Path, *, type: str = "bpe", size: int = 120, **settings: Any) -> Path:
    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 5),
        model_writer=written,
        vocab_size=size,
        model_type=type,
        hard_vocab_limit=False,
        minloglevel=2,
        **settings,
    )
    path.write_bytes(written.getvalue())
    return path


def pieces_of(path: Path) -> list[str]:
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return [model.id_to_piece(id) for id in range(model.get_piece_size())]


def marian(folder: Path, *, codes: tuple[str, ...] = ()) -> Any:
    from transformers import MarianTokenizer

    source = sentencepiece_model(SOURCES, folder / "source.spm")
    target = sentencepiece_model(TARGETS, folder / "target.spm")
    tokens = ["</s>", "<unk>", *codes, *pieces_of(source), *pieces_of(target)]
    tokens = [token for token in dict.fromkeys(tokens) if token != "<s>"]
    vocabulary = {token: id for id, token in enumerate([*tokens, "<pad>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    files = {"source_spm": source, "target_spm": target, "vocab": folder / "vocab.json"}
    tokenizer = MarianTokenizer(**{name: str(path) for name, path in files.items()}, model_max_length=64)
    pad = vocabulary["<pad>"]
    ids = {"pad_token_id": pad, "decoder_start_token_id": pad, "eos_token_id": 0, "forced_eos_token_id": 0}
    settings = SIZES | ids | {"vocab_size": len(vocabulary)}
    return tokenizer, "MarianMTModel", settings


def m2m_100(folder: Path) -> Any:
    from transformers import M2M100Tokenizer

    model = sentencepiece_model(SOURCES + TARGETS, folder / "sentencepiece.bpe.model")
    tokens = dict.fromkeys(["<s>", "<pad>", "</s>", "<unk>", *pieces_of(model)])
    (folder / "vocab.json").write_text(json.dumps({token: id for id, token in enumerate(tokens)}), encoding="utf-8")
    tokenizer = M2M100Tokenizer(str(folder / "vocab.json"), str(model), model_max_length=64)
    settings = SIZES | {"vocab_size": len(tokens) + len(tokenizer.lang_code_to_id) + 8, "decoder_start_token_id": 2}
    return tokenizer, "M2M100ForConditionalGeneration", settings


def nllb(folder: Path) -> Any:
    from transformers import NllbTokenizer

    letters = sorted({"▁", *"".join(SOURCES + TARGETS).replace(" ", "")})
    vocabulary = {token: id for id, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", *letters])}
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("▁", "l"), ("▁l", "e")]
    for first, second in merges:
        vocabulary.setdefault(first + second, len(vocabulary))
    tokenizer = NllbTokenizer(
        vocab=vocabulary,
        merges=merges,
        extra_special_tokens=["eng_Latn", "fra_Latn", "deu_Latn", "zho_Hans"],
        model_max_length=64,
    )
    settings = SIZES | {"vocab_size": len(tokenizer) + 2, "decoder_start_token_id": 2}
    return tokenizer, "M2M100ForConditionalGeneration", settings


def unigram(folder: Path, special: list[str], last: list[str]) -> list[tuple[str, float]]:
    """Pieces with scores, with the special tokens of a family first and last."""
    import sentencepiece

    path = sentencepiece_model(SOURCES + TARGETS, folder / "unigram", type="unigram", size=70)
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    path.unlink()
    own = [(model.id_to_piece(id), model.get_score(id)) for id in range(3, model.get_piece_size())]
    return [*((token, 0.0) for token in special), *own, *((token, 0.0) for token in last)]


def mbart(folder: Path) -> Any:
    from transformers import MBartTokenizer
    from transformers.models.mbart.tokenization_mbart import FAIRSEQ_LANGUAGE_CODES

    vocabulary = unigram(folder, ["<s>", "<pad>", "</s>", "<unk>"], [*FAIRSEQ_LANGUAGE_CODES, "<mask>"])
    tokenizer = MBartTokenizer(vocab=vocabulary, model_max_length=64)
    ids = {"pad_token_id": 1, "eos_token_id": 2, "forced_eos_token_id": 2}
    ids["decoder_start_token_id"] = tokenizer.convert_tokens_to_ids("fr_XX")
    return tokenizer, "MBartForConditionalGeneration", SIZES | ids | {"vocab_size": len(tokenizer)}


def mbart_50(folder: Path) -> Any:
    from transformers import MBart50Tokenizer
    from transformers.models.mbart50.tokenization_mbart50 import FAIRSEQ_LANGUAGE_CODES

    vocabulary = unigram(folder, ["<s>", "<pad>", "</s>", "<unk>"], [*FAIRSEQ_LANGUAGE_CODES, "<mask>"])
    tokenizer = MBart50Tokenizer(vocab=vocabulary, model_max_length=64)
    ids = {"pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": 2}
    return tokenizer, "MBartForConditionalGeneration", SIZES | ids | {"vocab_size": len(tokenizer)}


def t5(folder: Path) -> Any:
    from transformers import T5Tokenizer

    vocabulary = unigram(folder, ["<pad>", "</s>", "<unk>"], [f"<extra_id_{id}>" for id in reversed(range(4))])
    tokenizer = T5Tokenizer(vocab=vocabulary, extra_ids=4, model_max_length=64)
    settings = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
    tasks = {"translation_en_to_fr": {"prefix": "translate English to French: "}}
    # as T5's, more ids than tokens
    sizes = {"vocab_size": len(tokenizer) + 5, "feed_forward_proj": "gated-gelu", "task_specific_params": tasks}
    return tokenizer, "T5ForConditionalGeneration", settings | sizes


def bart(folder: Path) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokens = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "the"]
    merges = [("t", "h"), ("th", "e")]
    backend = Tokenizer(models.BPE({token: id for id, token in enumerate(tokens)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],
    )
    ids = {"forced_bos_token_id": 0, "forced_eos_token_id": 2, "decoder_start_token_id": 2}
    return tokenizer, "BartForConditionalGeneration", SIZES | ids | {"vocab_size": len(tokens)}


MAKERS: dict[str, Callable[[Path], Any]] = {
    "marian": marian,
    "marian_many": lambda folder: marian(folder, codes=(">>fra<<", ">>deu<<")),
    "m2m_100": m2m_100,
    "nllb": nllb,
    "mbart": mbart,
    "mbart_50": mbart_50,
    "t5": t5,
    "bart": bart,
}
