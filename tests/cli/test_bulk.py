"""Bulk work in this process: every record once, whatever the shards, wherever the work broke off."""

import dataclasses
import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from num2words import num2words

import regard
from regard import RegardError
from regard.cli.bulk import JobFlags
from regard.jobs.columns import COLUMNS
from regard.jobs.work import VERBS

TOGETHER = 4
# what its own guide tells
SOURCES = ("sentences", "log_probability", "together", "method", "why", "passes")
TEXTS = [num2words(number) if number % 7 else "" for number in range(2, 44)]


@pytest.fixture(autouse=True)
def few_together(monkeypatch):
    for verb in ("translate", "generate"):
        monkeypatch.setattr(VERBS[verb], "together", TOGETHER)


@pytest.fixture
def folder(tmp_path):
    """The texts in three files, of which one has ids of its own."""
    made = tmp_path / "texts"
    made.mkdir()
    (made / "a.txt").write_text("\n".join(TEXTS[:17]) + "\n")
    (made / "b.jsonl").write_text("".join(json.dumps({"id": n, "source": TEXTS[n]}) + "\n" for n in range(17, 30)))
    (made / "c.txt").write_text("\n".join(TEXTS[30:]))
    return made


@pytest.fixture
def smollm2(tiny_smollm2, monkeypatch):
    monkeypatch.setenv("REGARD_CACHE", str(tiny_smollm2))
    return regard.load("smollm2")


def rows_of(out):
    return [json.loads(line) for path in sorted(out.glob("shard-*.jsonl")) for line in path.read_text().splitlines()]


def content(out):
    return b"".join(path.read_bytes() for path in sorted(out.glob("shard-*")))


def files(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_every_text_has_its_translation_in_its_place_with_its_id(cli, runs, folder, tmp_path):
    done = cli("translate", runs["bahdanau"], folder, "--out", tmp_path / "out", "--shard-size", 12, "--num-beams", 2)
    assert (done.code, done.out) == (0, "")
    assert done.err.endswith("out: 42 records in 4 shards, listed in manifest.json\n")
    rows = rows_of(tmp_path / "out")
    assert [row["source"] for row in rows] == TEXTS
    assert [row["id"] for row in rows] == [
        *(f"{folder}/a.txt:{number}" for number in range(1, 18)),
        *range(17, 30),
        *(f"{folder}/c.txt:{number}" for number in range(1, 13)),
    ]
    wanted = regard.load(runs["bahdanau"]).translate(TEXTS, num_beams=2)
    assert [row["text"] for row in rows] == [each.text for each in wanted]
    assert [row["score"] for row in rows] == pytest.approx([each.score for each in wanted], abs=1e-5)


def test_the_manifest_tells_files_and_shards_by_count_and_hash(cli, runs, folder, tmp_path):
    out = tmp_path / "out"
    assert cli("translate", runs["rnn"], folder, "--out", out, "--shard-size", 16).code == 0
    manifest = json.loads((out / "manifest.json").read_text())
    assert {path.name for path in out.iterdir()} == {"manifest.json", *(each["file"] for each in manifest["shards"])}
    for each in manifest["shards"]:
        data = (out / each["file"]).read_bytes()
        assert (len(data), data.count(b"\n")) == (each["bytes"], each["records"])
        assert hashlib.sha256(data).hexdigest() == each["sha256"]
    assert [each["first"] for each in manifest["shards"]] == [0, 16, 32]
    for each in manifest["files"]:
        with open(each["name"], "rb") as file:
            assert hashlib.sha256(file.read()).hexdigest() == each["sha256"]
    assert [each["records"] for each in manifest["files"]] == [17, 13, 12]
    assert (manifest["records"], manifest["errors"]) == (42, 0)
    with open(runs["rnn"] / "model.safetensors", "rb") as file:
        assert manifest["model"]["weights"] == hashlib.sha256(file.read()).hexdigest()


@pytest.mark.parametrize("options", [[], ["--do-sample", "--seed", 3], ["--num-beams", 3, "--n-best", 2]])
def test_results_do_not_depend_on_shards_or_on_how_texts_are_spread_over_files(cli, runs, folder, tmp_path, options):
    (tmp_path / "one").mkdir()
    whole = "".join(json.dumps({"id": number, "source": text}) + "\n" for number, text in enumerate(TEXTS))
    (tmp_path / "one" / "all.jsonl").write_text(whole)
    found = {}
    for name, given, size in (("a", "one", 4), ("b", "one", 20), ("c", "one", 1024), ("d", "texts", 8)):
        out = tmp_path / name
        done = cli("translate", runs["bahdanau"], tmp_path / given, *options, "--out", out, "--shard-size", size)
        assert done.code == 0, done.err
        found[name] = [{**row, "id": None} for row in rows_of(out)]
    assert content(tmp_path / "a") == content(tmp_path / "b") == content(tmp_path / "c")
    assert found["a"] == found["d"]
    assert all(len(row.get("translations", [1])) for row in found["a"])


@pytest.mark.parametrize("lost", [["shard-000001.jsonl"], ["shard-000000.jsonl", "shard-000003.jsonl"], []])
def test_resume_writes_what_is_missing_and_keeps_what_is_whole(cli, runs, folder, tmp_path, monkeypatch, lost):
    command = ["translate", runs["rnn"], folder, "--shard-size", 12]
    assert cli(*command, "--out", tmp_path / "whole").code == 0
    wanted, out = files(tmp_path / "whole"), tmp_path / "out"
    stop = RuntimeError("killed")

    def killed(*_):
        raise stop

    with monkeypatch.context() as patch:
        # as if the process were killed before the manifest
        patch.setattr("regard.jobs.folder.JobFolder.finish", killed)
        with pytest.raises(RuntimeError, match="killed"):
            cli(*command, "--out", out)
    assert not (out / "manifest.json").exists()
    for name in lost:
        (out / name).write_bytes((out / name).read_bytes()[:-1])
    (out / ".77-shard-000002.jsonl").write_text("half")
    with (out / "shards.jsonl").open("a") as file:
        file.write('{"number": 2, "fi')
    written = []
    before = regard.jobs.shards.ShardWriter.__call__
    monkeypatch.setattr(
        "regard.jobs.shards.ShardWriter.__call__",
        lambda self, shard: written.append(f"shard-{shard.number:06}.jsonl") or before(self, shard),
    )
    assert "holds the shards of a job; --resume goes on with it" in cli(*command, "--out", out).err
    assert cli(*command, "--out", out, "--resume").code == 0
    assert written == lost
    assert files(out) == wanted
    # and once more, with all of it done
    assert cli(*command, "--out", out, "--resume").code == 0
    assert (written, files(out)) == (lost, wanted)


@pytest.mark.parametrize("begun", ["half", "done"])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--num-beams", 2], "was begun with options"),
        (["--shard-size", 16], "was begun with shard_size 12, not 16"),
        (["--threads", 2], "was begun with threads 1, not 2"),
        (["--format", "parquet"], "was begun with format 'jsonl', not 'parquet'"),
        ("model", "was begun with model"),
        ("input", "was begun with inputs"),
    ],
)
def test_another_jobs_shards_are_refused_and_stay(cli, runs, folder, tmp_path, monkeypatch, changed, message, begun):
    command, out = ["translate", runs["rnn"], folder, "--out", tmp_path / "out", "--resume"], tmp_path / "out"
    with monkeypatch.context() as patch:
        if begun == "half":
            patch.setattr("regard.jobs.folder.JobFolder.finish", lambda *_: regard.jobs.run.ENGINES["none"])
            with pytest.raises(KeyError):
                cli(*command, "--shard-size", 12)
        else:
            assert cli(*command, "--shard-size", 12).code == 0
    before = files(out)
    if changed == "model":
        command[1], changed = runs["bahdanau"], []
    elif changed == "input":
        (folder / "c.txt").write_text("otherwise\n")
        changed = []
    done = cli(*command, *(["--shard-size", 12] if "--shard-size" not in changed else []), *changed)
    assert (done.code, done.out) == (1, "")
    assert message in done.err
    assert files(out) == before


def test_a_folder_that_holds_anything_else_is_refused(cli, runs, folder, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine\n")
    for flags in ([], ["--resume"]):
        done = cli("translate", runs["rnn"], folder, "--out", tmp_path / "mine", *flags)
        assert "mine holds other files; choose a new folder for --out" in done.err
    assert "in the folder that --out names" in cli("translate", runs["rnn"], folder, "--out", folder).err
    (tmp_path / "file").write_text("mine\n")
    assert "file: no folder" in cli("translate", runs["rnn"], folder, "--out", tmp_path / "file").err
    assert (tmp_path / "file").read_text() == "mine\n"


BAD = (
    '{{"id": "a", "source": "one"}}\n{{"id": "b"}}\nnone\n'
    '{{"id": "d", "source": "{long}"}}\n{{"id": "e", "source": "two"}}\n'
)


def test_a_bad_record_stops_the_work_or_is_skipped_and_the_rest_is_done(cli, runs, tmp_path):
    (tmp_path / "bad.jsonl").write_text(BAD.format(long="seven " * 60))
    command = ["translate", runs["bahdanau"], tmp_path / "bad.jsonl", "--out", tmp_path / "out"]
    stopped = cli(*command, "--on-error", "stop", "--format", "jsonl", "--engine", "local", "--shard-size", 4)
    assert stopped.code == 1
    assert "regard: b: has no text under 'source'; --on-error skip goes on without such records" in stopped.err
    assert not (tmp_path / "out" / "manifest.json").exists()
    done = cli(*command, "--on-error", "skip", "--shard-size", 4, "--resume")
    assert done.code == 1
    assert "3 of them have an error in their row, the first b: has no text under 'source'" in done.err
    rows = rows_of(tmp_path / "out")
    assert [row["id"] for row in rows] == ["a", "b", f"{tmp_path}/bad.jsonl:3", "d", "e"]
    assert ["error" in row for row in rows] == [False, True, True, True, False]
    assert "d has 301 tokens, the model reads at most 48" in rows[3]["error"]
    wanted = regard.load(runs["bahdanau"]).translate(["one", "two"])
    assert [row["text"] for row in rows if "text" in row] == [each.text for each in wanted]


def test_what_is_too_long_is_treated_as_for_a_single_file(cli, runs, tmp_path):
    (tmp_path / "a.txt").write_text("one\n" + "seven " * 60 + "\ntwo\n")
    command = ["translate", runs["bahdanau"], tmp_path / "a.txt", "--too-long", "cut"]
    alone = cli(*command)
    done = cli(*command, "--shard-size", 4, "--out", tmp_path / "out")
    assert (done.code, alone.code) == (1, 1)
    assert "1 of them were too long for the model, and cut or left blank" in done.err
    rows = rows_of(tmp_path / "out")
    assert [row["text"].replace("\n", " ").replace("\r", " ") for row in rows] == alone.out[:-1].split("\n")
    assert [row.get("shortened") for row in rows] == [None, True, None]


def test_where_the_disk_is_full_nothing_half_written_stays_and_resume_goes_on(cli, runs, folder, tmp_path, monkeypatch):
    command = ["translate", runs["rnn"], folder, "--shard-size", 12]
    assert cli(*command, "--out", tmp_path / "whole").code == 0
    replaced, room = os.replace, [2]

    def full(source, target):
        if "shard-" in str(target):
            room[0] -= 1
            if room[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
        return replaced(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        done = cli(*command, "--out", tmp_path / "out")
    assert done.code == 1
    assert "shard-000002.jsonl: cannot be written: No space left on device; free some space" in done.err
    assert {name for name in files(tmp_path / "out") if "shard-" in name} == {
        "shard-000000.jsonl",
        "shard-000001.jsonl",
    }
    assert cli(*command, "--out", tmp_path / "out", "--resume").code == 0
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_two_processes_do_not_fill_one_folder(cli, runs, folder, tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    command = ["translate", runs["rnn"], folder, "--out", tmp_path / "out", "--resume"]
    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / "shards.jsonl").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "another process is filling it" in cli(*command).err
    assert cli(*command).code == 0


def test_a_job_that_is_killed_goes_on_and_ends_in_the_same_bytes(runs, tmp_path):
    (tmp_path / "a.txt").write_text("".join(num2words(number % 160) + "\n" for number in range(3000)))
    command = [sys.executable, "-m", "regard", "translate", str(runs["bahdanau"]), "a.txt", "--shard-size", "256"]

    def start(out, *more):
        return subprocess.Popen([*command, "--out", out, *more], cwd=tmp_path, stderr=subprocess.DEVNULL)

    assert start("whole").wait() == 0
    process = start("out")
    while process.poll() is None and not (tmp_path / "out" / "shard-000003.jsonl").exists():
        pass
    process.kill()
    assert process.wait() != 0
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert start("out", "--resume").wait() == 0
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_parquet_has_the_same_rows(cli, runs, folder, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    command = ["translate", runs["bahdanau"], folder, "--num-beams", 2, "--n-best", 2, "--shard-size", 16]
    assert cli(*command, "--out", tmp_path / "lines").code == 0
    assert cli(*command, "--out", tmp_path / "tables", "--format", "parquet").code == 0
    found = [
        {name: value for name, value in row.items() if value is not None}
        for path in sorted((tmp_path / "tables").glob("*.parquet"))
        for row in parquet.read_table(path).to_pylist()
    ]
    assert found == [{**row, "id": str(row["id"])} for row in rows_of(tmp_path / "lines")]


def test_prompts_and_conversations_are_continued_as_the_library_does(cli, smollm2, tmp_path):
    prompts = [f"The number {num2words(number)} is" for number in range(6)]
    message = [{"role": "user", "content": "How are you?"}]
    lines = [{"id": number, "prompt": prompt} for number, prompt in enumerate(prompts)]
    lines[3:3] = [{"id": "chat", "messages": message}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = ["--max-new-tokens", 5, "--temperature", 0.9, "--seed", 3]
    done = cli("generate", "smollm2", tmp_path / "a.jsonl", "--out", tmp_path / "out", "--shard-size", 4, *options)
    assert done.code == 0, done.err
    rows = rows_of(tmp_path / "out")
    settings = {"max_new_tokens": 5, "temperature": 0.9, "seed": 3}
    wanted = []
    for place, line in enumerate(lines):
        texts = {"messages": line["messages"]} if "messages" in line else {"prompts": [line["prompt"]]}
        found = smollm2.generate(**texts, first=place, **settings)
        wanted.append((found if "messages" in line else found[0]).text)
    assert [row["text"] for row in rows] == wanted
    assert [row["id"] for row in rows] == [0, 1, 2, "chat", 3, 4, 5]


def test_an_empty_prompt_among_others_is_told_and_the_others_are_continued(cli, smollm2, tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n\nfour\nfive\n")
    command = ["generate", "smollm2", tmp_path / "a.txt", "--out", tmp_path / "out", "--max-new-tokens", 3]
    assert f"{tmp_path}/a.txt:3: prompt 3 is empty" in cli(*command).err
    done = cli(*command, "--on-error", "skip")
    assert done.code == 1
    rows = rows_of(tmp_path / "out")
    assert [row["id"].rpartition(":")[2] for row in rows if "error" in row] == ["3"]
    wanted = [smollm2.generate(text, max_new_tokens=3).text for text in ("one", "two", "four", "five")]
    assert [row["text"] for row in rows if "text" in row] == wanted


def test_readings_tell_what_each_answer_looked_at(cli, smollm2, tmp_path):
    texts = ["The cat sat on the mat. The dog did not.", "One two three. Four five six."]
    (tmp_path / "a.txt").write_text("\n".join(texts))
    command = ["read", "smollm2", tmp_path / "a.txt", "--out", tmp_path / "out", "--max-new-tokens", 4, "--json"]
    done = cli(*command)
    assert done.code == 0, done.err
    for text, row in zip(texts, rows_of(tmp_path / "out"), strict=True):
        reading = smollm2.read(text, max_new_tokens=4)
        whole = reading.sequences["text"].text
        assert row["prompt"] + row["answer"] == whole
        # the shares of sentences, from the weights themselves
        weights = sum(reading.weights("decoder", layer).mean(axis=0) for layer in reading.layers("decoder"))
        mean = weights.mean(axis=0) / len(reading.layers("decoder"))
        keys, split = reading.keys("decoder"), text.index(".") + 1
        shares = [
            sum(mean[i] for i, key in enumerate(keys) if i and low < key.end <= high)
            for low, high in ((0, split), (split, len(text)))
        ]
        assert {part["text"].strip(): part["share"] for part in row["parts"]} == pytest.approx(
            {text[:split]: shares[0], text[split:].strip(): shares[1]}, abs=1e-6
        )
        assert row["checks"]["refused"] == 0
        assert row["checks"]["largest_error"] < 1e-4
        assert row["reading"] == json.loads(json.dumps(reading.to_json()))


def test_readings_of_translations_tell_the_words_that_each_looked_at(cli, runs, tmp_path):
    (tmp_path / "a.txt").write_text("two hundred and six\nseven\n")
    assert cli("read", runs["bahdanau"], tmp_path / "a.txt", "--out", tmp_path / "out").code == 0
    rows = rows_of(tmp_path / "out")
    assert [row["source"] for row in rows] == ["two hundred and six", "seven"]
    for row in rows:
        reading = regard.read(runs["bahdanau"], source=row["source"])
        table = reading.alignment()
        assert [word["text"] for word in row["words"]] == reading.sequences["target"].words
        for word, weights in zip(row["words"], table, strict=True):
            best = word["looked_at"][0]
            assert best["text"] == row["source"].split()[weights.argmax()]
            assert best["weight"] == pytest.approx(weights.max())


def test_sources_are_those_of_the_library(cli, smollm2, tmp_path):
    text = "The cat sat on the mat. The dog did not. Who sat?"
    record = {"id": 1, "prompt": text, "answer": " The cat"}
    (tmp_path / "a.jsonl").write_text(json.dumps(record) + "\n")
    assert cli("sources", "smollm2", tmp_path / "a.jsonl", "--out", tmp_path / "out").code == 0
    (row,) = rows_of(tmp_path / "out")
    found = smollm2.sources(text, answer=" The cat").to_json()
    assert {name: row[name] for name in found} == json.loads(json.dumps(found))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["translate", "{run}", "{folder}"], "go into a folder: add --out DIR"),
        (["translate", "{run}", "{folder}", "--out", "out", "--alignments", "a"], "--alignments: of a single text"),
        (
            ["translate", "{run}", "{folder}", "--out", "out", "--workers", "2"],
            "--workers: for Ray alone; add --engine ray",
        ),
        (["translate", "{run}", "{folder}", "-", "--out", "out"], "standard input is no file of bulk work"),
        (["translate", "{run}", "{folder}", "--out", "out", "--shard-size", "6"], "multiple of 4"),
        (["translate", "{run}", "{folder}/none", "--out", "out", "--engine", "local", "--format", "parquet"], "none"),
        (["translate", "{run}", "--threads", "2"], "--threads: bulk work has FILES and --out DIR"),
        (["generate", "{run}", "{folder}", "--out", "out"], "`regard translate` is the verb of this model"),
        (["read", "{run}", "{folder}", "--out", "out", "--token", "3"], "--token: of a single text"),
        (["read", "{run}", "--source", "one", "--resume"], "--resume: bulk work has FILES"),
        (["sources", "{run}", "{folder}", "--json", "--out", "out"], "--json: of a single text"),
        (["sources", "{run}", "--source", "one", "--out", "out"], "--out DIR is for bulk work; name the FILES"),
    ],
)
def test_what_does_not_go_together_is_told(cli, runs, folder, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    done = cli(*(part.format(run=runs["bahdanau"], folder=folder) for part in arguments))
    assert (done.code, done.out) == (1, "")
    assert message in done.err
    assert not (tmp_path / "out").exists()


def test_several_prompts_without_a_folder_are_usage(cli, runs):
    done = cli("generate", runs["rnn"], "one", "two")
    assert (done.code, done.out) == (2, "")
    assert "several prompts are bulk work: put them into a file, a line each, and add --out DIR" in done.err


def test_a_job_without_records_is_refused(cli, runs, tmp_path):
    (tmp_path / "a.txt").touch()
    (tmp_path / "b.txt").touch()
    done = cli("translate", runs["rnn"], tmp_path / "a.txt", tmp_path / "b.txt", "--out", tmp_path / "out")
    assert "there is no record in it" in done.err


def test_a_manifest_whose_shards_are_gone_is_told(cli, runs, folder, tmp_path):
    command = ["translate", runs["rnn"], folder, "--out", tmp_path / "out", "--resume"]
    assert cli(*command).code == 0
    (tmp_path / "out" / "shard-000000.jsonl").unlink()
    assert "shard-000000.jsonl: not what the manifest says" in cli(*command).err
    shutil.rmtree(tmp_path / "out")
    assert cli(*command).code == 0


def test_ray_is_asked_for_where_it_is_missing(cli, runs, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    done = cli("translate", runs["rnn"], folder, "--out", tmp_path / "out", "--engine", "ray")
    assert (done.code, done.out) == (1, "")
    assert "--engine ray needs Ray: pip install 'regard[ray]'" in done.err
    assert not (tmp_path / "out").exists()


def test_the_guide_tells_every_column_and_every_option():
    for language in ("", ".zh"):
        guide = (Path(__file__).parents[2] / "docs" / f"scale{language}.md").read_text(encoding="utf-8")
        for verb, columns in COLUMNS.items():
            row = re.findall(rf"^\| `{verb}` \|.*$", guide, re.MULTILINE)
            assert len(row) == 2, f"docs/scale{language}.md tells {verb} {len(row)} times"
            # `sources` prints what it prints alone
            for column in columns.keys() - {"id", "error"} - ({*SOURCES} if verb == "sources" else set()):
                assert f"`{column}`" in "".join(row), f"docs/scale{language}.md does not tell {column} of {verb}"
        for option in (field.name.replace("_", "-") for field in dataclasses.fields(JobFlags)):
            assert f"--{option}" in guide, f"docs/scale{language}.md does not tell --{option}"


def test_choices_are_checked_in_python_too(tmp_path):
    from regard.jobs.run import run_job

    with pytest.raises(RegardError, match="on_error must be stop or skip, not 'skipp'; did you mean 'skip'"):
        run_job(None, [], tmp_path, on_error="skipp")  # pyright: ignore[reportArgumentType]
