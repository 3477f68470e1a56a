"""Models that hear or speak: what they hear is no text, and what is no text cannot be followed, which is said."""

import pytest
import torch

import regard
from regard.errors import RegardError

transformers = pytest.importorskip("transformers")

LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = LAYERS | {"hidden_size": 64, "intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 16}
HEARD = 5
GREEDY = {"max_new_tokens": 4, "do_sample": False}


@pytest.fixture(autouse=True)
def no_gradients():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def test_what_is_heard_is_a_sequence_of_its_own_beside_the_text():
    config = transformers.VoxtralConfig(
        audio_config=LAYERS
        | {"num_mel_bins": 16, "hidden_size": 32, "intermediate_size": 128, "max_source_positions": 20},
        text_config=TEXT | {"model_type": "llama", "vocab_size": 300, "pad_token_id": 0},
        audio_token_id=HEARD,
    )
    model = transformers.VoxtralForConditionalGeneration(config).eval()
    ids = torch.tensor([[1, 20, *[HEARD] * 5, 30, 31, 32]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "input_features": torch.randn(1, 16, 40)}
    with regard.watching(model, rows="generated") as watch:
        written = model.generate(**inputs, **GREEDY)
    reading = watch.reading()
    text = [(token.id, token.sort) for token in reading.sequences["text"].tokens]
    assert text == [(-1, "audio frame") if id == HEARD else (id, "token") for id in written[0].tolist()]
    assert {token.sort for token in reading.sequences["audio"].tokens} == {"audio frame"}
    assert reading.sides["encoder"] == ("audio", "audio")


def test_codes_of_sound_that_are_returned_for_tokens_are_an_error_with_the_remedy():
    own = LAYERS | {"hidden_size": 64, "intermediate_size": 64, "head_dim": 16, "num_key_value_heads": 4}
    cross = {"cross_num_attention_heads": 4, "cross_num_key_value_heads": 4, "cross_head_dim": 16}
    ends = {"eos_token_id": 60, "pad_token_id": 61, "bos_token_id": 62}
    config = transformers.DiaConfig(
        encoder_config=own | {"vocab_size": 300},
        decoder_config=own | cross | ends | {"vocab_size": 64, "num_channels": 3, "cross_hidden_size": 64},
        delay_pattern=[0, 1, 2],
        **ends,
    )
    model = transformers.DiaForConditionalGeneration(config).eval()
    ids = torch.randint(10, 290, (2, 8))
    with regard.watching(model) as watch:
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **GREEDY)
    with pytest.raises(RegardError, match="run the model once on what it wrote"):
        watch.reading()


def test_a_state_space_that_writes_is_refused_layer_by_layer():
    config = transformers.MambaConfig(vocab_size=100, hidden_size=32, state_size=8, num_hidden_layers=2)
    model = transformers.MambaForCausalLM(config).eval()
    with regard.watching(model, rows="generated") as watch:
        model.generate(torch.tensor([[5, 6, 7]]), suppress_tokens=[0], **GREEDY)
    reading = watch.reading()
    assert not reading.kinds
    assert sorted(reading.refused) == [("decoder", 0), ("decoder", 1)]
