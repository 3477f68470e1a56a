"""The tokenizer in a GGUF file, as the files that Hugging Face keeps beside a model.

A byte-level file names the way in which its text was split before merging; to split otherwise gives other tokens,
silently, so that a way which is not known here is refused. The ways are those of llama.cpp, src/llama-vocab.cpp.

A SentencePiece file (Kudo and Richardson 2018, arxiv.org/abs/1808.06226) names a score for each token instead of
merges: of two neighbours, those merge first that make the token of the highest score. Characters without a token
become their bytes.
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard, TypeVar

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from regard.data.sentencepiece import SPACE, merges_by_score
from regard.errors import RegardError
from regard.models.pretrained.gguf_head import GGUFHead
from regard.models.pretrained.gguf_model import OTHER_WAY

T = TypeVar("T")

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
NAMED = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
KEY = "tokenizer.ggml"
BYTE_LEVEL = "gpt2"
SENTENCEPIECE = "llama"
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|{digits}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Splitting(NamedTuple):
    """How text is split before merging: by a regular expression, GPT-2's own if None; digits one by one if so."""

    pattern: str | None = None
    single_digits: bool = False
    # Llama 3 takes a word that is a token whole, whatever its merges
    ignore_merges: bool = False
    normalizes: bool = False
    adds_bos: bool = False


_LLAMA_3 = Splitting(WORDS.replace("{digits}", r"\p{N}{1,3}"), ignore_merges=True, adds_bos=True)
_QWEN_2 = Splitting(WORDS.replace("{digits}", r"\p{N}"), normalizes=True)
SPLITTINGS = {
    "gpt-2": Splitting(),
    "smollm": Splitting(single_digits=True),
    "starcoder": Splitting(single_digits=True),
    "llama-bpe": _LLAMA_3,
    "llama3": _LLAMA_3,
    "llama-v3": _LLAMA_3,
    "qwen2": _QWEN_2,
    "deepseek-r1-qwen": _QWEN_2,
}


def check_tokenizer(head: GGUFHead, vocab_size: int) -> None:
    """Raises RegardError for a tokenizer that is not known, or does not fit the model."""
    kind, tokens = head.metadata.get(f"{KEY}.model"), head.metadata.get(f"{KEY}.tokens")
    if kind not in (BYTE_LEVEL, SENTENCEPIECE):
        raise RegardError(f"{head.path}: its tokenizer is {kind!r}, not {BYTE_LEVEL} or {SENTENCEPIECE}; {OTHER_WAY}")
    if not _is_list(tokens, str) or len(set(tokens)) != len(tokens) or len(tokens) > vocab_size:
        raise RegardError(f"{head.path}: its tokens are not {vocab_size} different texts; fetch the file again")
    if not isinstance(head.metadata.get("tokenizer.chat_template", ""), str):
        raise RegardError(f"{head.path}: its chat template is no text; fetch the file again")
    if not _is_list(kinds := head.metadata.get(f"{KEY}.token_type", []), int) or len(kinds) not in (0, len(tokens)):
        raise RegardError(f"{head.path}: its tokens' types are not as many as its tokens; fetch the file again")
    for name in (*NAMED, "eot"):
        token = head.metadata.get(f"{KEY}.{name}_token_id", 0)
        if type(token) is not int or not 0 <= token < len(tokens):
            raise RegardError(f"{head.path}: its {name} token is {token!r} of {len(tokens)}; fetch the file again")
    if kind == SENTENCEPIECE:
        if not _is_list(scores := head.metadata.get(f"{KEY}.scores"), float) or not len(scores) == len(kinds) == len(
            tokens
        ):
            raise RegardError(f"{head.path}: its tokens have not a type and a score each; fetch the file again")
        if not all(map(math.isfinite, scores)):
            raise RegardError(f"{head.path}: a score of its tokens is no finite number; fetch the file again")
    else:
        if (name := head.metadata.get(f"{KEY}.pre")) not in SPLITTINGS:
            raise RegardError(f"{head.path}: it splits text as {name!r}, not {', '.join(SPLITTINGS)}; {OTHER_WAY}")
        _merges(head)


def special_ids(head: GGUFHead) -> dict[str, Any]:
    """The numbers of its special tokens, as generation_config.json names them; a turn's end is an end as well."""
    ids: dict[str, Any] = {
        f"{ours}_token_id": head.metadata[f"{KEY}.{name}_token_id"]
        for name, ours in NAMED.items()
        if ours != "unk" and f"{KEY}.{name}_token_id" in head.metadata
    }
    turn = head.metadata.get(f"{KEY}.eot_token_id")
    if turn is not None and turn != ids.get("eos_token_id"):
        ids["eos_token_id"] = [ids["eos_token_id"], turn] if "eos_token_id" in ids else turn
    return ids


def write_tokenizer(head: GGUFHead, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    tokens = head.metadata[f"{KEY}.tokens"]
    named = {
        f"{ours}_token": tokens[head.metadata[f"{KEY}.{name}_token_id"]]
        for name, ours in NAMED.items()
        if f"{KEY}.{name}_token_id" in head.metadata
    }
    if head.metadata[f"{KEY}.model"] == SENTENCEPIECE:
        tokenizer, adds_bos = _sentencepiece(head, unknown=named.get("unk_token")), True
    else:
        tokenizer, adds_bos = _byte_level(head), SPLITTINGS[head.metadata[f"{KEY}.pre"]].adds_bos
    bos = named.get("bos_token")
    if bos is not None and head.metadata.get(f"{KEY}.add_bos_token", adds_bos):
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[bos, "$A"], pair=[bos, "$A", "$B"], special_tokens=[(bos, tokens.index(bos))]
        )
    tokenizer.add_special_tokens(_of_kind(head, CONTROL))
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in _of_kind(head, USER_DEFINED)])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **named}
    if (template := head.metadata.get("tokenizer.chat_template")) is not None:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _byte_level(head: GGUFHead) -> Tokenizer:
    splitting = SPLITTINGS[head.metadata[f"{KEY}.pre"]]
    tokenizer = Tokenizer(models.BPE(_vocabulary(head), _merges(head), ignore_merges=splitting.ignore_merges))
    if splitting.normalizes:
        tokenizer.normalizer = normalizers.NFC()
    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if splitting.single_digits else []
    if splitting.pattern is not None:
        steps.append(pre_tokenizers.Split(Regex(splitting.pattern), behavior="isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=splitting.pattern is None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(head: GGUFHead, *, unknown: str | None) -> Tokenizer:
    vocab, scores = _vocabulary(head), head.metadata[f"{KEY}.scores"]
    # no text merges into a control token or a byte
    merges = merges_by_score({token: vocab[token] for token in _of_kind(head, NORMAL)}, scores)
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    spaces: list[Any] = [normalizers.Replace(" ", SPACE)]
    words: list[Any] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if head.metadata.get(f"{KEY}.add_space_prefix", True):
        spaces.insert(0, normalizers.Prepend(SPACE))
        words.append(decoders.Strip(" ", 1, 0))
    tokenizer.normalizer = normalizers.Sequence(spaces)
    tokenizer.decoder = decoders.Sequence(words)
    return tokenizer


def _vocabulary(head: GGUFHead) -> dict[str, int]:
    return {token: index for index, token in enumerate(head.metadata[f"{KEY}.tokens"])}


def _of_kind(head: GGUFHead, kind: int) -> list[str]:
    tokens, kinds = head.metadata[f"{KEY}.tokens"], head.metadata.get(f"{KEY}.token_type", [])
    return [token for token, each in zip(tokens, kinds, strict=False) if each == kind]


def _merges(head: GGUFHead) -> list[tuple[str, str]]:
    merges, known = head.metadata.get(f"{KEY}.merges"), set(head.metadata[f"{KEY}.tokens"])
    if not _is_list(merges, str):
        raise RegardError(f"{head.path}: it has no merges; fetch the file again")
    pairs = []
    for merge in merges:
        left, _, right = merge.partition(" ")
        if not {left, right, left + right} <= known:
            raise RegardError(f"{head.path}: its merge {merge!r} is not of its tokens; fetch the file again")
        pairs.append((left, right))
    return pairs


def _is_list(values: object, kind: type[T]) -> TypeGuard[list[T]]:
    return isinstance(values, list) and all(type(value) is kind for value in values)
