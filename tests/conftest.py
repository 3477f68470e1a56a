"""Every test starts from the same seed, on one thread and without a clock: tests share their machine with others."""

import json
import os
import signal
import stat
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from regard.data import formats

settings.register_profile("regard", deadline=None, database=None)
settings.load_profile("regard")


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def leaves_one_thread(one_thread):
    """On another number of threads sums are rounded otherwise, and a later test would not find what it expects."""
    yield
    left, _ = torch.get_num_threads(), torch.set_num_threads(1)
    assert left == 1, f"the test leaves torch on {left} threads"


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_is_heard():
    """A shell that starts the tests in the background has them ignore Ctrl-C, and so all that they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory):
    """What tests prepare stays out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REGARD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def nothing_told_yet():
    formats.tell_once.cache_clear()


@pytest.fixture
def device(tmp_path):
    """Makes a device that does as /dev/null or /dev/full: what a fault would replace is not the machine's own."""

    def make(name):
        path = tmp_path / name
        try:
            os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, {"null": 3, "full": 7}[name]))
            path.open("wb").close()
        except (OSError, AttributeError):
            path.unlink(missing_ok=True)
            if getattr(os, "geteuid", lambda: 0)() == 0 or not Path("/dev", name).exists():
                pytest.skip("no device can be made here")
            # nobody but root could replace what this leads to
            path.symlink_to(Path("/dev", name))
        return path

    return make


@pytest.fixture
def alone_with_ray(tmp_path_factory):
    """One test at a time has a cluster of Ray: whoever asks for the one of this machine would find another's."""
    fcntl = pytest.importorskip("fcntl")
    # the parent is that of all workers of pytest
    with (tmp_path_factory.getbasetemp().parent / "ray.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def tiny_smollm2(tmp_path_factory):
    """A cache in which a tiny model with random weights stands where smollm2 would: for guides, without a network."""
    pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from regard.models.pretrained.gguf_convert import FACTS, VERSION

    cache = tmp_path_factory.mktemp("tiny")
    folder = cache / "models" / "smollm2"
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([(Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")], trainer)
    template = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
        "{% endfor %}<|im_start|>assistant\n"
    )
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=template,
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 6, "max_position_embeddings": 2048}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    # random weights would write the end as soon as anything else: no token ends a text, and special ones, of which the
    # template's ends an answer, have a logit of 0, less than the largest of hundreds
    config = LlamaConfig(vocab_size=len(backend.get_vocab()), eos_token_id=None, bos_token_id=None, **sizes, **heads)
    torch.manual_seed(0)
    module = LlamaForCausalLM(config)
    with torch.no_grad():
        module.lm_head.weight[: len(special)] = 0
    module.save_pretrained(folder)
    (folder / FACTS).write_text(json.dumps({"version": VERSION}), encoding="utf-8")
    return cache


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory):
    """The folder of a tiny pretrained translator of a family, made once."""
    made = {}

    def folder(name):
        if name not in made:
            from tests.pretrained_translators import make

            made[name] = make(name, tmp_path_factory.mktemp(name) / name)
        return made[name]

    return folder
