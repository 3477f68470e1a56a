"""Sources: estimates beside a derivative taken another way, effects beside plain runs of a shorter prompt."""

import io
import json
import pickle
from dataclasses import replace
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from benchmarks.zoo import DECODERS
from benchmarks.zoo.decoders import UNWRITTEN
from rich.console import Console
from torch.overrides import TorchFunctionMode

import regard.api
from regard.config import from_dict
from regard.errors import RegardError
from regard.language_model import LanguageModel
from regard.models.gpt import GPT, GPTConfig
from regard.reading import probe as probing
from regard.reading.answer_run import AnswerRun
from regard.reading.asked import Asked
from regard.reading.files import check_sources
from regard.reading.passages import passages_of, positions, question_in
from regard.reading.probe import Probe
from regard.reading.record import Sequence, Token
from regard.reading.source_record import Sentence, Source, Sources, Verdict
from regard.reading.sources import RESTS, SourceOptions, find_sources
from regard.view.sources import SourcesView

pytest.importorskip("transformers")

IDS = torch.randint(3, 101, (14,), generator=torch.Generator().manual_seed(2)).tolist()
PROMPT, ANSWER = IDS[:10], IDS[10:]
PASSAGES = torch.tensor([-1, 0, 0, 0, 1, 1, 2, 2, -1, -1, -1, -1, -1])
SOFTMAXES = (torch.softmax, torch.nn.functional.softmax, torch.Tensor.softmax)
# what has no softmax attention has nothing to hide, or gives no logits
NOTHING = {"mamba", "mamba2", "rwkv", "qwen2_vl_text"}


class Weakened(TorchFunctionMode):
    """Adds log(1 − strength) of each passage to all scores of its keys but those of its own queries."""

    def __init__(self, strengths):
        super().__init__()
        self.strengths, self.count = strengths, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        size = len(PASSAGES)
        if func in SOFTMAXES and args[0].dim() > 2 and args[0].shape[-2] == size <= args[0].shape[-1]:
            weaker = torch.log1p(-self.strengths)[PASSAGES.clamp(min=0)].where(PASSAGES >= 0, 0.0)
            others = (PASSAGES[:, None] != PASSAGES) * weaker
            scores = torch.nn.functional.pad(others, (0, args[0].shape[-1] - size)).to(args[0].dtype) + args[0]
            args, self.count = (scores, *args[1:]), self.count + 1
        return func(*args, **(kwargs or {}))


def derivatives(model):
    """By the strength with which each passage is hidden, at 0: what autograd gives of scores written out."""
    strengths = torch.zeros(3, requires_grad=True)
    # older versions share Gemma 3n's keys in a cache alone, which a probe of its window has not
    model.config.use_cache = False
    with Weakened(strengths) as weakened:
        logits = model(input_ids=torch.tensor([IDS[:-1]])).logits[0, -len(ANSWER) :]
    assert weakened.count
    found = logits.double().log_softmax(-1)[range(len(ANSWER)), ANSWER].sum()
    return torch.autograd.grad(found, strengths)[0].numpy()


def probed(module, begin=0):
    run = AnswerRun(module, PROMPT, ANSWER)
    probe = Probe(module, PASSAGES, range(9, 13), begun=run.begin(begin))
    with probe.open():
        found = run.run()
        torch.autograd.backward(found.sum())
    return probe, found.detach(), run


def by_passage(probe):
    return np.array([float(probe.effects[number == PASSAGES].sum()) for number in range(3)])


@pytest.mark.parametrize("name", [name for name in DECODERS if name not in NOTHING | UNWRITTEN])
def test_an_estimate_is_the_derivative_by_how_much_is_hidden(name):
    architecture = DECODERS[name]
    # Falcon's own biases differ between the two where they are rounded
    is_same = "sdpa" in architecture.implementations and name != "falcon_alibi"
    implementation = "sdpa" if is_same else "eager"
    probe, *_ = probed(architecture.build(implementation))
    # what cannot be read gives no gradient, and is told
    unread = len(architecture.unread.get("decoder", ()))
    if probe.refused:
        assert unread or name == "diffllama", probe.refused
        return
    expected = derivatives(architecture.build("eager"))
    np.testing.assert_allclose(by_passage(probe), expected, atol=2e-4, rtol=2e-3)
    # rows up to the end of the first passage look at no other, and are run by themselves where a cache holds them
    later, *_ = probed(architecture.build(implementation), begin=4)
    np.testing.assert_allclose(by_passage(later), expected, atol=2e-4, rtol=2e-3)
    assert abs(expected).max() > 1e-3


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "mistral"])
def test_blocks_that_are_run_again_give_the_same(name, monkeypatch):
    module = DECODERS[name].build("sdpa")
    kept, _, run = probed(module)
    monkeypatch.setattr(probing, "MOST_KEPT", 0)
    again, _, run_again = probed(module)
    assert again.recomputes
    assert not kept.recomputes
    assert not again.refused
    np.testing.assert_allclose(again.effects, kept.effects, atol=1e-6)
    # the cache is filled once
    spans = [(2, 4), (6, 7)]
    np.testing.assert_allclose(run_again.without(spans), run.without(spans), atol=1e-5)


def test_a_probe_leaves_the_model_as_it_was(monkeypatch):
    monkeypatch.setattr(probing, "MOST_KEPT", 0)
    module = DECODERS["llama"].build("sdpa")
    ids = torch.tensor([IDS])
    before = module(input_ids=ids).logits
    needs = [each.requires_grad for each in module.parameters()]
    probed(module)
    assert [each.requires_grad for each in module.parameters()] == needs
    assert all(each.grad is None for each in module.parameters())
    assert all("forward" not in vars(each) for each in module.modules())
    assert torch.equal(module(input_ids=ids).logits, before)


def own(**settings):
    torch.manual_seed(0)
    sizes = {"model_dim": 16, "num_heads": 4, "num_key_value_heads": 2, "num_layers": 2, "feed_forward_dim": 16}
    model = GPT(GPTConfig(**sizes, positions="rotary", norm="rms", **settings), 101).double().eval()
    for parameter in model.parameters():
        parameter.data *= 6
    return model


@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize(("most", "begin"), [(1 << 30, 0), (0, 0), (1 << 30, 4), (1 << 30, 8)])
def test_an_own_model_is_probed_alike(window, most, begin, monkeypatch):
    monkeypatch.setattr(probing, "MOST_KEPT", most)
    module = own(window=window)
    probe, *_ = probed(module, begin)
    assert not probe.refused
    assert probe.begun == begin

    def weakened(strengths):
        """log p with scores written out."""

        def attend(query, key, value, mask):
            key, value = (each.repeat_interleave(2, dim=1) for each in (key, value))
            size = query.shape[2]
            seen = torch.ones(size, size, dtype=torch.bool).tril() if mask is None else mask
            weaker = torch.log1p(-strengths)[PASSAGES.clamp(min=0)].where(PASSAGES >= 0, 0.0)
            # to rows that are run before the others nothing is hidden
            hidden = (PASSAGES[:, None] != PASSAGES) * (torch.arange(size) >= begin)[:, None]
            scores = query @ key.mT * query.shape[-1] ** -0.5 + hidden * weaker
            return scores.masked_fill(~seen, -torch.inf).softmax(-1) @ value

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("regard.models.gpt._attend", attend)
            logits = module(torch.tensor([IDS[:-1]])).logits[0, -len(ANSWER) :]
        return logits.log_softmax(-1)[range(len(ANSWER)), ANSWER].sum()

    strengths = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(weakened(strengths), strengths)[0].numpy()
    # the kernel's context is that of float64, sums over tiles are not
    np.testing.assert_allclose(by_passage(probe), expected, rtol=1e-4, atol=1e-6)
    assert abs(expected).max() > 1e-2


@pytest.mark.parametrize("spans", [[(1, 4)], [(0, 2)], [(2, 3), (5, 9)], [(8, 10)]])
@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral", "own"])
def test_what_is_removed_is_not_there(name, spans):
    module = own() if name == "own" else DECODERS[name].build("sdpa")
    run = AnswerRun(module, PROMPT, ANSWER)
    with torch.no_grad():
        run.run()
        kept = [id for position, id in enumerate(PROMPT) if not any(first <= position < end for first, end in spans)]
        logits = module(torch.tensor([[*kept, *ANSWER[:-1]]])).logits[0, -len(ANSWER) :]
    expected = logits.double().log_softmax(-1)[range(len(ANSWER)), ANSWER]
    np.testing.assert_allclose(run.without(spans), expected, atol=1e-5)
    # the prefix is not run again, where a cache can be cut
    assert name == "mistral" or run.passes < 2 or spans[0][0] == 0


def test_of_a_long_prompt_gradients_go_back_to_its_last_passage_alone(monkeypatch):
    # of 24 tokens, in two layers of 16 numbers
    monkeypatch.setattr(probing, "MOST_KEPT", 24 * 2 * 16 * 18 * 8)
    begun, begin = [], AnswerRun.begin
    monkeypatch.setattr(AnswerRun, "begin", lambda run, count: begun.append(begin(run, count)) or begun[-1])
    long = find_sources(asked(), SourceOptions())
    monkeypatch.undo()
    short = find_sources(asked(), SourceOptions())
    assert begun == [TEXT.index(" Who?")]
    assert long.method == "gradient"
    assert long.passes < short.passes
    # the whole prompt has been run either way
    assert long.log_probability == pytest.approx(short.log_probability, abs=1e-9)
    effects = {each.start: each.effect for each in short if each.effect is not None}
    assert all(
        each.effect is None or each.effect == pytest.approx(effects.get(each.start, each.effect)) for each in long
    )


def test_all_of_a_prompt_cannot_be_removed():
    run = AnswerRun(own(), PROMPT, ANSWER)
    run.run()
    with pytest.raises(RegardError, match="nothing of the prompt is left"):
        run.without([(0, 10)])


# passages


PAGE = "The lamp is red. Ada is here.\n\n灯塔是白色的。小明住在这里。\n\nWho is here?"


def test_passages_and_the_question():
    asks = question_in(PAGE, 0, len(PAGE))
    assert PAGE[slice(*asks)] == "Who is here?"
    texts = [PAGE[slice(*place)] for place in passages_of(PAGE, [(0, len(PAGE))], "sentences", asks)]
    assert texts == ["The lamp is red.", "Ada is here.", "灯塔是白色的。", "小明住在这里。"]
    paragraphs = [PAGE[slice(*place)] for place in passages_of(PAGE, [(0, len(PAGE))], "paragraphs", asks)]
    assert paragraphs == ["The lamp is red. Ada is here.", "灯塔是白色的。小明住在这里。"]


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("Who is here?\n\nAda is. Bo is not.", "Who is here?"),
        ("Ada is. Bo is not.\n\nSummarize this.", "Summarize this."),
        ("Ada is here. Who else?", "Who else?"),
        ("Ada is here. Bo is not.", None),
        ("灯塔是白色的。谁住在这里？", "谁住在这里？"),
        ("Is it red? It is.\n\nIs it?", "Is it?"),
        ("one", None),
        ("Ada is here.\nBo is not.\nQuestion: Who is here?\nAnswer:", "Question: Who is here?\nAnswer:"),
        ("Ada is here.\n\nWho is here?\n\nAnswer briefly.", "Who is here?\n\nAnswer briefly."),
    ],
)
def test_the_question_is_found(text, question):
    found = question_in(text, 0, len(text))
    assert (None if found is None else text[slice(*found)]) == question


def letters(text):
    return Sequence(text, [Token(3 + ord(each) % 90, each, at, at + 1, []) for at, each in enumerate(text)], [])


def test_positions_are_the_tokens_of_a_place():
    assert positions(letters("ab cd. ef"), [(0, 6), (7, 9)], 9) == [(0, 6), (7, 9)]
    with pytest.raises(RegardError, match="has no token of its own"):
        positions(letters("ab cd"), [(0, 2), (3, 5)], 2)


@pytest.mark.parametrize(
    ("grain", "why"),
    [
        ("lines", "grain must be sentences"),
        ([(0, 4), (3, 8)], "overlap"),
        ([(0, 400)], "a passage is a pair of characters"),
        ([], "no passage beside the question"),
    ],
)
def test_a_split_that_makes_no_sense_is_refused(grain, why):
    with pytest.raises(RegardError, match=why):
        passages_of(PAGE, [(0, len(PAGE))], grain, None)


# sources


TEXT = "Red lamp. Ada here. Bo away. Who?"


def asked(module=None, text=TEXT, answer=" ada is", **settings):
    return Asked(own() if module is None else module, letters(text + answer), len(text), **settings)


def plain(module, ids, answer):
    with torch.no_grad():
        logits = module(torch.tensor([[*ids, *answer[:-1]]])).logits[0, -len(answer) :]
    return logits.double().log_softmax(-1)[range(len(answer)), answer]


@pytest.fixture
def every_passage(monkeypatch):
    """The answer rests on each, whatever that costs, so that all are removed."""
    monkeypatch.setattr("regard.reading.sources.RESTS", -100.0)
    monkeypatch.setattr("regard.reading.sources.MOST_PASSES", 100.0)


def test_effects_are_what_a_prompt_without_the_passage_gives(every_passage, monkeypatch):
    case = asked()
    steps = []
    found = find_sources(case, SourceOptions(confirm=2), progress=steps.append)
    # the estimates, and each passage
    assert sum(steps) == 4
    assert [each.text for each in sorted(found, key=lambda each: each.start)] == ["Red lamp.", "Ada here.", "Bo away."]
    assert found.question.text == "Who?"
    assert found.answer == "ada is"
    ids, count = case.ids[: case.prompt], case.prompt
    whole = plain(case.module, ids, case.answer)
    assert found.log_probability == pytest.approx(float(whole.sum()), abs=1e-9)
    for each in found:
        change = plain(case.module, ids[: each.start] + ids[each.end : count], case.answer) - whole
        np.testing.assert_allclose(each.token_effects, change, atol=1e-9)
        assert each.effect == pytest.approx(float(change.sum()), abs=1e-9)
    assert found[0].effect <= found[1].effect <= found[2].effect
    assert sum(each.share for each in found) in (pytest.approx(1), 0)
    # what stands before the first passage's end needs no gradient
    assert 2.5 < found.passes < 5
    assert json.loads(json.dumps(found.to_json()))["sources"][0]["effect"] == found[0].effect
    # where the first is not enough, those that might be are removed at once
    monkeypatch.setattr("regard.reading.sources.RESTS", 100.0)
    steps = []
    found = find_sources(case, SourceOptions(confirm=2), progress=steps.append)
    assert sum(steps) == 3
    assert [each.effect is None for each in found] == [False, True, True]
    gone = {
        place for each in sorted(found, key=lambda each: each.estimate)[:2] for place in range(each.start, each.end)
    }
    both = plain(case.module, [id for place, id in enumerate(ids) if place not in gone], case.answer) - whole
    assert found.together == pytest.approx(float(both.sum()), abs=1e-9)


def test_what_ends_an_answer_is_no_part_of_it():
    case = asked(answer=" ada!", ends=1)
    found = find_sources(case, SourceOptions())
    assert found.answer == "ada"
    assert len(found[0].token_effects) == 4
    assert found.to_json() == find_sources(asked(answer=" ada"), SourceOptions()).to_json()


def test_a_part_of_the_answer_is_judged_by_itself(every_passage):
    case = asked()
    whole = find_sources(case, SourceOptions())
    parts = [find_sources(case, SourceOptions(of=of)) for of in (" ada", (4, 7))]
    by_start = [{each.start: each.effect for each in found} for found in (whole, *parts)]
    for start, effect in by_start[0].items():
        assert effect == pytest.approx(by_start[1][start] + by_start[2][start], abs=1e-9)


def test_each_sentence_of_an_answer_has_a_verdict_of_its_own_tokens(monkeypatch):
    monkeypatch.setattr("regard.reading.sources.RESTS", 0.01)
    case = asked(answer=" Ada is. Bo was. 是")
    found = find_sources(case, SourceOptions())
    assert [each.text for each in found.sentences] == ["Ada is.", "Bo was.", "是"]
    # the space before it belongs to the first, the one behind a stop to what it ends
    starts = {"Ada is.": (0, 9), "Bo was.": (9, 17), "是": (17, 18)}
    for sentence in found.sentences:
        assert found.answer[sentence.start : sentence.end] == sentence.text
        first, last = starts[sentence.text]
        effects = [each.token_effects and sum(each.token_effects[first:last]) for each in found]
        wanted = [number for number, effect in enumerate(effects) if effect is not None and effect <= -0.01]
        if wanted or not sentence.verdict.either:
            assert list(sentence.verdict.on) == wanted
    kept = found.to_json()
    check_sources(kept, case.tokens.text)
    kept["sentences"][0]["verdict"]["on"] = [7]
    with pytest.raises((ValueError, LookupError)):
        check_sources(kept, case.tokens.text)
    # one sentence says what the whole answer says
    assert find_sources(asked(), SourceOptions()).sentences == ()


def test_passages_are_sought_within_a_part_of_the_prompt():
    whole = find_sources(asked(), SourceOptions(confirm=3))
    for within in ("Ada here. Bo away.", (10, 28)):
        found = find_sources(asked(), SourceOptions(within=within, confirm=3))
        assert sorted(each.text for each in found) == ["Ada here.", "Bo away."]
        effects = {each.text: each.effect for each in whole}
        for each in found:
            if None not in (each.effect, effects[each.text]):
                assert each.effect == pytest.approx(effects[each.text], abs=1e-9)
    words = find_sources(asked(), SourceOptions(within="Ada here.", grain="words"))
    assert sorted(each.text for each in words) == ["Ada", "here."]
    for within, why in (
        (". ", "3 times; give its characters"),
        ("ada", "does not have 'ada'"),
        ((40, 42), "nothing of"),
    ):
        with pytest.raises(RegardError, match=why):
            find_sources(asked(), SourceOptions(within=within))


def test_curves_are_runs_of_shorter_prompts(monkeypatch, tmp_path):
    monkeypatch.setattr("regard.reading.sources.RESTS", 100.0)
    case = asked()
    found = find_sources(case, SourceOptions())
    steps = []
    curves = found.curves(orders=2, progress=steps.append)
    assert list(curves.removed) == list(curves.kept) == [0, 1, 2, 3]
    assert curves.random_deletion.shape == curves.random_insertion.shape == (2, 4)
    assert sum(steps) == 3 * 8

    def left(gone):
        places = {place for each in gone for place in range(each.start, each.end)}
        ids = [id for place, id in enumerate(case.ids[: case.prompt]) if place not in places]
        return float(plain(case.module, ids, case.answer).sum())

    np.testing.assert_allclose(curves.deletion, [left(found[:count]) for count in range(4)], atol=1e-9)
    np.testing.assert_allclose(curves.insertion, [left(found[count:]) for count in range(4)], atol=1e-9)
    # all orders begin and end alike
    np.testing.assert_allclose(curves.random_deletion[:, [0, -1]], [curves.deletion[[0, -1]]] * 2)
    figure = curves.plot(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size
    np.testing.assert_array_equal(figure.axes[0].lines[1].get_ydata(), curves.deletion)
    with pytest.raises(RegardError, match="not at hand"):
        pickle.loads(pickle.dumps(found)).curves()
    # where nothing but passages is asked, all of them are never gone
    bare = find_sources(asked(text="RedAda"), SourceOptions(grain=[(0, 3), (3, 6)]))
    assert bare.together is None
    assert list(bare.curves(orders=1).removed) == [0, 1]


def test_a_contrast_is_the_difference_of_two_answers(every_passage):
    case = asked()
    other = [10, 20, 30, 40]
    found = find_sources(case, SourceOptions(), contrast=other)
    ids, count = case.ids[: case.prompt], case.prompt
    for each in found:
        less = ids[: each.start] + ids[each.end : count]
        change = plain(case.module, less, case.answer).sum() - plain(case.module, ids, case.answer).sum()
        change -= plain(case.module, less, other).sum() - plain(case.module, ids, other).sum()
        assert each.effect == pytest.approx(float(change), abs=1e-9)


@pytest.mark.parametrize(
    ("case", "options", "why"),
    [
        ({"answer": ""}, {}, "the answer is empty"),
        ({"text": "red lamp", "answer": " ada"}, {}, "one passage and nothing else"),
        ({}, {"of": "bo"}, "the answer does not have 'bo'"),
        ({}, {"of": (3, 30)}, "of is a pair of tokens of the answer, which has 7"),
        ({}, {"question": "when?"}, "does not have the question"),
        ({}, {"grain": "lines"}, "grain must be"),
    ],
)
def test_what_makes_no_sense_is_refused(case, options, why):
    with pytest.raises(RegardError, match=why):
        find_sources(asked(**case), SourceOptions(**options))


def test_options_are_checked():
    with pytest.raises(RegardError, match="confirm"):
        SourceOptions.of_settings({"confirm": 0})
    with pytest.raises(RegardError, match="grian"):
        SourceOptions.of_settings({"grian": "sentences"})
    assert SourceOptions.of_settings({"grain": [(0, 3)]}).grain == [(0, 3)]
    assert from_dict(SourceOptions, {}, where="").confirm == 3


def test_a_model_in_training_mode_is_refused():
    with pytest.raises(RegardError, match="training mode"):
        find_sources(asked(own().train()), SourceOptions())


def test_weights_that_are_no_numbers_are_told():
    module = own()
    module.blocks[0].attention.in_proj.weight.data[0, 0] = torch.nan
    with pytest.raises(RegardError, match="no finite probability"):
        find_sources(asked(module), SourceOptions())


def test_where_gradients_are_not_to_be_had_heads_that_copy_stand_in():
    module = own()
    for each in module.modules():
        each.register_forward_hook(
            lambda module, inputs, output: output.detach() if isinstance(output, torch.Tensor) else None
        )
    found = find_sources(asked(module), SourceOptions())
    assert found.method == "heads"
    assert found.why
    assert all(each.estimate <= 0 for each in found)
    whole = {each.text: each.effect for each in find_sources(asked(), SourceOptions())}
    assert all(each.effect is None or each.effect == pytest.approx(whole[each.text] or each.effect) for each in found)


def test_where_one_is_enough_no_others_are_tried_in_vain(every_passage, monkeypatch):
    found = find_sources(asked(), SourceOptions())
    assert found.together is None
    assert found.verdict.on == tuple(range(len([each for each in found if each.effect is not None])))
    # all are tried while each is one of them
    assert len(found.verdict.on) == len(find_sources(asked(), SourceOptions(confirm=1)).verdict.on) == 3
    # but not beyond what four passes cost
    monkeypatch.setattr("regard.reading.sources.MOST_PASSES", 4.0)
    some = find_sources(asked(), SourceOptions())
    assert some.passes < 4
    assert 0 < len(some.verdict.on) < 3


def confirmed(effects, group, *, estimates=None, confirm=3, cost=0.0):
    """The passages that are removed, in turn, and the groups."""
    from regard.reading.sources import confirm_strongest

    asked, none = [], np.zeros(1)

    def removed(number):
        asked.append(number)
        return effects[number], none

    def together(numbers):
        asked.append(tuple(numbers))
        return group, none

    found = confirm_strongest(
        effects if estimates is None else estimates, removed, together, lambda number: cost, confirm
    )
    return asked, found


def test_the_strongest_are_removed_until_no_more_can_be_named():
    assert confirmed([-5.0, -0.5, -0.2], 0.0)[0] == [0]
    assert confirmed([-0.2, -5.0, -3.0, -0.5], 0.0)[0] == [1, 2]
    # nothing rests on any of them
    asked, found = confirmed([-0.5, -0.4, -0.3, -0.2], -0.9)
    assert asked == [0, (0, 1, 2)]
    assert (found.tried, found.together[0]) == (3, -0.9)
    # either is enough, or the second is what counts
    assert confirmed([-0.5, -0.4, -0.3, -0.2], -9.0)[0] == [0, (0, 1, 2), 1, 2]
    asked, found = confirmed([-0.5, -5.0, -0.2], -9.0, estimates=[-3.0, -2.0, 0.0])
    assert asked == [0, (0, 1, 2), 1]
    assert found.together is None
    # what is found ends it where more would cost too much
    assert confirmed([-5.0, -4.0], 0.0, cost=4.5)[0] == [0]
    assert confirmed([-0.5, -4.0], -4.0, estimates=[-2.0, -1.0], cost=4.5)[0] == [0, (0, 1), 1]
    assert confirmed([-0.5, -0.4], -9.0, confirm=1)[0] == [0]


def test_a_model_of_few_tokens_has_sources_too():
    found = find_sources(asked(own(max_length=60)), SourceOptions())
    assert found.method == "gradient"
    assert len(found) == 3


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_what_is_around_makes_no_difference(mode):
    alone = find_sources(asked(), SourceOptions()).to_json()
    module = own()
    with mode():
        assert find_sources(asked(module), SourceOptions()).to_json() == alone
    assert alone["method"] == "gradient"


def test_threads_ask_one_model_at_once():
    module, found = own(), []
    alone = find_sources(asked(module), SourceOptions()).to_json()
    ask = [Thread(target=lambda: found.append(find_sources(asked(module), SourceOptions()).to_json())) for _ in "abc"]
    for each in ask:
        each.start()
    for each in ask:
        each.join()
    assert found == [alone] * 3


def test_a_watch_of_the_user_sees_nothing_of_it():
    module = own()
    with regard.watching(module) as watch:
        find_sources(asked(module), SourceOptions())
    assert len(watch) == 0


def test_verdicts():
    from regard.reading.sources import _verdict

    one = _verdict([-RESTS - 1, 0.1, None], -4.0, tried=2, has_question=True)
    assert (one.on, one.either, str(one)) == ((0,), False, "rests on ①")
    assert str(_verdict([-5.0, -3.0], -9.0, tried=2, has_question=True)) == "rests on ① and ②"
    either = _verdict([-0.1, -0.1], -9.0, tried=2, has_question=True)
    assert either.either
    assert str(either) == "rests on ① or ②"
    assert _verdict([-0.1], None, tried=1, has_question=True).on == ()
    # an estimate alone is no verdict
    assert _verdict([None], None, tried=0, has_question=False).on == ()


# models, readings, the command line


@pytest.fixture(scope="module")
def chatting(tiny_smollm2):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REGARD_CACHE", str(tiny_smollm2))
        yield regard.load("smollm2", dtype="float64")


MESSAGE = "Ada mended the lamp. Bo was away.\n\nWho mended the lamp?"


def test_a_model_and_a_reading_of_it_have_the_same_sources(chatting):
    reading = chatting.read(MESSAGE, chat=True, max_new_tokens=6)
    found = reading.sources(confirm=1)
    again = chatting.sources(MESSAGE, chat=True, max_new_tokens=6, confirm=1)
    assert found.to_json() == again.to_json()
    assert [each.text for each in sorted(found, key=lambda each: each.start)] == [
        "Ada mended the lamp.",
        "Bo was away.",
    ]
    assert found.question.text == "Who mended the lamp?"
    text = reading.sequences["text"].text
    assert all(text[each.start : each.end] == each.text for each in found)


def test_a_message_may_be_the_question_to_all_others(chatting):
    turns = [
        {"role": "system", "content": "Ada mended the lamp. Bo was away."},
        {"role": "user", "content": "Is it red?"},
        {"role": "assistant", "content": "No. It is blue."},
        {"role": "user", "content": "Who mended it?"},
    ]
    found = chatting.sources(messages=turns, answer="Ada did.")
    assert found.question.text == "Who mended it?"
    texts = [each.text for each in sorted(found, key=lambda each: each.start)]
    assert texts == ["Ada mended the lamp.", "Bo was away.", "Is it red?"]
    whole = chatting.sources(messages=turns, answer="Ada did.", grain="turns")
    assert sorted(each.text for each in whole) == ["Ada mended the lamp. Bo was away.", "Is it red?"]


def test_sources_are_drawn_and_shown(chatting, tmp_path):
    reading = chatting.read(MESSAGE, chat=True, max_new_tokens=4)
    figure = reading.plot("sources", tmp_path / "sources.png")
    assert (tmp_path / "sources.png").stat().st_size
    found = reading.sources()
    told = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert f"This answer {found.verdict}" in told
    assert [each.text for each in found] == [text for text in told if text in (MESSAGE[:20], MESSAGE[21:33])]
    # sources that are kept are drawn as they are
    kept = replace(reading, settings={**reading.settings, "sources": {**found.to_json(), "answer": "kept"}})
    assert kept.plot("sources").axes[0].texts[0].get_text() == "kept"
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(SourcesView(found))
    shown = console.export_text()
    assert f"This answer {found.verdict}" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 60
    assert shown.index(found[0].text) < shown.index(found[1].text)


def test_an_answer_may_rest_on_more_passages_than_there_are_circled_numbers():
    named = tuple(range(22))
    sources = tuple(Source("word", n, n + 1, -2.0, -2.0, (-2.0,), 0.04) for n in range(24))
    verdict = Verdict(named, False, "rests on many")
    found = Sources("an answer", sources, None, -1.0, None, verdict, (Sentence("an answer", 0, 9, verdict),))
    console = Console(width=70, record=True, file=io.StringIO())
    console.print(SourcesView(found))
    shown = console.export_text()
    assert all(f"\n{name} " in shown for name in ("①", "⑳", "(21)", "(22)"))
    assert max(map(len, shown.splitlines())) <= 70


def test_an_answer_from_elsewhere(chatting):
    found = regard.sources(chatting, MESSAGE, chat=True, answer="Ada did.", contrast="Bo did.")
    assert found.answer == "Ada did."
    turns = [{"role": "user", "content": MESSAGE}]
    assert regard.sources(chatting, messages=turns, answer="Ada did.", contrast="Bo did.")[0] == found[0]
    with pytest.raises(RegardError, match="the answer is empty"):
        regard.sources(chatting, MESSAGE, chat=True, answer="")


def test_both_libraries_agree(tiny_smollm2, monkeypatch):
    monkeypatch.setenv("REGARD_CACHE", str(tiny_smollm2))
    ours, theirs = (regard.load("smollm2", dtype="float64", library=name) for name in ("regard", "transformers"))
    found, others = (each.sources(MESSAGE, chat=True, answer="Ada did.", confirm=2) for each in (ours, theirs))
    assert isinstance(ours, LanguageModel)
    assert others.method == found.method == "gradient"
    for one, other in zip(found, others, strict=True):
        assert one.text == other.text
        assert one.estimate == pytest.approx(other.estimate, rel=1e-3, abs=1e-4)
        assert one.effect is other.effect is None or one.effect == pytest.approx(other.effect, abs=1e-4)


def test_a_reading_without_its_model_says_so(chatting):
    reading = replace(chatting.read(MESSAGE, chat=True, max_new_tokens=2), knockout=None)
    with pytest.raises(RegardError, match="with the model at hand"):
        reading.sources()
    with pytest.raises(RegardError, match="with the model at hand"):
        chatting.read(text=MESSAGE).sources()


def test_quantised_weights_give_no_gradient_and_still_sources(tiny_smollm2, monkeypatch):
    monkeypatch.setenv("REGARD_CACHE", str(tiny_smollm2))
    found = regard.load("smollm2", dtype="int8").sources(MESSAGE, chat=True, answer="Ada did.")
    assert found.method == "heads"
    assert "gradient" in found.why
    assert found[0].effect is not None


@pytest.mark.download
def test_smollm2_says_where_its_answer_stands():
    model = regard.load("smollm2")
    page = (
        "The lighthouse of Skerry Point was built in 1871. Its keeper, Alma, painted the door green every spring. In "
        "the storm of 1894 the great lamp cracked. A glassmaker named Bruno mended it in two days.\n\n"
    )
    found = model.sources(page + "Who mended the lamp?", chat=True, answer="Bruno mended the lamp.")
    assert found[0].text == "A glassmaker named Bruno mended it in two days."
    assert found.verdict.on == (0,)
    known = model.sources(page + "What is the capital of France?", chat=True, answer="The capital of France is Paris.")
    assert known.verdict.on == ()
    assert "no passage" in str(known.verdict)
    why = model.sources(
        page + "Who mended the lamp?", chat=True, answer="Alma mended the lamp.", contrast="Bruno mended the lamp."
    )
    assert why[0].text == "Its keeper, Alma, painted the door green every spring."
    assert why[-1].text == "A glassmaker named Bruno mended it in two days."
    assert SimpleNamespace(**found.to_json()).method == "gradient"
