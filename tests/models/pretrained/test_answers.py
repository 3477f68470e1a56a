"""What is learned of a conversation: all that the model has to write, and nothing else."""

import itertools

import pytest

from regard.errors import RegardError
from regard.models.pretrained.texts import Texts

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INST = (
    "<|im_start|>{% for message in messages %}{% if message['role'] == 'user' %}[INST] {{ message['content'] }} [/INST]"
    "{% else %}{% generation %} {{ message['content'] | trim }} <|im_end|>{% endgeneration %}{% endif %}{% endfor %}"
)
# an answer that was not thought about begins with empty thoughts, but for those of earlier turns
THINKING = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_END = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
SPECIAL = ["<|im_start|>", "<|im_end|>"]


def message(role, content):
    return {"role": role, "content": content}


CHATS = [
    [message("user", "hi"), message("assistant", "hello 12")],
    [message("user", "hi"), message("assistant", " hello\n\n12 "), message("user", "é"), message("assistant", "hello")],
    [message("user", "assistant\nhello"), message("assistant", "hello"), message("user", "and?")],
]


@pytest.fixture
def texts(tokenizer):
    def make(template):
        tokenizer.chat_template = template
        tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
        return Texts(tokenizer, "tiny")

    return make


def learned_text(tokenizer, answered):
    return tokenizer.decode([id for id, learned in zip(answered.ids, answered.learned, strict=True) if learned])


@pytest.mark.parametrize(
    ("template", "chat"),
    [*itertools.product((CHATML, INST), CHATS), (CHATML, [message("system", "12"), *CHATS[1]])],
)
def test_ids_and_mask_are_those_of_transformers_up_to_the_last_answer(texts, tokenizer, template, chat):
    found = texts(template).encode_answered(chat)
    wanted = tokenizer.apply_chat_template(
        chat, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, add_generation_prompt=False
    )
    mask = [bool(each) for each in wanted["assistant_masks"]]
    length = len(mask) - mask[::-1].index(True)
    assert found.ids == wanted["input_ids"][:length]
    assert found.learned == mask[:length]


def test_the_bytes_are_those_of_the_answers_as_the_template_writes_them(texts):
    assert texts(CHATML).encode_answered(CHATS[1]).size == len(b" hello\n\n12 hello")
    assert texts(INST).encode_answered(CHATS[1]).size == len(b"hello\n\n12hello")


@pytest.mark.parametrize("template", [CHATML, INST, THINKING, NO_END])
@pytest.mark.parametrize("chat", CHATS)
def test_each_answer_follows_what_the_model_is_given_when_it_is_asked(texts, template, chat):
    made = texts(template)
    found = made.encode_answered(chat)
    starts = [n for n in range(1, len(found.ids)) if found.learned[n] and not found.learned[n - 1]]
    for start, index in zip(starts, (n for n, each in enumerate(chat) if each["role"] == "assistant"), strict=True):
        assert found.ids[:start] == made.encode_chat(chat[:index]).ids


def test_thoughts_that_a_template_adds_are_the_models_to_write(texts, tokenizer):
    found = texts(THINKING).encode_answered(CHATS[1])
    assert learned_text(tokenizer, found) == " hello\n\n12 <|im_end|><think>\n\n</think>\n\nhello<|im_end|>"


def test_where_no_template_ends_the_answer_the_tokenizer_does(texts, tokenizer):
    found = texts(NO_END).encode_answered(CHATS[0])
    assert learned_text(tokenizer, found) == " hello 12" + tokenizer.eos_token


def test_special_tokens_that_a_message_spells_are_plain_text(texts, tokenizer):
    made = texts(CHATML)
    found = made.encode_answered([message("user", "<|im_end|>"), message("assistant", "a<|im_end|>b")])
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert found.ids.count(end) == 2
    assert learned_text(tokenizer, found) == "a<|im_end|>b<|im_end|>"
    assert found.ids[-1] == end


@pytest.mark.parametrize(("question", "answer"), [("Where?", " Here.\nSo."), ("首都是哪里？", "东京。")])
def test_without_a_template_the_answer_follows_the_frame_that_the_model_is_asked_in(texts, tokenizer, question, answer):
    made = texts(None)
    chat = [message("system", "Be brief."), message("user", question)]
    found = made.encode_answered([*chat, message("assistant", answer.strip())])
    start = found.learned.index(True)
    assert found.ids[:start] == made.encode_chat(chat).ids
    assert learned_text(tokenizer, found) == answer + tokenizer.eos_token


@pytest.mark.parametrize(
    ("template", "chat", "told"),
    [
        (None, CHATS[1], "give it one message of the user"),
        (None, CHATS[2], "end with the assistant's answer"),
        (CHATML, [message("user", "a")], "there is no answer to learn"),
        ("{% for each in messages %}{{ each.content | upper }}{% endfor %}", CHATS[0], "its chat template changes"),
        ("{{ messages[0].content }}", CHATS[0], "its chat template leaves out message 2"),
        ("{{ raise_exception('no') }}", CHATS[0], "its chat template fails"),
    ],
)
def test_what_cannot_be_learned_is_refused(texts, template, chat, told):
    with pytest.raises(RegardError, match=told):
        texts(template).encode_answered(chat)
