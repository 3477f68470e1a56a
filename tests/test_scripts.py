"""Every script goes all the way as French does: train, translate, evaluate, align, read."""

import random
import unicodedata

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU

import regard
from regard.data.words import split_words

# words of each, and how its sentences are put together: what stands between words, and at the end
LANGUAGES = {
    "French": ("un deux trois quatre cinq sept neuf dix", " ", "."),
    "Vietnamese, decomposed": ("một hải bấy bốn năm sáu bảy tám", " ", "."),
    "Hebrew": ("אחת שתיים שלוש ארבע חמש שש שבע תשע", " ", "."),
    "Arabic": ("واحد اثنان ثلاثة أربعة خمسة ستة سبعة كتابًا", " ", "؟"),
    "Thai": ("หนึ่ง สอง สาม สี่ ห้า หก เจ็ด น้ำ", "", ""),
    "Lao": ("ຫນຶ່ງ ສອງ ສາມ ສີ່ ຫ້າ ຫົກ ເຈັດ ນ້ຳ", "", ""),
    "Khmer": ("មួយ ពីរ បី បួន ប្រាំ ខ្មែរ ភាសា ទឹក", "", "។"),
    "Burmese": ("တစ် နှစ် သုံး လေး ငါး ခြောက် မင်္ဂလာ ရေ", "", "။"),
}
SPACED = [*LANGUAGES][:4]
RECIPE = """
[data]
vocab_size = 380
[model]
type = "rnn"
attention = "additive"
embedding_dim = 24
hidden_dim = 48
dropout = 0.0
max_length = 64
[train]
steps = 75
threads = 1
device = "cpu"
batch_tokens = 512
learning_rate = 0.02
warmup_steps = 10
label_smoothing = 0.0
validate_every = 75
"""


def corpus(name):
    """Different sentences of one to four words, and the same with each word made the next."""
    spelt, between, end = LANGUAGES[name]
    words = spelt.split()
    draw = random.Random(7)
    chosen = {tuple(draw.randrange(8) for _ in range(draw.randint(1, 4))) for _ in range(40)}
    shifted = ([[words[(word + shift) % 8] for word in each] for shift in (0, 1)] for each in sorted(chosen))
    text = "".join("\t".join(between.join(side) + end for side in sides) + "\n" for sides in shifted)
    return unicodedata.normalize("NFD", text) if "decomposed" in name else text


@pytest.mark.parametrize("name", LANGUAGES)
def test_a_language_is_learnt_translated_measured_aligned_and_read(name, tmp_path):
    (tmp_path / "train.tsv").write_text(corpus(name), encoding="utf-8")
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    data = str(tmp_path / "train.tsv")
    translator = regard.train(tmp_path / "recipe.toml", out=tmp_path / "run", changes={"data.train": data})
    seen = translator.run.facts["look"]
    is_spaced = name in SPACED
    assert seen["figures"]["counted_in_characters"] == ([] if is_spaced else ["source", "target"])
    # learnt by heart, which is soon done
    pairs = translator.pairs("train")
    sources, references = [pair.source for pair in pairs], [pair.target for pair in pairs]
    written = translator.translate(sources)
    texts = [each.text for each in written]
    right = np.mean([text == reference for text, reference in zip(texts, references, strict=True)])
    assert right > 0.5
    # scores are those of sacrebleu with the tokenizer that the signature names
    quality = translator.evaluate("train")
    tokenizer = "13a" if is_spaced else "char"
    assert f"tok:{tokenizer}" in quality.signature
    assert quality.bleu == pytest.approx(BLEU(tokenize=tokenizer).corpus_score(texts, [references]).score)
    assert (quality.exact, quality.length_unit) == (right, "words" if is_spaced else "characters")
    assert len(quality.by_length) > (0 if is_spaced else 1)
    # a word is aligned where the same place of the target was written
    aligned = 0
    for source, generation, alignment in zip(sources, written, translator.alignments(sources, written), strict=True):
        assert alignment.shape == (len(split_words(generation.text)), len(split_words(source)))
        aligned += len(alignment) > 1
    assert aligned > len(sources) / 2
    longest = max(range(len(sources)), key=lambda index: len(sources[index]))
    reading = translator.read(sources[longest])
    words = reading.sequences["source"].words
    assert words == split_words(sources[longest])
    assert len(words) >= (4 if is_spaced else 6)
    # what was typed on another machine looks the same, and is
    other = [unicodedata.normalize("NFD", source) for source in sources[:9]]
    assert [each.text for each in translator.translate(other)] == texts[:9]
