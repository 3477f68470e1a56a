"""CTranslate2 runs Transformers where there is no torch.

Klein et al. 2020, "The OpenNMT neural machine translation toolkit: 2020 edition". Its own `TransformerSpec` names
every weight and writes the file.
"""

from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from torch import Tensor, nn

from regard.attention.multi_head import MultiHeadAttention
from regard.data.batch import BOS, PAD, SPECIAL_TOKENS, UNKNOWN
from regard.data.pair_tokenizer import UNKNOWN_TEXT
from regard.data.tokenizer import Tokenizer
from regard.models.blocks import sinusoidal_positions

TOKENIZER = "tokenizer.json"
# how many tokens it writes at most where its user says nothing
LONGEST_BY_DEFAULT = 256


def write(module: nn.Module, tokenizer: Tokenizer, folder: Path) -> None:
    """A Transformer as CTranslate2 reads it, with float32 weights, and the tokenizer beside it."""
    tokenizer.save(folder / TOKENIZER)
    ids = _tokenizer(folder).get_vocab()
    tokens = sorted(ids, key=lambda token: ids[token])
    spec = _spec(module)
    spec.register_source_vocabulary(tokens)
    spec.register_target_vocabulary(tokens)
    spec.validate()
    # a weight that several layers share is written once
    spec.optimize()
    spec.save(str(folder))


def translate(folder: Path, texts: list[str], max_new_tokens: int) -> list[str]:
    """What a user gets who follows `usage`, but greedily."""
    import ctranslate2

    tokenizer = _tokenizer(folder)
    translator: Any = ctranslate2.Translator(str(folder), compute_type="float32", intra_threads=torch.get_num_threads())
    results = translator.translate_batch(
        [encoding.tokens for encoding in tokenizer.encode_batch(texts)],
        beam_size=1,
        max_batch_size=16,
        max_input_length=0,
        min_decoding_length=0,
        max_decoding_length=max_new_tokens,
    )
    unknown = SPECIAL_TOKENS[UNKNOWN]
    written = ([UNKNOWN_TEXT if token == unknown else token for token in result.hypotheses[0]] for result in results)
    return [tokenizer.decoder.decode(tokens) for tokens in written]


def usage(max_new_tokens: int) -> str:
    """Markdown for whoever finds the folder."""
    pad, bos, eos, unknown = SPECIAL_TOKENS
    return f"""## Use

`pip install ctranslate2 tokenizers`, then, in this folder:

```python
import ctranslate2
import tokenizers

tokenizer = tokenizers.Tokenizer.from_file("{TOKENIZER}")
tokenizer.encode_special_tokens = True
translator = ctranslate2.Translator(".", compute_type="float32")

texts = ["One sentence.", "And another one."]
results = translator.translate_batch(
    [encoding.tokens for encoding in tokenizer.encode_batch(texts)],
    beam_size=5,
    max_batch_size=16,
    max_input_length=0,
    min_decoding_length=0,
    max_decoding_length={max_new_tokens},
)
for result in results:
    tokens = ["{UNKNOWN_TEXT}" if token == "{unknown}" else token for token in result.hypotheses[0]]
    print(tokenizer.decoder.decode(tokens))
```

- `beam_size=1` is greedy.
- With `encode_special_tokens`, a `{eos}` that stands in a text is ordinary characters.
- The model reads {max_new_tokens} tokens at most. A longer source is an error with `max_input_length=0`; without it,
  CTranslate2 cuts every source after 1,024 tokens and does not say so.
- With `min_decoding_length=0` a translation may be empty, as in Regard.
- The model itself adds `{eos}` to the source, starts from `{bos}`, and never writes `{bos}` or `{pad}`.
- `return_attention=True` adds the weights of the last cross-attention layer, the mean of its heads,
  without the column of `{eos}`.
- `compute_type="int8"` is faster in less memory, and some translations become others.
"""


def _spec(module: Any) -> Any:
    from ctranslate2.specs import TransformerSpec

    first = module.encoder_layers[0]
    spec: Any = TransformerSpec.from_config(
        (len(module.encoder_layers), len(module.decoder_layers)),
        first.attention.num_heads,
        pre_norm=first.attention_sublayer.pre,
        # none chosen: it gives the mean of all heads
        alignment_heads=0,
    )
    spec.config.layer_norm_epsilon = first.attention_sublayer.norm.eps
    spec.config.decoder_start_token = SPECIAL_TOKENS[BOS]
    spec.config.add_source_eos = True
    encoder, decoder = spec.encoder, spec.decoder
    encoder.embeddings[0].weight = _array(module.source_embedding.weight)
    decoder.embeddings.weight = _array(module.target_embedding.weight)
    decoder.projection.weight = _array(module.output.weight)
    decoder.projection.bias = _output_bias(len(module.output.weight))
    max_length, dim = module.positions.shape
    encoder.position_encodings.encodings = _array(module.positions)
    # a position without a row is an error, so that a user who sets no limit needs so many
    decoder.position_encodings.encodings = _array(sinusoidal_positions(max(max_length, LONGEST_BY_DEFAULT), dim))
    for layer, ours in zip(encoder.layer, module.encoder_layers, strict=True):
        _attention(layer.self_attention, ours.attention, ours.attention_sublayer.norm)
        _feed_forward(layer.ffn, ours.feed_forward, ours.feed_forward_sublayer.norm)
    for layer, ours in zip(decoder.layer, module.decoder_layers, strict=True):
        _attention(layer.self_attention, ours.self_attention, ours.self_sublayer.norm)
        _attention(layer.attention, ours.cross_attention, ours.cross_sublayer.norm)
        _feed_forward(layer.ffn, ours.feed_forward, ours.feed_forward_sublayer.norm)
    if first.attention_sublayer.pre:
        _norm(encoder.layer_norm, module.encoder_norm)
        _norm(decoder.layer_norm, module.decoder_norm)
    return spec


def _attention(spec: Any, attention: MultiHeadAttention, norm: nn.LayerNorm) -> None:
    *inner, outer = spec.linear
    weight, bias = _array(attention.in_proj.weight), _array(attention.in_proj.bias)
    # the query stands apart where it is of another sequence than key and value
    cuts = [] if len(inner) == 1 else [weight.shape[1]]
    for linear, rows, biases in zip(inner, np.split(weight, cuts), np.split(bias, cuts), strict=True):
        linear.weight, linear.bias = rows, biases
    _linear(outer, attention.out_proj)
    _norm(spec.layer_norm, norm)


def _feed_forward(spec: Any, feed_forward: nn.Sequential, norm: nn.LayerNorm) -> None:
    _linear(spec.linear_0, feed_forward[0])
    _linear(spec.linear_1, feed_forward[-1])
    _norm(spec.layer_norm, norm)


def _linear(spec: Any, layer: nn.Module) -> None:
    spec.weight, spec.bias = _array(layer.weight), _array(layer.bias)


def _norm(spec: Any, norm: nn.LayerNorm) -> None:
    spec.gamma, spec.beta = _array(norm.weight), _array(norm.bias)


def _output_bias(vocab_size: int) -> np.ndarray:
    """Search never writes PAD or BOS, whatever a user sets."""
    bias = np.zeros(vocab_size, dtype=np.float32)
    # the lowest number that is finite in float16 as well
    bias[[PAD, BOS]] = np.finfo(np.float16).min
    return bias


def _array(tensor: Any) -> np.ndarray:
    assert isinstance(tensor, Tensor)
    return tensor.detach().float().cpu().numpy()


def _tokenizer(folder: Path) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / TOKENIZER))
    # the file cannot say it: special tokens that stand in a text are ordinary characters
    tokenizer.encode_special_tokens = True
    return tokenizer
