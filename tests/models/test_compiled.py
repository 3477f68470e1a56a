"""A compiled step does what the model does, where it fits, and is made once."""

import copy
import shutil

import pytest
import torch

import regard
from regard.attention.key_values import KeyValues, Queries
from regard.errors import RegardError
from regard.models import compiled
from regard.models.compiled import compiled_step

transformers = pytest.importorskip("transformers")
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler to compile with")

# of the largest logit
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache, monkeypatch):
    monkeypatch.setenv("REGARD_CACHE", str(cache))


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def module(family):
    return copy.deepcopy(family("llama").ours)


class Counted:
    """A step that counts how often it was taken."""

    def __init__(self, step):
        self.step, self.fits, self.count = step, step.fits, 0

    def __call__(self, *inputs):
        self.count += 1
        return self.step(*inputs)


class Logits(torch.nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, ids):
        return self.module(ids).logits


def write(module, ids, *, prompt, room=96, queries=None, padding=None):
    """The logits of all tokens, the prompt's at once and the others' one by one."""
    past = KeyValues(room, queries=queries, padding=padding)
    parts = [ids[:, :prompt], *ids[:, prompt:].split(1, dim=1)]
    return torch.cat([module(part, past).logits for part in parts], dim=1), past


@needs_compiler
@pytest.mark.parametrize("name", ["gpt2", "qwen3"])
def test_its_logits_and_what_it_looked_at_are_those_of_transformers(family, name):
    ours, theirs = copy.deepcopy(family(name).ours), copy.deepcopy(family(name).theirs)
    ours.step = step = Counted(compiled_step(ours))
    ids = torch.randint(97, (1, 40), generator=torch.Generator().manual_seed(3))
    theirs.set_attn_implementation("eager")
    wanted = theirs(ids, output_attentions=True)
    for prompt, room in ((1, 96), (7, 40), (39, 64)):
        before = step.count
        logits, past = write(ours, ids, prompt=prompt, room=room, queries=Queries())
        assert step.count - before == 40 - prompt
        assert float((logits - wanted.logits).abs().max() / wanted.logits.abs().max()) < TOLERANCE
        # of each run its newest token
        rows = [prompt - 1, *range(prompt, 40)]
        for map, weights in zip(ours.attention(past), wanted.attentions, strict=True):
            torch.testing.assert_close(map.weights, weights[:, :, rows], rtol=0, atol=1e-5)


@needs_compiler
def test_what_it_does_not_fit_goes_the_usual_way(family):
    ours = copy.deepcopy(family("qwen3").ours)
    plain = copy.deepcopy(ours)
    ours.step = step = Counted(compiled_step(ours))
    ids = torch.randint(97, (2, 12), generator=torch.Generator().manual_seed(4))
    several, padded = {"prompt": 5}, {"prompt": 5, "padding": torch.tensor([0, 2])}
    for batch, how in ((ids, several), (ids, padded), (ids[:1], {"prompt": 5, "room": 1 << 16})):
        assert torch.equal(write(ours, batch, **how)[0], write(plain, batch, **how)[0])
    assert step.count == 0
    with regard.watching(ours, rows="all") as watch:
        write(ours, ids[:1], prompt=5)
    assert step.count == 0
    assert watch.reading(0).rows("decoder") == list(range(12))
    ours.requires_grad_(True)
    with torch.enable_grad():
        assert write(ours, ids[:1], prompt=5)[0].requires_grad
    assert step.count == 0
    ours.train()
    write(ours, ids[:1], prompt=5)
    assert step.count == 0
    ours.eval()
    write(ours, ids[:1], prompt=5)
    assert step.count == 7


@needs_compiler
def test_a_window_is_kept(family):
    ours, theirs = copy.deepcopy(family("mistral").ours), family("mistral").theirs
    ours.step = step = Counted(compiled_step(ours))
    ids = torch.randint(97, (1, 20), generator=torch.Generator().manual_seed(5))
    logits, _ = write(ours, ids, prompt=3)
    # up to its 7 tokens all that there are are seen
    assert step.count == 4
    wanted = theirs(ids).logits
    assert float((logits - wanted).abs().max() / wanted.abs().max()) < TOLERANCE


@needs_compiler
def test_models_of_one_shape_share_it_and_weights_that_move_end_it(family, monkeypatch):
    first = copy.deepcopy(family("qwen3").ours)
    compiled_step(first)
    monkeypatch.setattr(compiled, "_compile", lambda *_: pytest.fail("compiled a second time"))
    second = copy.deepcopy(first)
    for parameter in second.parameters():
        parameter.mul_(1.5)
    plain, second.step = copy.deepcopy(second), compiled_step(second)
    ids = torch.randint(97, (1, 9), generator=torch.Generator().manual_seed(6))
    torch.testing.assert_close(write(second, ids, prompt=4)[0], write(plain, ids, prompt=4)[0])
    assert copy.deepcopy(second).step is None
    assert second.double().step is None


def test_exporting_the_model_itself_keeps_what_each_token_sees(family):
    for name in ("qwen3", "mistral"):
        ours = copy.deepcopy(family(name).ours)
        ids = torch.randint(97, (2, 12), generator=torch.Generator().manual_seed(7))
        exported = torch.export.export(Logits(ours), (ids,)).module()
        torch.testing.assert_close(exported(ids), ours(ids).logits)


def test_sizes_sources_and_processor_each_have_a_file_of_their_own(module, family, monkeypatch):
    paths = {compiled.path_of(module), compiled.path_of(copy.deepcopy(module).double())}
    paths.add(compiled.path_of(family("llama-tied").ours))
    monkeypatch.setattr(torch, "__version__", "99.0")
    paths.add(compiled.path_of(module))
    assert len(paths) == 4


def test_a_machine_without_a_compiler_says_so(module, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(RegardError, match=r"needs a C\+\+ compiler, and none is found; install g\+\+"):
        compiled_step(module)


def test_nothing_half_made_stays(module, monkeypatch, cache):
    def breaks(module, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(compiled, "_compile", breaks)
    monkeypatch.setattr(compiled, "check_compiler", lambda *_: None)
    before = sorted(cache.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        compiled_step(module)
    assert [path for path in cache.rglob("*") if path not in before and path.is_file()] == []


def test_a_model_of_transformers_is_not_compiled(tiny_smollm2):
    model = regard.load(tiny_smollm2 / "models" / "smollm2", library="transformers")
    with pytest.raises(RegardError, match="runs in transformers"):
        model.compile()
