"""`regard read` and `regard generate` of tiny random models that see, without a network."""

import json

import pytest
from tokenizers.processors import TemplateProcessing

import regard
from regard.errors import RegardError

pytest.importorskip("transformers")
pytest.importorskip("PIL")

from tests.media_inputs import picture
from tests.media_models import make


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeing")
    for name in ("vit", "clip", "llava"):
        make(name, folder / name)
    picture(60, 40).save(folder / "cat.png")
    picture(35, 70, 1).save(folder / "two.jpg")
    return folder


def test_a_prompt_with_pictures_is_read_into_every_form(cli, folders, tmp_path):
    out = tmp_path / "x.html", tmp_path / "x.json", tmp_path / "x.safetensors"
    given = [part for path in out for part in ("--out", path)]
    images = "--image", folders / "cat.png", "--image", folders / "two.jpg"
    done = cli("read", folders / "llava", *images, "--prompt", "What?", "--max-new-tokens", 4, *given)
    assert (done.code, done.err) == (0, "")
    assert "cat.png" in out[1].read_text(encoding="utf-8")
    for path in out[1:]:
        reading = regard.Reading.load(path)
        assert [(each.name, each.width, each.height) for each in reading.media] == [
            ("cat.png", 60, 40),
            ("two.jpg", 35, 70),
        ]
        areas = [token.area for token in reading.sequences["text"].tokens if token.area is not None]
        assert [area.image for area in areas] == [0] * 16 + [1] * 16
        # the middle of the picture, cut to a square and cut into 4 × 4
        assert areas[0][1:] == pytest.approx((0, 0, 10, 0, 20, 10))
        assert areas[-1].bottom == pytest.approx(52.5)
    assert "<html" in out[0].read_text(encoding="utf-8")


def test_a_picture_alone_is_read_by_what_sees(cli, folders):
    for name in ("vit", "clip"):
        done = cli("read", folders / name, "--image", folders / "cat.png", "--json")
        assert (done.code, done.err) == (0, "")
        document = json.loads(done.out)
        assert document["media"][0]["name"] == "cat.png"
        assert document["sequences"]["image"]["tokens"][-1]["area"]["right"] > 0
    done = cli("read", folders / "vit", "--image", folders / "cat.png")
    assert done.code == 0
    assert "2 vision layers" in done.out


def test_the_text_model_of_a_pair_reads_text_alone(cli, folders):
    done = cli("read", folders / "clip", "--text", "a cat")
    assert (done.code, done.err) == (0, "")


def test_messages_with_pictures_as_their_parts_are_answered(cli, folders, tmp_path):
    parts = [{"type": "image", "path": str(folders / "cat.png")}, {"type": "text", "text": "What?"}]
    (tmp_path / "chat.json").write_text(json.dumps([{"role": "user", "content": parts}]), encoding="utf-8")
    arguments = "--messages", tmp_path / "chat.json", "--max-new-tokens", 4
    first = cli("read", folders / "llava", *arguments, "--json")
    same = cli("read", folders / "llava", "--image", folders / "cat.png", "--prompt", "What?", *arguments[2:], "--json")
    assert (first.code, first.err) == (0, "")
    assert json.loads(first.out)["weights"] == json.loads(same.out)["weights"]


def test_generate_writes_about_pictures(cli, folders, tmp_path):
    arguments = "generate", folders / "llava", "What?", "--image", folders / "cat.png", "--max-new-tokens", 4
    streamed, document = cli(*arguments, "--attention", tmp_path / "x.json"), cli(*arguments, "--json")
    reading = regard.Reading.load(tmp_path / "x.json")
    count = reading.settings["prompt_tokens"]
    written = [token.id for token in reading.sequences["text"].tokens[count:]]
    assert written == json.loads(document.out)["tokens"]
    assert reading.media
    assert (streamed.code, document.code) == (0, 0)
    assert streamed.out.rstrip("\n") == json.loads(document.out)["text"].rstrip("\n")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("vit", "--text", "hello"), "takes no text; give it images"),
        (("vit", "--prompt", "hello"), "takes no text; give it images"),
        (("llava", "--image", "CAT"), "give it a prompt"),
        (("clip", "--prompt", "hello"), "writes nothing"),
        (("llava", "--prompt", "hello", "--image", "http://example.org/cat.png"), "nothing is fetched"),
        (("llava", "--prompt", "hello", "--image", "nowhere.png"), "no such file"),
        (("llava", "--prompt", "hello", "--image", "chat.json"), "no picture in a format"),
        (("llava", "--prompt", "<image> and <image>?", "--image", "CAT"), "2 places '<image>', and 1 pictures"),
        (("llava", "--prompt", "hello <pad>", "--image", "CAT"), "'<pad>' is a special token"),
    ],
)
def test_what_a_model_does_not_take_is_told_in_words(cli, folders, tmp_path, monkeypatch, arguments, why):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chat.json").write_text("[]")
    name, *others = (folders / "cat.png" if argument == "CAT" else argument for argument in arguments)
    done = cli("read", folders / name, *others, "--out", "x.json")
    assert done.code == 1
    assert why in " ".join(done.err.split())
    assert not (tmp_path / "x.json").exists()


def test_a_text_model_takes_no_pictures(cli, folders, folder_of_text):
    done = cli("read", folder_of_text, "--prompt", "hello", "--image", folders / "cat.png")
    assert done.code == 1
    assert "takes no images" in " ".join(done.err.split())
    for part, why in (({"type": "text", "text": "hello"}, "must be a text"), ({"type": "image"}, "takes no images")):
        with pytest.raises(regard.RegardError, match=why):
            regard.load(folder_of_text).read(messages=[{"role": "user", "content": [part]}])


@pytest.fixture(scope="module")
def folder_of_text(tmp_path_factory):
    import torch
    from tests.media_models import tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("text")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=320, **sizes)).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def test_a_folder_without_a_processor_says_what_is_missing(cli, folders, tmp_path):
    make("vit", tmp_path / "bare")
    (tmp_path / "bare" / "preprocessor_config.json").unlink()
    done = cli("read", tmp_path / "bare", "--image", folders / "cat.png")
    assert done.code == 1
    assert "has no preprocessor_config.json" in " ".join(done.err.split())
    (tmp_path / "bare" / "preprocessor_config.json").write_text('{"auto_map": {"AutoImageProcessor": "x.Y"}}')
    done = cli("read", tmp_path / "bare", "--image", folders / "cat.png")
    assert done.code == 1
    assert "auto_map asks to run code" in " ".join(done.err.split())


def test_sources_are_regions_of_the_pictures(cli, folders):
    asked = "sources", folders / "llava", "--prompt", "What?", "--max-new-tokens", 4
    images = "--image", folders / "cat.png", "--image", folders / "two.jpg"
    done = cli(*asked, *images, "--json")
    assert (done.code, done.err) == (0, "")
    document = json.loads(done.out)
    regions = {
        (each["image"], each["left"], each["top"], each["right"], each["bottom"]) for each in document["sources"]
    }
    assert len(regions) == len(document["sources"]) == 32
    assert (0, 10, 0, 20, 10) in {tuple(round(edge) for edge in region) for region in regions}
    assert document["sources"][0]["effect"] is not None
    strengths = [each["effect"] for each in document["sources"] if each["effect"] is not None]
    assert strengths == sorted(strengths)
    assert sum(each["share"] for each in document["sources"]) == pytest.approx(1)
    shown = cli(*asked, *images)
    assert shown.code == 0
    assert "image 1, x " in shown.out or "image 2, x " in shown.out
    for given, what in (
        (("--grain", "words"), "sought without grain; leave that out"),
        (("--contrast", "no"), "sought without contrast; leave that out"),
        (("--curves", "x.png"), "--curves are of passages of a text"),
    ):
        refused = cli(*asked, *images, *given)
        assert refused.code == 1
        assert what in refused.err
    empty = cli("sources", folders / "llava", *images, "--prompt", " ")
    assert (empty.code, "the prompt is empty" in empty.err) == (1, True)
    given = cli(*asked, *images, "--answer", "the cat", "--json")
    assert json.loads(given.out)["answer"] == "the cat"
    alone = cli("sources", folders / "vit", "--image", folders / "cat.png", "--prompt", "What?")
    assert alone.code == 1
    assert "Traceback" not in alone.err


def test_a_given_answer_follows_the_prompt_without_what_begins_a_text(folders):
    model = regard.load(str(folders / "llava"))
    begin, end = model.tokenizer.convert_tokens_to_ids(["<begin>", "<end>"])
    model.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<begin> $A", special_tokens=[("<begin>", begin), ("<end>", end)]
    )
    assert model.encode("cat")[0][0] == begin
    found = model.sources("What?", images=[picture(60, 40)], answer="cat")
    assert found.answer == "cat"


def test_a_prompt_goes_into_the_chat_template_where_that_is_asked_for(folders, tmp_path):
    model, images = regard.load(str(folders / "llava")), [picture(60, 40)]
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
    chatted = model.read(messages=message, images=images, max_new_tokens=1)
    asked = model.read("What?", images=images, chat=True, max_new_tokens=1)
    assert asked.sequences["text"].text == chatted.sequences["text"].text
    assert asked.sequences["text"].text.startswith("user: ")
    as_it_stands = model.read("<image> What?", images=images, max_new_tokens=1)
    assert not as_it_stands.sequences["text"].text.startswith("user: ")
    bare = regard.load(str(make("paligemma", tmp_path / "paligemma")))
    for verb in ("read", "sources", "generate"):
        with pytest.raises(RegardError, match="'<image>' is a special token"):
            getattr(model, verb)("<image> What?", images=images, chat=True)
        with pytest.raises(RegardError, match="has no chat template; give it a prompt and images"):
            getattr(bare, verb)("What?", images=images, chat=True)
