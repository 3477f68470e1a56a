"""An atlas beside dense weights of eager attention in float64, counted row by row; merged, compared, kept and shown."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

import regard
from regard import Atlas, AtlasDifference, RegardError
from regard.language_model.atlas import PROBES, AtlasMaker
from regard.reading.examples import EXAMPLES
from regard.reading.measures import MEASURES, SHOWN, UNIT
from regard.reading.segments import sentences
from regard.reading.tally import REPLICATES, TABLES, Tally, poisson

transformers = pytest.importorskip("transformers")

TEXTS = [
    "The model reads the text. The text is read by the model, and the model reads it again.",
    "Attention was needed; attention was found. Which token did the head look at?\nThe head looked at the token.",
    "一只猫坐在垫子上。一只狗坐在门口。猫看着狗。",
    "One. Two. One. Two. Three.",
    "A list of heads, a list of layers, a list of tokens: each list has a head.",
    "The same again: the model reads the text.",
    "Nothing here is ever said twice",
]
LOCAL = 8


@pytest.fixture(scope="module")
def smollm2(tiny_smollm2):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REGARD_CACHE", str(tiny_smollm2))
        yield regard.load("smollm2")


@pytest.fixture(scope="module")
def atlas(smollm2):
    return regard.atlas(smollm2, TEXTS)


@pytest.fixture(scope="module")
def eager(smollm2, tiny_smollm2):
    folder = tiny_smollm2 / "models" / "smollm2"
    return transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").double().eval()


def dense(weights, ids, parts):
    """Every measure of weights [..., query, key], as its source defines it."""
    size = len(ids)
    i, j = np.mgrid[:size, :size]
    before = np.concatenate([[-1], ids[:-1]])
    following = np.concatenate([ids[1:], [-1]])
    chosen = {
        "first_token": j == 0,
        "previous_token": j == i - 1,
        "duplicate_token": (ids[j] == ids[i]) & (j < i),
        "induction": (before[j] == ids[i]) & (j <= i),
        "local": abs(i - j) <= LOCAL,
        "own_segment": parts[i] == parts[j],
    }
    found = {name: (weights * mask).sum(-1) for name, mask in chosen.items()}
    found["entropy"] = -(weights * np.log(np.where(weights > 0, weights, 1))).sum(-1)
    found["distance"] = (weights * abs(i - j)).sum(-1)
    strongest = weights.argmax(-1)
    found["retrieval"] = (ids[strongest] == following).astype(float)
    alike = np.tril(np.ones((size, size)))
    alike /= alike.sum(-1, keepdims=True)
    if weights.ndim > 2:
        chance = dense(alike, ids, parts)[0]
        chance["retrieval"] = (alike * (ids[j] == following[i])).sum(-1)
        return found, chance
    return found, {}


def told(name, chance, size):
    """The rows on which a measure can tell heads apart."""
    rows = np.arange(size)
    if name in ("entropy", "distance"):
        return rows[1:]
    own = rows[(chance > 1e-9) & (chance < 1 - 1e-9)]
    return own[own < size - 1] if name == "retrieval" else own


@pytest.fixture(scope="module")
def witness(eager, smollm2):
    """Of each text, by measure, values [layer, head, row] and chance [row], only of the rows that count."""
    found = []
    for text in TEXTS:
        ids = np.array(smollm2.encode(text)[0])
        with torch.no_grad():
            maps = eager(torch.tensor(ids)[None], output_attentions=True).attentions
        weights = np.stack([each[0].numpy() for each in maps])
        starts = sentences(text)
        offsets = smollm2.encode(text)[1]
        # the space before a sentence is part of its first token, a token of spaces alone is not
        begins = [end - len(text[start:end].lstrip()) if text[start:end].strip() else start for start, end in offsets]
        parts = np.array([np.searchsorted(starts, begin, side="right") - 1 for begin in begins])
        values, chance = dense(weights, ids, parts)
        rows = {name: told(name, chance[name], len(ids)) for name in values}
        found.append({name: (values[name][..., rows[name]], chance[name][rows[name]]) for name in values})
    return found


def test_the_sums_are_those_of_dense_weights(atlas, witness):
    assert atlas.prompts == len(TEXTS)
    for name in witness[0]:
        values = np.concatenate([each[name][0] for each in witness], axis=-1)
        chance = np.concatenate([each[name][1] for each in witness])
        assert (atlas.tally.rows[name] == values.shape[-1]).all(), name
        np.testing.assert_allclose(atlas.mean(name), values.mean(-1), atol=2e-5, err_msg=name)
        np.testing.assert_allclose(atlas.chance(name), chance.mean(), atol=2e-6, err_msg=name)
        for q in (0.1, 0.5, 0.9):
            exact = np.quantile(values, q, axis=-1, method="inverted_cdf")
            edges = MEASURES[name].edges
            place = np.searchsorted(edges[1:-1], exact, side="right")
            off = np.abs(atlas.quantile(name, q) - edges[1:][place])
            # a value on the edge of two bins may be rounded into either
            assert (off <= np.diff(edges)[place] + 1e-9).all(), (name, q)
            assert (off == 0).mean() > 0.9


def test_a_bootstrap_counts_whole_prompts(atlas, witness):
    counts = np.stack([poisson(str(place)) for place in range(len(TEXTS))])
    for name in ("previous_token", "entropy", "retrieval"):
        sums = np.stack([each[name][0].sum(-1) for each in witness])
        rows = np.array([each[name][0].shape[-1] for each in witness])
        with np.errstate(invalid="ignore"):
            means = np.einsum("pr,plh->rlh", counts, sums) / (counts * rows[:, None]).sum(0)[:, None, None]
        means = np.where(np.isnan(means), atlas.mean(name), means)
        np.testing.assert_allclose(atlas.replicates(name), means, atol=3e-5, err_msg=name)
        low, high = atlas.interval(name)
        assert (low <= atlas.mean(name) + 1e-6).all()
        assert (atlas.mean(name) <= high + 1e-6).all()


def test_poisson_draws_are_of_mean_and_variance_1():
    draws = np.stack([poisson(f"text {number}") for number in range(500)])
    assert draws.shape == (500, REPLICATES)
    assert draws.mean() == pytest.approx(1, abs=0.02)
    assert draws.var() == pytest.approx(1, abs=0.04)
    # two prompts are drawn by themselves
    assert abs(np.corrcoef(draws[:2])[0, 1]) < 0.25


def test_prefix_matching_is_induction_on_tokens_given_twice(smollm2, eager, atlas):
    maker = AtlasMaker(smollm2)
    fed = []
    run = maker._run
    maker._run = lambda tokens: (fed.append(tokens[0].numpy()), run(tokens))
    maker._probes()
    found = []
    for ids in fed:
        half = len(ids) // 2
        assert (ids[:half] == ids[half:]).all()
        with torch.no_grad():
            maps = eager(torch.tensor(ids)[None], output_attentions=True).attentions
        weights = np.stack([each[0].numpy() for each in maps])
        values, chance = dense(weights, ids, np.zeros(len(ids), int))
        found.append(values["induction"][..., told("induction", chance["induction"], len(ids))])
    assert len(fed) == PROBES
    values = np.concatenate(found, axis=-1)
    np.testing.assert_allclose(atlas.mean("prefix_matching"), values.mean(-1), atol=2e-5)


def content(tally):
    tables = [getattr(tally, table)[name].tobytes() for table in TABLES for name in MEASURES]
    return b"".join(tables), tally.prompts, tally.tokens, tally.fingerprint, tally.examples, tally.refused


def in_shards(maker, order):
    tallies = []
    for places in order:
        tally = None
        for place in places:
            tally = maker.add(tally, maker.measured(TEXTS[place], id=str(place), place=place))
        tallies.append(tally)
    whole, *others = tallies
    for each in others:
        whole.merge(each)
    return whole


@pytest.mark.parametrize(
    "order", [[[6], [5], [4], [3], [2], [1], [0]], [[0, 1], [2, 3, 4], [5, 6]], [[3, 5], [0, 1, 2, 4, 6]]]
)
def test_shards_merge_to_the_same_bits(smollm2, atlas, order):
    assert content(in_shards(AtlasMaker(smollm2), order)) == content(atlas.tally)


def test_a_file_keeps_all_of_it(atlas, tmp_path):
    atlas.save(tmp_path / "a.safetensors")
    again = Atlas.load(tmp_path / "a.safetensors")
    assert content(again.tally) == content(atlas.tally)
    assert (again.model, again.kind, again.settings) == (atlas.model, atlas.kind, atlas.settings)
    assert again.columns().keys() == atlas.columns().keys()
    atlas.save(tmp_path / "a.parquet")
    table = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "a.parquet").to_pydict()
    assert table["layer"] == [layer for layer in range(6) for _ in range(4)]
    np.testing.assert_allclose(table["induction"], atlas.mean("induction").ravel())
    with pytest.raises(RegardError, match=r"saved as \.safetensors, \.parquet, \.html"):
        atlas.save(tmp_path / "a.csv")


@pytest.mark.parametrize(
    "change",
    [
        lambda facts, tables: facts.update(layers=[0]),
        lambda facts, tables: facts.update(heads=[4] * 7),
        lambda facts, tables: facts.update(prompts=-1),
        lambda facts, tables: facts.update(measures=["sink"]),
        lambda facts, tables: facts.update(examples=[["induction", 9, 0, []]]),
        lambda facts, tables: facts.update(examples=[["induction", 0, 0, [[1.0, 0, "a", [0, 99], [], "short"]]]]),
        lambda facts, tables: facts.update(settings=None),
        lambda facts, tables: tables.pop("sums.induction"),
        lambda facts, tables: tables.update({"sums.induction": np.zeros((6, 5), np.int64)}),
        lambda facts, tables: tables.update({"sums.induction": np.full((6, 4), -1)}),
        lambda facts, tables: tables.update({"rows.induction": np.zeros(6, np.float64)}),
    ],
)
def test_a_damaged_file_is_refused(atlas, tmp_path, change):
    path = tmp_path / "a.safetensors"
    atlas.save(path)
    with safe_open(path, framework="numpy") as file:
        facts, tables = json.loads(file.metadata()["atlas"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(facts, tables)
    save_file(tables, path, {"atlas": json.dumps(facts)})
    with pytest.raises(RegardError, match="not a readable atlas"):
        Atlas.load(path)


def test_what_is_no_atlas_is_refused(smollm2, tmp_path):
    smollm2.read(text=TEXTS[0]).save(tmp_path / "reading.safetensors")
    for path, why in (("reading.safetensors", "not an atlas"), ("none.safetensors", "no such file")):
        with pytest.raises(RegardError, match=why):
            Atlas.load(tmp_path / path)


def test_examples_point_at_their_tokens(atlas, smollm2):
    count = 0
    for name in SHOWN:
        for layer in atlas.layers:
            for head in range(4):
                kept = atlas.examples(layer, head, name)
                assert len(kept) <= EXAMPLES
                assert [each.value for each in kept] == sorted((each.value for each in kept), reverse=True)
                for each in kept:
                    assert each.id == str(each.place)
                    assert "\ufffd" not in each.text
                    # every token of the excerpt is as the text has it, between gaps
                    assert all(part in TEXTS[each.place] for part in each.text.split(" … "))
                    for start, end, weight in each.keys:
                        assert 0 <= start < end <= len(each.text)
                        assert 0 < weight <= 1
                    count += 1
                if name == "duplicate_token" and kept and kept[0].value > 0.5:
                    row, (start, end, _) = kept[0].row, kept[0].keys[0]
                    assert kept[0].text[slice(*row)] == kept[0].text[start:end]
    assert count > 100


def made(values, **others):
    """An atlas of two layers of two heads in which `previous_token` has these means, [layer, head], in 20 texts."""
    tally = Tally([0, 1], [2, 2], prompts=20)
    for name in MEASURES:
        tally.rows[name][:] = 100
        tally.replicate_rows[name][:] = 100
    tally.chance["previous_token"][:] = round(100 * UNIT * 0.1)
    tally.sums["previous_token"][:] = np.rint(100 * UNIT * np.array(values))
    noise = np.random.default_rng(0).normal(0, 0.01, (REPLICATES, 1, 1))
    tally.replicates["previous_token"][:] = np.rint(100 * UNIT * (np.array(values) + noise)).clip(0)
    return Atlas("made", "decoder", dataclasses.replace(tally, **others), {})


def test_heads_are_named_where_the_interval_is_far_above_chance():
    # a quarter of what is possible above chance, 0.1, is 0.325
    atlas = made([[0.9, 0.34], [0.1, 0.33]])
    assert atlas.heads("previous_token") == [(0, 0)]
    assert atlas.roles() == [[["previous_token"], []], [[], []]]
    assert atlas.nearest(0, 0)[0] == "previous_token"
    np.testing.assert_allclose(atlas.above_chance("previous_token"), (atlas.mean("previous_token") - 0.1) / 0.9)
    assert atlas.columns()["role"] == ["previous token", "", "", ""]


def test_what_changed_between_two_atlases(atlas):
    before, after = made([[0.5, 0.5], [0.5, 0.5]]), made([[0.5, 0.52], [0.8, 0.5]])
    difference = AtlasDifference(before, after)
    assert difference.is_paired
    strongest = difference.strongest()
    # the replicates of the same prompts are paired, so that their noise is no part of the change
    assert [(each.layer, each.head, each.measure) for each in strongest] == [
        (1, 0, "previous_token"),
        (0, 1, "previous_token"),
    ]
    assert strongest[0].low == pytest.approx(0.3, abs=1e-5)
    assert difference.roles()["previous_token"] == (4, 4)
    assert len(difference.to_frame()) == 2
    apart = AtlasDifference(before, made([[0.5, 0.52], [0.8, 0.5]], fingerprint=1))
    assert not apart.is_paired
    assert [each[:2] for each in apart.strongest()] == [(1, 0)]
    assert not AtlasDifference(atlas, atlas).strongest()
    with pytest.raises(RegardError, match="other layers or heads"):
        AtlasDifference(before, atlas).strongest()
    assert AtlasDifference(before, atlas).roles()


def test_effects_stand_beside_attention(smollm2):
    atlas = regard.atlas(smollm2, TEXTS[:3], effects=2)
    exact = regard.effects_of_heads(smollm2, [smollm2.encode(text)[0] for text in TEXTS[:2]])
    np.testing.assert_allclose(atlas.effects.values, exact.values)
    assert len(atlas.to_frame()) == 24
    assert atlas.to_frame()["effect"].tolist() == pytest.approx(exact.mean.ravel().tolist())
    assert regard.atlas(smollm2, TEXTS[:1]).effects is None


def test_long_texts_are_cut_only_where_asked(smollm2, atlas):
    count = len(smollm2.encode(TEXTS[0])[0])
    assert atlas.tally.cut == 0
    found = regard.atlas(smollm2, TEXTS[:2], max_tokens=count)
    assert (found.tally.cut, found.tally.tokens) == (1, 2 * count)
    assert found.settings["max_tokens"] == count


@pytest.mark.parametrize(
    ("texts", "options", "why"),
    [
        (["a"], {}, "text 0: it has 1 tokens"),
        ([], {}, "at least one text"),
        ("a text", {}, "a list of at least one text"),
        (["two words", " "], {}, "text 1 is empty"),
        (["two words"], {"max_tokens": 1}, "max_tokens must be a whole number, at least 2"),
        (["two words"], {"effects": -1}, "effects must be a whole number, at least 0"),
        (["two words"], {"segments": "verses"}, "segments"),
        (["a " * 3000], {}, "the model takes at most 2048"),
    ],
)
def test_bad_input_is_told(smollm2, texts, options, why):
    with pytest.raises(RegardError, match=why):
        regard.atlas(smollm2, texts, **options)


def test_measures_and_heads_that_are_not_there(atlas):
    for call, why in (
        (lambda: atlas.mean("inductoin"), "induction"),
        (lambda: atlas.heads("entropy"), "no head is named by entropy"),
        (lambda: atlas.examples(9, 0), "there is no layer 9"),
        (lambda: atlas.examples(0, 4), "layer 0 has no head 4"),
        (lambda: atlas.quantile("entropy", 50), "between 0 and 1"),
    ):
        with pytest.raises(RegardError, match=why):
            call()


def test_pages_and_pictures(atlas, tmp_path):
    from regard.view.atlas_terminal import atlas_view, difference_view

    pytest.importorskip("matplotlib")
    atlas.plot("previous_token", tmp_path / "heads.png")
    assert (tmp_path / "heads.png").read_bytes()[:4] == b"\x89PNG"
    atlas.save(tmp_path / "a.html")
    assert "regard-view" in (tmp_path / "a.html").read_text(encoding="utf-8")
    assert atlas_view(atlas).renderables
    assert difference_view(AtlasDifference(atlas, atlas)).renderables


def test_an_encoder_and_a_model_of_transformers():
    config = transformers.BertConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
    )
    torch.manual_seed(0)
    bert = transformers.BertModel(config).eval()
    tokenizer = words(60)
    atlas = regard.atlas(bert, ["w1 w2 w3 w1 w2", "w5 w6 w5"], tokenizer=tokenizer)
    assert atlas.kind == "encoder"
    assert np.isfinite(atlas.mean("previous_token")).all()
    # who sees what comes next cannot be asked whether he finds it
    assert np.isnan(atlas.mean("retrieval")).all()
    assert np.isnan(atlas.mean("prefix_matching")).all()
    assert atlas.roles()


def words(count):
    from tokenizers import Tokenizer, models, pre_tokenizers

    backend = Tokenizer(models.WordLevel({f"w{number}": number for number in range(count)}, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="w0")


def test_a_model_without_attention_is_refused():
    from benchmarks.zoo import ARCHITECTURES

    if "mamba2" not in ARCHITECTURES:
        pytest.skip("this transformers has no mamba2")
    model = ARCHITECTURES["mamba2"].build("eager")
    with pytest.raises(RegardError, match="text 0: Mamba2ForCausalLM attends in no way"):
        regard.atlas(model, ["w5 w6 w7"], tokenizer=words(model.config.vocab_size))


@pytest.mark.parametrize("name", ["gemma3", "deepseek_v3", "gpt_neox", "qwen3_next"])
def test_other_architectures_are_measured_or_refused_layer_by_layer(name):
    from benchmarks.zoo import ARCHITECTURES

    if name not in ARCHITECTURES:
        pytest.skip(f"this transformers has no {name}")
    architecture = ARCHITECTURES[name]
    model = architecture.build("sdpa" if "sdpa" in architecture.implementations else "eager")
    size = model.config.get_text_config().vocab_size
    atlas = regard.atlas(model, ["w5 w6 w7 w5 w6 w7 w9", "w9 w8 w9 w8 w9"], tokenizer=words(size))
    seen = set(np.flatnonzero(np.isfinite(atlas.mean("previous_token")).any(1)))
    assert seen | {atlas.layers.index(layer) for layer in atlas.refused} == set(range(len(atlas.layers)))
    assert seen
