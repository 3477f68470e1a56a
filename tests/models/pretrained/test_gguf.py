"""GGUF files: read as they were meant, or refused quickly, with nothing left behind."""

import math
import random
import struct
import time
from itertools import pairwise

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from regard.errors import RegardError
from regard.models.pretrained import gguf_convert
from regard.models.pretrained.folder import load_folder
from regard.models.pretrained.gguf_convert import check_gguf, convert_gguf
from regard.models.pretrained.gguf_head import read_head
from regard.models.pretrained.gguf_tokenizer import check_tokenizer

IDS = torch.tensor([[1, 5, 70, 8, 200, 31, 9]])


def logits(module):
    with torch.no_grad():
        return module(input_ids=IDS).logits


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma2", "phi3", "smollm3"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_file_gives_the_model_that_it_was_written_from(module, write_gguf, family, tied):
    model = module(family, tie_word_embeddings=tied)
    folder = convert_gguf(write_gguf(model, family=family))
    found, _ = load_folder(folder, dtype=torch.float32)
    assert type(found) is type(model)
    for (name, ours), (_, theirs) in zip(found.named_parameters(), model.named_parameters(), strict=True):
        # 1 was added to Gemma's norms in float32, and taken off again
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-7 if "gemma" in family else 0, msg=name)
    torch.testing.assert_close(logits(found), logits(model))


def llama_3_factors(factor, half, base):
    """As convert_hf_to_gguf.py of llama.cpp writes them."""
    found = []
    for index in range(half):
        wavelength = 2 * math.pi * base ** (index / half)
        smooth = (8192 / wavelength - 1) / (4 - 1)
        found.append(
            1 if wavelength < 8192 / 4 else factor if wavelength > 8192 else 1 / ((1 - smooth) / factor + smooth)
        )
    return found


def test_llama_3_stretches_its_long_wavelengths(module, write_gguf):
    scaled = {"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0}
    scaled |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    model = module(rope_parameters=scaled, head_dim=16)
    factors = llama_3_factors(8.0, 8, 500_000.0)
    assert {1, 8.0} < set(factors)
    settings = {"llama__attention__key_length": 16, "llama__rope__dimension_count": 16}
    found, _ = load_folder(
        convert_gguf(write_gguf(model, tensors={"rope_freqs.weight": factors}, **settings)), dtype=torch.float32
    )
    torch.testing.assert_close(logits(found), logits(model))
    assert not torch.allclose(logits(found), logits(module(head_dim=16)))
    for wrong, says in ((factors[:-1], "must be 8 float32"), ([3.0, *factors[1:]], "does not follow the rule")):
        with pytest.raises(RegardError, match=says):
            convert_gguf(write_gguf(model, tensors={"rope_freqs.weight": wrong}, **settings))


def test_phi_3_of_long_contexts_has_factors_for_short_and_long_texts(module, write_gguf):
    factors = {"short": [1.0, 1.1, 1.2, 1.3], "long": [1.5, 2.0, 4.0, 8.0]}
    scaled = {"rope_type": "longrope", "rope_theta": 10_000.0, "original_max_position_embeddings": 6}
    scaled |= {f"{name}_factor": values for name, values in factors.items()} | {"attention_factor": 1.25}
    model = module("phi3", rope_parameters=scaled, original_max_position_embeddings=6)
    tensors = {f"rope_factors_{name}.weight": values for name, values in factors.items()}
    settings = {"phi3__rope__scaling__original_context_length": 6, "phi3__rope__scaling__attn_factor": 1.25}
    path = write_gguf(model, family="phi3", tensors=tensors, **settings)
    found, _ = load_folder(convert_gguf(path), dtype=torch.float32)
    # longer than the first context, and shorter
    torch.testing.assert_close(logits(found), logits(model))
    with torch.no_grad():
        torch.testing.assert_close(*(each(input_ids=IDS[:, :4]).logits for each in (found, model)))
    with pytest.raises(RegardError, match="it has one of"):
        convert_gguf(
            write_gguf(model, family="phi3", tensors={"rope_factors_long.weight": factors["long"]}, **settings)
        )


def test_quantised_numbers_are_those_of_transformers_own_loader(module, write_gguf):
    model = module()
    path = write_gguf(model, quantize=("blk.0.attn_q.weight", "blk.1.ffn_up.weight", "token_embd.weight"))
    found, _ = load_folder(convert_gguf(path), dtype=torch.float32)
    theirs = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)["tensors"]
    ours = found.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not torch.equal(
        ours["model.layers.0.self_attn.q_proj.weight"], model.model.layers[0].self_attn.q_proj.weight
    )


@pytest.mark.parametrize("base", [10_000.0, 300.0])
def test_gemma_3_has_its_norms_windows_and_two_rotary_bases(module, write_gguf, base):
    rotary = {
        "full_attention": {"rope_type": "default", "rope_theta": 5_000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": base},
    }
    model = module("gemma3", rope_parameters=rotary)
    # what a file leaves out is as in the first release
    metadata = {} if base == 10_000.0 else {"gemma3__rope__freq_base_swa": base}
    path = write_gguf(model, family="gemma3", quantize=("blk.0.attn_q.weight",), **metadata)
    found, _ = load_folder(convert_gguf(path), dtype=torch.float32)
    assert type(found) is type(model)
    theirs = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)["tensors"]
    ours = dict(found.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    name = "model.layers.0.self_attn.q_proj.weight"
    model.load_state_dict({name: theirs[name]}, strict=False)
    torch.testing.assert_close(logits(found), logits(model))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"gemma3__rope__scaling__type": "linear"}, "gemma3.rope.scaling.type is 'linear'"),
        ({"gemma3__final_logit_softcapping": 30.0}, "gemma3.final_logit_softcapping is 30.0"),
        ({"gemma3__attention__sliding_window_pattern": 0}, "sliding_window_pattern must be a whole number from 1"),
        ({"gemma3__attn_logit_softcapping": 50.0}, "gemma3.attn_logit_softcapping is 50.0"),
        ({"gemma3__attention__sliding_window": 0}, "attention.sliding_window must be a whole number from 1"),
        ({"skip": ("blk.3.post_ffw_norm.weight",)}, "tensor 'blk.3.post_ffw_norm.weight' is missing"),
    ],
)
def test_another_gemma_3_is_refused(module, write_gguf, own_cache, settings, says):
    with pytest.raises(RegardError, match=says):
        convert_gguf(write_gguf(module("gemma3"), family="gemma3", **settings))
    assert not own_cache.exists()


def test_its_tokenizer_and_template_come_with_it(module, write_gguf, tokenizer):
    _, found = load_folder(convert_gguf(write_gguf(module())), dtype=torch.float32)
    for text in ("hello hello12", "日本語 🙂\n\n  x", "", "<|im_start|>hello<|im_end|>"):
        assert found(text)["input_ids"] == tokenizer(text)["input_ids"], text
    assert (found.bos_token, found.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert found.chat_template == tokenizer.chat_template


def test_digits_are_split_as_the_file_says(module, write_gguf):
    """`12` is a token, which smollm's splitting never lets come about."""
    pieces = {}
    for pre in ("gpt-2", "smollm", "qwen2"):
        _, tokenizer = load_folder(convert_gguf(write_gguf(module(), pre=pre, name=f"{pre}.gguf")), dtype=torch.float32)
        pieces[pre] = tokenizer.tokenize("a  12")
    assert pieces == {
        "gpt-2": ["a", "Ġ", "Ġ", "12"],
        "smollm": ["a", "Ġ", "Ġ", "1", "2"],
        "qwen2": ["a", "Ġ", "Ġ", "1", "2"],
    }


def test_a_sentencepiece_vocabulary_merges_by_score_and_falls_back_on_bytes(module, write_gguf):
    pieces = ("▁", "h", "e", "l", "o", "a", "he", "ll", "hell", "hello", "▁hello")
    _, tokenizer = load_folder(convert_gguf(write_gguf(module(), pieces=pieces)), dtype=torch.float32)
    assert tokenizer.tokenize("hello a") == ["▁hello", "▁", "a"]
    assert tokenizer.tokenize("é") == ["▁", "<0xC3>", "<0xA9>"]
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id == 1
    for text in ("hello hello", "日a", "a  e"):
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True).strip() == text


PIECES = ("<", ">", "s", "a", "b", "▁", "中", "ab", "▁a", "<s", "ba", "▁▁", "aba", "bab", "中a", "▁ab", "▁中")
DEFINED = ("\n", "\n\n", "    ")


@pytest.fixture(params=[False, True])
def spaced(request, module, write_gguf):
    """Whether a space is put before every text, and a tokenizer that says so."""
    prefix = request.param
    path = write_gguf(module(), pieces=PIECES, defined=DEFINED, tokenizer__ggml__add_space_prefix=prefix)
    return prefix, load_folder(convert_gguf(path), dtype=torch.float32)[1]


def best_first(text):
    """SentencePiece's merging, one pair at a time: the best piece first, the leftmost where it is there twice."""
    pieces = list(text)
    while pairs := [
        (PIECES.index(left + right), -place)
        for place, (left, right) in enumerate(pairwise(pieces))
        if left + right in PIECES
    ]:
        place = -max(pairs)[1]
        pieces[place : place + 2] = ["".join(pieces[place : place + 2])]
    return [
        part
        for piece in pieces
        for part in ([piece] if piece in PIECES else [f"<0x{byte:02X}>" for byte in piece.encode()])
    ]


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text("ab 中<s>é🙂", max_size=12))
def test_the_best_neighbours_merge_first_and_no_text_is_a_control_token(spaced, text):
    prefix, tokenizer = spaced
    # runs of four spaces are a token of the user
    assume("    " not in text)
    expected = best_first(("▁" + text if prefix and text else text).replace(" ", "▁"))
    assert tokenizer.tokenize(text, split_special_tokens=True) == expected
    ids = tokenizer(text, split_special_tokens=True)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[1:]) == text


def test_tokens_of_the_user_are_taken_whole_the_longest_first(module, write_gguf):
    path = write_gguf(module(), pieces=PIECES, defined=DEFINED, tokenizer__ggml__add_space_prefix=False)
    _, tokenizer = load_folder(convert_gguf(path), dtype=torch.float32)
    assert tokenizer.tokenize("a\n\n\nb    a") == ["a", "\n\n", "\n", "b", "    ", "a"]


@pytest.mark.parametrize(
    ("key", "values", "says"),
    [
        ("scores", [0.0] * 3, "have not a type and a score each"),
        ("scores", None, "have not a type and a score each"),
        ("scores", "nan", "no finite number"),
        ("token_type", None, "have not a type and a score each"),
    ],
)
def test_a_sentencepiece_vocabulary_without_its_scores_is_refused(module, write_gguf, key, values, says):
    head = read_head(write_gguf(module(), pieces=PIECES))
    count = len(head.metadata["tokenizer.ggml.tokens"])
    head.metadata[f"tokenizer.ggml.{key}"] = [float(values)] * count if isinstance(values, str) else values or []
    with pytest.raises(RegardError, match=says):
        check_tokenizer(head, 320)


def test_a_file_is_converted_once(module, write_gguf, monkeypatch):
    path = write_gguf(module())
    folder = convert_gguf(path)
    monkeypatch.setattr(gguf_convert, "_run_apart", None)
    assert convert_gguf(path) == folder
    assert convert_gguf(path.rename(path.with_name("other.gguf"))) == folder


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"skip": ("blk.1.ffn_up.weight",)}, "blk.1.ffn_up.weight' is missing"),
        ({"skip": ("token_embd.weight",)}, "token_embd.weight' is missing"),
        ({"llama__rope__scaling__type": "yarn"}, "rope.scaling.type is 'yarn'"),
        ({"llama__attention__key_length": 6, "llama__rope__dimension_count": 8}, "heads of 6 with 8 rotated"),
        ({"split__count": 3}, "one part of 3; parts are named"),
        ({"split__count": 3, "name": "tiny-00002-of-00003.gguf"}, "name the first, tiny-00001-of-00003.gguf"),
        ({"split__count": 3, "name": "tiny-00001-of-00003.gguf"}, "00002-of-00003.gguf: this part of .* is missing"),
        ({"pre": "strange"}, "splits text as 'strange'"),
        ({"tokenizer__ggml__unknown_token_id": 400}, "unknown token is 400"),
    ],
)
def test_what_would_not_be_the_same_model_is_refused(module, write_gguf, own_cache, settings, says):
    with pytest.raises(RegardError, match=says):
        convert_gguf(write_gguf(module(), **settings))
    assert not own_cache.exists()


def test_a_file_in_parts_is_read_as_one(module, write_gguf):
    model = module()
    path = write_gguf(model)
    whole, names = convert_gguf(path), list(read_head(path).tensors)
    halves = names[:7], names[7:]
    first, _ = (
        write_gguf(model, name=f"tiny-0000{number}-of-00002.gguf", skip=other, split__no=number - 1, split__count=2)
        for number, other in enumerate(reversed(halves), 1)
    )
    joined = convert_gguf(first)
    assert joined != whole
    assert (joined / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    # of the same number, but not the part that it is called
    write_gguf(model, name="tiny-00002-of-00002.gguf", skip=halves[0], split__no=0, split__count=2)
    with pytest.raises(RegardError, match="does not say that it is part 2 of 2"):
        convert_gguf(first)
    write_gguf(model, name="tiny-00002-of-00002.gguf", split__no=1, split__count=2)
    with pytest.raises(RegardError, match="another part has"):
        convert_gguf(first)


def test_a_family_that_is_not_known_is_refused(module, write_gguf):
    with pytest.raises(
        RegardError, match="architecture is 'gptj', not llama, smollm3, qwen2, qwen3, gemma2, gemma3, phi3"
    ):
        convert_gguf(write_gguf(module(), family="gptj"))


def test_a_tensor_without_a_place_is_refused(module, write_gguf):
    """Biases of query, key and value are Qwen's; Llama would drop them silently."""
    with pytest.raises(RegardError, match=r"no place for tensor 'blk.0.attn_k.bias' in LlamaForCausalLM"):
        convert_gguf(write_gguf(module("qwen2"), family="llama"))


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def head(*metadata: bytes, tensors: tuple[bytes, ...] = (), counts: tuple[int, int] | None = None) -> bytes:
    num_tensors, num_metadata = counts or (len(tensors), len(metadata))
    return b"GGUF" + struct.pack("<IQQ", 3, num_tensors, num_metadata) + b"".join(metadata) + b"".join(tensors)


def tensor(name: str, shape: tuple[int, ...], offset: int, *, kind: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def array(kind: int, length: int) -> bytes:
    return text("a") + struct.pack("<IIQ", 9, kind, length)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"PK\3\4" + b"x" * 60, "does not begin with GGUF"),
        (b"GGUF" + struct.pack(">I", 3) + b"\0" * 40, "version is 50331648"),
        (b"GGUF" + struct.pack("<I", 3), "cut"),
        (head(counts=(1 << 60, 0)), "1152921504606846976 tensors"),
        (head(counts=(0, 1 << 60)), "1152921504606846976 metadata"),
        (head(counts=(0, 4000)), "cut"),
        (head(array(8, 1 << 62)), "claims 4611686018427387904 items"),
        (head(array(8, 1 << 20)), "cut"),
        (head(array(9, 1) + struct.pack("<IQ", 9, 1) * 20), "unknown kind 9"),
        (head(struct.pack("<Q", 1 << 63)), "claims 9223372036854775808 bytes"),
        (head(text("a") + struct.pack("<I", 77)), "unknown kind 77"),
        (head(text("a") + struct.pack("<IQ", 8, 2) + b"\xff\xfe"), "utf-8"),
        (head(text("a") + struct.pack("<IB", 0, 1), text("a") + struct.pack("<IB", 0, 1)), "'a' twice"),
        (head(text("general.alignment") + struct.pack("<II", 4, 0)), "alignment is 0"),
        (head(tensors=(tensor("t", (1 << 40, 1 << 40), 0),)), "ends at byte"),
        (head(tensors=(tensor("t", (8,), 1 << 62),)), "ends at byte"),
        (head(tensors=(tensor("t", (8,), 3),)) + b"\0" * 99, "no multiple of 32"),
        (head(tensors=(tensor("t", (0,), 0),)) + b"\0" * 99, "shape"),
        (head(tensors=(tensor("t", (8,), 0, kind=2),)) + b"\0" * 99, "whole blocks of 32"),
        (head(tensors=(tensor("t", (8,), 0, kind=4000),)) + b"\0" * 99, "unknown kind 4000"),
        (head(tensors=(tensor("t", (1,) * 9, 0),)) + b"\0" * 99, "9 dimensions"),
        (head(tensors=(tensor("t", (8,), 0), tensor("t", (8,), 32))) + b"\0" * 200, "two tensors 't'"),
        (head(tensors=(tensor("t", (16,), 0), tensor("u", (8,), 32))) + b"\0" * 200, "'t' and 'u' overlap"),
    ],
)
def test_a_crafted_file_is_refused_at_once(tmp_path, own_cache, data, says):
    path = tmp_path / "a.gguf"
    path.write_bytes(data)
    started = time.monotonic()
    with pytest.raises(RegardError, match=f"a.gguf: .*{says}"):
        convert_gguf(path)
    # hours in gguf's own reader, milliseconds here
    assert time.monotonic() - started < 10
    assert not own_cache.exists()


def test_a_damaged_file_never_fails_otherwise(tmp_path, module, write_gguf):
    whole = write_gguf(module()).read_bytes()
    path = tmp_path / "damaged.gguf"
    generator = random.Random(3)
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(generator.randint(1, 4)):
            # most of what matters stands in front
            data[generator.randrange(8000)] = generator.randrange(256)
        path.write_bytes(data[: generator.choice([len(data), generator.randrange(len(data))])])
        try:
            check_gguf(path)
        except RegardError:
            refused += 1
    assert refused > 150


def test_a_conversion_that_fails_or_hangs_leaves_nothing(module, write_gguf, own_cache, monkeypatch, tmp_path):
    path = write_gguf(module())
    monkeypatch.setattr(gguf_convert, "SECONDS", 0.001)
    with pytest.raises(RegardError, match="not converted in"):
        convert_gguf(path)
    monkeypatch.undo()
    monkeypatch.setenv("REGARD_CACHE", str(own_cache))
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho MemoryError: no more >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(gguf_convert.sys, "executable", str(fake))
    with pytest.raises(RegardError, match="cannot be converted: MemoryError: no more"):
        convert_gguf(path)
    assert list((own_cache / "models").iterdir()) == []


def test_the_head_tells_where_tensors_lie(module, write_gguf):
    model = module()
    path = write_gguf(model)
    found = read_head(path).tensors["blk.1.ffn_up.weight"]
    data = path.read_bytes()[found.start : found.start + found.size]
    assert found.shape == (48, 32)
    values = torch.frombuffer(bytearray(data), dtype=torch.float32).view(found.shape)
    assert torch.equal(values, model.model.layers[1].mlp.up_proj.weight)
