"""Texts and chats as tokens of a transformers tokenizer; what is spelt out in a text is never a special token."""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np

from regard.data.conversations import Answered
from regard.data.messages import Message, check_conversation, check_messages, has_content, strings
from regard.data.normal_form import over_marks
from regard.errors import RegardError
from regard.models.pretrained.frame import frame_answer, frame_messages
from regard.models.pretrained.needs import quiet, told

ASSISTANT = "assistant"
logger = logging.getLogger("regard")
# where each token stands in a text: its first character and the one after its last
Offsets = list[tuple[int, int]]
# the fields in which chat templates look for the text of a document
DOCUMENT_TEXTS = ("text", "content", "contents", "doc", "body")
# stands for the content of a message while a chat template is looked at; no template writes it of itself
PLACEHOLDER = "\ue000{}\ue001"
_PLACEHOLDERS = re.compile(PLACEHOLDER.format(r"(\d+)"))


class Turn(NamedTuple):
    """The characters of a text that are the content of one message."""

    role: str
    start: int
    end: int


@final
@dataclass(frozen=True)
class Encoded:
    """What a model is given: a text with its token ids and the characters of each.

    Of a chat, `turns` are its messages, and its documents with the role "document", in the order of the text; all that
    is in no turn is the chat template's.
    `ends` are ids with which the template ends an answer. For a model without a template, `frame` is the text before
    and after the question, and the answer ends at the first newline after text.
    """

    text: str
    ids: list[int]
    offsets: Offsets
    turns: tuple[Turn, ...] = ()
    ends: frozenset[int] = frozenset()
    frame: tuple[str, str] | None = None


@final
class Texts:
    """The tokenizer of the model `name`."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        self._tokenizer = tokenizer
        self._name = name
        self._special = {token.content: id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._spelt = re.compile("|".join(map(re.escape, sorted(self._special, key=len, reverse=True))) or r"(?!)")

    def encode(self, text: str) -> Encoded:
        """A text; what the model puts before and after it stands nowhere in it.

        Special tokens that are spelt out in the text are plain text. Raises RegardError for half a surrogate pair, and
        where the tokenizer cannot write such a token as plain text.
        """
        return Encoded(text, *self._encode(text, adds_special=True))

    def encode_answer(self, answer: str) -> list[int]:
        """Token ids of a text that follows another, special tokens as plain text. Raises RegardError as `encode`."""
        return self._encode(answer)[0]

    def encode_chat(self, messages: Sequence[Message], **extras: Any) -> Encoded:
        """Messages in the model's chat template; `extras`, its `tools` and `documents`, where they are not None.

        The template's special tokens are special ones; those that a message spells out are plain text. Without a
        template, a single message of the user is framed as a page and a question, after the system message if any.
        Raises RegardError for what are no messages, where the template fails, changes a message, or ignores the extras,
        and for several turns or extras without a template.
        """
        check_messages(messages)
        extras = {name: value for name, value in extras.items() if value is not None}
        if self._tokenizer.chat_template is None:
            return self._encode_framed(messages, extras)
        self._check_fields(messages, extras)
        marked = _marked(messages)
        chat = self._chat(messages, marked, extras)
        ids, offsets = self._encode_whole(chat, lambda: self._chat(marked, marked, extras))
        turns = sorted(
            [*chat.turns, *self._documents(chat, extras.get("documents") or ())], key=lambda turn: turn.start
        )
        return Encoded(chat.text, ids, offsets, tuple(turns), self._ends(marked, extras))

    def encode_answered(self, messages: Sequence[Message]) -> Answered:
        """A conversation to learn from, up to its last answer.

        Learned is what the model has to write: all from where the template asks for an answer to the token that ends
        it. Where no template ends the last one, the tokenizer's own end does.
        Raises RegardError as `encode_chat`, and where no message is the assistant's.
        """
        check_conversation(messages, "messages")
        is_framed = self._tokenizer.chat_template is None
        given, answers = self._answered_in_frame(messages) if is_framed else self._answered_in_template(messages)
        written = np.zeros(len(given.text) + 1, dtype=np.int64)
        for start, end in answers:
            written[start + 1 : end + 1] = 1
        total = written.cumsum()
        learned = [bool(total[end] > total[start]) for start, end in given.offsets]
        length = len(learned) - learned[::-1].index(True)
        ids, learned = given.ids[:length], learned[:length]
        own_end = self._tokenizer.eos_token_id
        if not given.ends and own_end is not None:
            ids, learned = [*ids, own_end], [*learned, True]
        size = sum(len(given.text[turn.start : turn.end].encode()) for turn in given.turns if turn.role == ASSISTANT)
        return Answered(ids, learned, size)

    def _answered_in_frame(self, messages: Sequence[Message]) -> tuple[Encoded, list[tuple[int, int]]]:
        *asked, answer = messages
        if answer["role"] != ASSISTANT:
            raise RegardError(f"{self._name} has no chat template; end with the assistant's answer")
        given = self._encode_framed(asked, {})
        assert given.frame is not None
        start = len(given.text)
        text = given.text + frame_answer(answer["content"].strip(), given.frame)
        turns = (*given.turns, Turn(ASSISTANT, start, len(text)))
        return Encoded(text, *self._encode(text, adds_special=True), turns), [(start, len(text))]

    def _answered_in_template(self, messages: Sequence[Message]) -> tuple[Encoded, list[tuple[int, int]]]:
        self._check_fields(messages, {})
        marked = _marked(messages)
        chat = self._chat(messages, marked, {}, asks=False)
        ids, offsets = self._encode_whole(chat, lambda: self._chat(marked, marked, {}, asks=False))
        places = [index for index, each in enumerate(messages) if each["role"] == ASSISTANT and has_content(each)]
        ends = self._ends(marked[: places[-1]], {})
        answers = []
        for index, turn in zip(places, (turn for turn in chat.turns if turn.role == ASSISTANT), strict=True):
            before = self._render(messages[:index], {}) if index else ""
            begun = bool(before) and chat.text.startswith(before) and len(before) <= turn.start
            rest = chat.text[turn.end :]
            end = self._spelt.match(rest, len(rest) - len(rest.lstrip()))
            length = end.end() if end and self._special[end[0]] in ends else 0
            answers.append((len(before) if begun else turn.start, turn.end + length))
        return Encoded(chat.text, ids, offsets, chat.turns, ends), answers

    def _encode_framed(self, messages: Sequence[Message], extras: dict[str, Any]) -> Encoded:
        for name in extras:
            raise RegardError(f"{self._name} has no chat template to write {name}; put them into the message")
        parts, frame = frame_messages(messages, self._name)
        text, turns = "", []
        for role, part in parts:
            if role:
                turns.append(Turn(role, len(text), len(text) + len(part)))
            text += part
        return Encoded(text, *self._encode(text, adds_special=True), tuple(turns), frame=frame)

    def given(
        self, prompt: str | None = None, messages: Sequence[Message] | None = None, *, chat: bool = False, **extras: Any
    ) -> Encoded:
        """A prompt as `encode` gives it, or messages as `encode_chat` does; with `chat` a prompt is one of the user.

        Raises RegardError for both or neither of them, and for extras without a chat.
        """
        if (prompt is None) == (messages is None):
            raise RegardError(f"give a prompt or messages{'' if prompt is None else ', not both'}")
        if messages is not None:
            return self.encode_chat(messages, **extras)
        assert prompt is not None
        if chat:
            return self.encode_chat([{"role": "user", "content": prompt}], **extras)
        for name in (name for name, value in extras.items() if value is not None):
            raise RegardError(f"{name} go into a chat template: give messages, or a prompt with chat")
        return self.encode(prompt)

    def warn_of_special(self, prompt: str) -> None:
        """Log a warning where a prompt that is no chat spells out special tokens of a model that can chat."""
        spelt = dict.fromkeys(self._spelt.findall(prompt))
        if spelt and self._tokenizer.chat_template is not None:
            told = " and ".join(spelt)
            logger.warning("the prompt spells %s, taken as plain text; for a chat use messages, or chat", told)

    def log_frames(self, given: Sequence[Encoded]) -> None:
        """Log the frames of questions to a model without a chat template."""
        for before, after in dict.fromkeys(each.frame for each in given if each.frame):
            logger.info("%s has no chat template; it is given %r", self._name, f"{before}…{after}")

    def ends(self, given: Encoded, written: list[int]) -> frozenset[int]:
        """Ids that only end what was written; of a framed answer also its last, where that is a newline."""
        last = written[-1:] if given.frame else []
        text = self._tokenizer.decode(last)
        return given.ends | frozenset(last if "\n" in text and not text.strip() else ())

    def _encode(self, text: str, *, adds_special: bool = False) -> tuple[list[int], Offsets]:
        _check_text(text)
        with quiet():
            found = self._tokenizer(
                text, add_special_tokens=adds_special, split_special_tokens=True, return_offsets_mapping=True
            )
        ids, offsets = found["input_ids"], over_marks(text, found["offset_mapping"])
        for token, (start, end) in zip(ids, offsets, strict=True):
            if start < end and self._special.get(text[start:end].strip()) == token:
                raise RegardError(
                    f"{text[start:end]!r} at character {start} is a special token, and the tokenizer of {self._name} "
                    "cannot write it as plain text; remove it"
                )
        return ids, offsets

    def _encode_whole(self, chat: "_Chat", plain: Callable[[], "_Chat"]) -> tuple[list[int], Offsets]:
        """A chat with the template's special tokens; `plain` is it with messages that spell out nothing."""
        ids, offsets = self._encode_all_special(chat.text)
        if any(
            self._special.get(chat.text[start:end].strip()) == token and chat.says(start, end)
            for token, (start, end) in zip(ids, offsets, strict=True)
        ):
            # piece by piece is as good as whole only where it gives the same for messages that spell out nothing
            marked = plain()
            if self._encode_pieces(marked) != self._encode_all_special(marked.text):
                raise RegardError(f"{self._name} cannot tell special tokens of the messages from its own; remove them")
            ids, offsets = self._encode_pieces(chat)
        return ids, offsets

    def _encode_all_special(self, text: str) -> tuple[list[int], Offsets]:
        with quiet():
            found = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return found["input_ids"], [tuple(pair) for pair in found["offset_mapping"]]

    def _encode_pieces(self, chat: "_Chat") -> tuple[list[int], Offsets]:
        """The template's special tokens one by one, and what stands between them as plain text."""
        own = [match.span() for start, end in chat.template() for match in self._spelt.finditer(chat.text, start, end)]
        ids: list[int] = []
        offsets: Offsets = []
        position = 0
        for start, end in [*own, (len(chat.text),) * 2]:
            plain_ids, places = self._encode(chat.text[position:start])
            ids += plain_ids
            offsets += [(position + first, position + last) for first, last in places]
            if start < end:
                ids.append(self._special[chat.text[start:end]])
                offsets.append((start, end))
            position = end
        return ids, offsets

    def _check_fields(self, messages: Sequence[Message], extras: dict[str, Any]) -> None:
        """Only a content can hold special tokens as plain text, and not every template writes all extras."""
        for name in extras:
            others = {other: each for other, each in extras.items() if other != name}
            if self._render(messages, extras) == self._render(messages, others):
                raise RegardError(f"{self._name}: its chat template ignores {name}; put them into a message")
        fields = {
            f"message {number}": {name: value for name, value in message.items() if name != "content"}
            for number, message in enumerate(messages, start=1)
        }
        for where, value in {**fields, **extras}.items():
            for spelt in (spelt for text in strings(value) for spelt in self._spelt.findall(text)):
                raise RegardError(f"{where}: {spelt!r} is a special token, plain text only in a content; remove it")

    def _chat(
        self, messages: Sequence[Message], marked: Sequence[Message], extras: dict[str, Any], *, asks: bool = True
    ) -> "_Chat":
        """The messages in the template, each where the template puts its placeholder."""
        for message in messages:
            _check_text(message.get("content") or "")
        text, shape = (self._render(each, extras, asks=asks) for each in (messages, marked))
        contents = {index: message["content"] for index, message in enumerate(messages) if has_content(message)}
        try:
            spans = located(text, shape, contents)
        except NotThere as error:
            if error.how == "changes":
                raise self._changed(messages, error.index) from None
            raise RegardError(
                f"{self._name}: its chat template {error.how} {_name(messages, error.index)}; change or remove it"
            ) from None
        return _Chat(text, tuple(Turn(messages[index]["role"], *span) for index, span in spans))

    def _documents(self, chat: "_Chat", documents: Sequence[Any]) -> Iterator[Turn]:
        """Where the template put the text of each document."""
        template = list(chat.template())
        for number, document in enumerate(documents, start=1):
            fields = document if isinstance(document, Mapping) else {"text": document}
            text = next((fields[name] for name in DOCUMENT_TEXTS if isinstance(fields.get(name), str)), "").strip()
            pattern = re.compile(re.escape(text) or r"(?!)")
            found = [at.span() for start, end in template for at in pattern.finditer(chat.text, start, end)]
            if len(found) == 1:
                yield Turn("document", *found[0])
            else:
                logger.warning(
                    "document %d stands %d times in the chat as it was given: its tokens count as the template's",
                    number,
                    len(found),
                )

    def _changed(self, messages: Sequence[Message], index: int) -> RegardError:
        return RegardError(
            f"{self._name}: its chat template changes {_name(messages, index)}; write it differently, or give all "
            "of it as plain text"
        )

    def _ends(self, marked: Sequence[Message], extras: dict[str, Any]) -> frozenset[int]:
        """The token that the template puts behind an answer."""
        answer = PLACEHOLDER.format(len(marked))
        try:
            text = self._render([*marked, {"role": "assistant", "content": answer}], extras, asks=False)
        except RegardError:
            # a template for single questions takes no answer: then the model alone says what ends one
            return frozenset()
        end = self._spelt.match(text.rpartition(answer)[2].lstrip())
        return frozenset([self._special[end[0]]] if end else [])

    def _render(self, messages: Sequence[Message], extras: dict[str, Any], *, asks: bool = True) -> str:
        with quiet(), told(f"{self._name}: its chat template fails"):
            return self._tokenizer.apply_chat_template(
                [dict(message) for message in messages], tokenize=False, add_generation_prompt=asks, **extras
            )


class NotThere(Exception):
    """A chat template `how` ("repeats", "leaves out" or "changes") treats the content of this index."""

    def __init__(self, index: int, how: str) -> None:
        self.index, self.how = index, how


def located(text: str, shape: str, contents: Mapping[int, str]) -> list[tuple[int, tuple[int, int]]]:
    """Where a chat template has put each content, in the order of the text: its index and its characters.

    `shape` is the same chat with `PLACEHOLDER`s of these indices. Raises NotThere.
    """
    first, *parts = _PLACEHOLDERS.split(shape)
    order, position = [int(index) for index in parts[::2]], len(first)
    for index in contents:
        if order.count(index) != 1:
            raise NotThere(index, "repeats" if index in order else "leaves out")
    found: list[tuple[int, tuple[int, int]]] = []
    for index, after in zip(order, parts[1::2], strict=True):
        content = contents[index]
        # many templates strip a message
        stripped = (content, content.strip(), content.lstrip(), content.rstrip())
        shown = [each for each in stripped if text.startswith(each + after, position)]
        if not shown or not text.startswith(first):
            raise NotThere(index, "changes")
        found.append((index, (position, position + len(shown[0]))))
        position += len(shown[0]) + len(after)
    if position != len(text):
        raise NotThere(order[-1], "changes")
    return found


class _Chat(NamedTuple):
    """Messages in a chat template: the whole text, and where in it they stand."""

    text: str
    turns: tuple[Turn, ...]

    def says(self, first: int, last: int) -> bool:
        """Whether any of these characters is a message's."""
        return any(first < turn.end and turn.start < last for turn in self.turns)

    def template(self) -> Iterator[tuple[int, int]]:
        """The stretches of the text between the messages."""
        ends, starts = [turn.end for turn in self.turns], [turn.start for turn in self.turns]
        return zip([0, *ends], [*starts, len(self.text)], strict=True)


def _marked(messages: Sequence[Message]) -> list[Message]:
    """The messages with a placeholder for each content."""
    return [
        {**message, "content": PLACEHOLDER.format(index)} if has_content(message) else message
        for index, message in enumerate(messages)
    ]


def _name(messages: Sequence[Message], index: int) -> str:
    return f"message {index + 1} ({messages[index]['role']})"


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RegardError(
            f"half a surrogate pair at character {error.start} of {text[:40]!a}, which is no text; remove it"
        ) from None
