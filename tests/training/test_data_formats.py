"""Runs on files as they come: the same text in any format is the same training, and weights of corpora last."""

import csv
import io
import json
import zipfile
from xml.sax.saxutils import escape

import pytest

import regard
from regard.errors import RegardError
from regard.training.run import Run


@pytest.fixture(scope="module")
def pairs(toy):
    return [tuple(line.split("\t")) for line in toy.read_text().splitlines()]


def weights_of(run):
    return (run.path / "model.safetensors").read_bytes()


def as_csv(pairs, folder):
    with (folder / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("no", "French", "English"), *((n, pair[1], pair[0]) for n, pair in enumerate(pairs))]
        )
    return {"train": str(folder / "a.csv"), "source_key": "English", "target_key": 2}


def as_json(pairs, folder):
    (folder / "a.json").write_text(
        json.dumps([{"translation": dict(zip(("en", "fr"), pair, strict=True))} for pair in pairs])
    )
    return {"train": str(folder / "a.json")}


def as_tmx(pairs, folder):
    units = "".join(
        "<tu>" + "".join(f'<tuv xml:lang="{name}"><seg>{escape(text)}</seg></tuv>' for name, text in unit) + "</tu>"
        for unit in ((("fr", target), ("en", source)) for source, target in pairs)
    )
    (folder / "a.tmx").write_text(f'<tmx version="1.4"><header srclang="en"/><body>{units}</body></tmx>')
    return {"train": str(folder / "a.tmx")}


def as_archive(pairs, folder):
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for side, name in enumerate(("x.en", "x.fr")):
            archive.writestr(name, "".join(f"{pair[side]}\n" for pair in pairs))
    return {"train": str(folder / "a.zip"), "source_key": "en", "target_key": "fr"}


def as_sides(pairs, folder):
    half = len(pairs) // 2
    for number, part in enumerate((pairs[:half], pairs[half:])):
        for side, name in enumerate(("en", "fr")):
            (folder / f"{number}.{name}").write_text("".join(f"{pair[side]}\n" for pair in part))
    return {
        "train": {
            side: [str(folder / f"{n}.{name}") for n in (0, 1)] for side, name in (("source", "en"), ("target", "fr"))
        }
    }


def as_parquet(pairs, folder):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"en": [a for a, _ in pairs], "fr": [b for _, b in pairs]}), folder / "a.parquet")
    return {"train": str(folder / "a.parquet")}


@pytest.mark.parametrize("write", [as_csv, as_json, as_tmx, as_archive, as_sides, as_parquet])
def test_the_same_pairs_in_another_format_train_the_same_weights_and_are_found_again(
    trained, pairs, tmp_path, write, monkeypatch
):
    run = trained(data=write(pairs, tmp_path))
    assert weights_of(run) == weights_of(trained())
    monkeypatch.chdir("/")
    again = Run.open(run.path).pair_corpus()
    assert sorted(pair for split in again.splits for pair in again.pairs(split)) == sorted(pairs)


def test_a_path_with_nul_in_it_is_refused(trained):
    with pytest.raises(RegardError, match="holds NUL"):
        trained(data={"train": "a\0b"})


@pytest.mark.parametrize("weights", [(3.0, 1.0), (0.5, 2.0)])
def test_a_run_on_weighted_corpora_goes_on_bit_for_bit_and_not_with_other_weights(
    trained, pairs, tmp_path, ctrl_c, weights
):
    files = []
    for number, part in enumerate((pairs[:100], pairs[100:])):
        path = tmp_path / f"{number}.tsv"
        path.write_text("".join(f"{source}\t{target}\n" for source, target in part))
        files.append(str(path))
    data = {"train": [{"files": file, "weight": weight} for file, weight in zip(files, weights, strict=True)]}
    whole, stopped = trained(data=data), trained(data=data, report=ctrl_c(5))
    assert whole.facts["pairs"] == trained(data={"train": files}, steps=1).facts["pairs"]
    data["train"][0]["weight"] += 1
    with pytest.raises(RegardError, match=r"began with data\.train = "):
        trained(folder=stopped.path, resume=True, data=data)
    data["train"][0]["weight"] -= 1
    assert weights_of(trained(folder=stopped.path, resume=True, data=data)) == weights_of(whole)
    assert weights_of(whole) != weights_of(trained(data={"train": files}))


def test_columns_are_named_for_standard_input_and_not_for_the_copy_that_the_run_keeps(
    trained, pairs, ctrl_c, monkeypatch
):
    lines = "".join(f"{n}\t{target}\t{source}\n" for n, (source, target) in enumerate(pairs))
    data = {"train": "-", "source_key": 3, "target_key": 2}
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    stopped = trained(data=data, report=ctrl_c(5))
    resumed = trained(folder=stopped.path, resume=True, data=data)
    assert weights_of(resumed) == weights_of(trained())
    assert regard.evaluate(resumed.path).count


def test_what_is_done_before_the_training_is_reported_step_by_step(trained, tmp_path, monkeypatch):
    # nothing is encoded yet
    monkeypatch.setenv("REGARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("regard.data.corpus.COUNTED_AT_ONCE", 100)
    heard = []
    trained(steps=1, preparing=lambda step, count: heard.append((step, count)))
    steps = dict.fromkeys(step for step, _ in heard)
    wanted = ["reading pairs", "learning the tokenizer", "encoding train", "encoding dev", "looking at pairs"]
    assert list(steps) == wanted
    assert [count for step, count in heard if step == "reading pairs"] == [0, 100, 200, 300, 400]
    for step in ("learning the tokenizer", "looking at pairs"):
        assert [count for each, count in heard if each == step] == [0, 100, 200, 300]
