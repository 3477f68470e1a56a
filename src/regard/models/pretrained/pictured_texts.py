"""A prompt or a chat with pictures, as the model's own processor and chat template write it.

A content is a text, or a list of parts as transformers' chat templates take them: {"type": "text", "text": …} and
{"type": "image"}, whose picture is given beside the messages or as "image", "path" or "url".
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, final

from regard.data.messages import Message
from regard.errors import RegardError
from regard.models.pretrained.needs import quiet, told
from regard.models.pretrained.processors import Prepared, Processor
from regard.models.pretrained.texts import PLACEHOLDER, Encoded, NotThere, Turn, located

# where a part of a message holds its picture
PICTURES = ("image", "path", "url", "image_url")
EXAMPLE = '{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}'


class Asked(NamedTuple):
    """A prompt or a chat as text; of a chat also where its messages stand and what ends an answer to it."""

    text: str
    turns: tuple[Turn, ...] = ()
    ends: frozenset[int] = frozenset()
    is_chat: bool = False


def pictures_in(messages: Any, beside: Sequence[Any]) -> list[Any]:
    """The pictures of messages in their order, those that are given `beside` them in the places of bare image parts.

    Raises RegardError where there are more or fewer of these, and for a part that is none.
    """
    given, found = iter(beside), []
    places = 0
    for where, part in _parts(messages):
        kind = part.get("type")
        if kind == "text" and isinstance(part.get("text"), str):
            continue
        if kind not in ("image", "image_url"):
            raise RegardError(f"{where}: a part must be a text or an image, such as in {EXAMPLE}")
        own = [part[name] for name in PICTURES if part.get(name) is not None]
        if own:
            found.append(own[0].get("url") if isinstance(own[0], Mapping) else own[0])
        else:
            places += 1
            found.append(next(given, None))
    if places != len(beside):
        raise RegardError(
            f"the messages have places for {places} pictures beside them, and {len(beside)} are given; give one for "
            'each {"type": "image"}'
        )
    return found


def _parts(messages: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, message in enumerate(messages, start=1):
        content = message.get("content") if isinstance(message, Mapping) else None
        for place, part in enumerate(content if isinstance(content, list | tuple) else (), start=1):
            where = f"messages: message {number}, part {place}"
            if not isinstance(part, Mapping):
                raise RegardError(f"{where}: a part must be a text or an image, such as in {EXAMPLE}")
            yield where, part


@final
class PicturedTexts:
    """Prompts and chats with pictures of the model `name`, whose processor this is."""

    def __init__(self, processor: Processor, name: str) -> None:
        self._processor, self._name = processor, name
        tokens = getattr(processor.tokenizer, "added_tokens_decoder", {})
        self._special = {token.content: id for id, token in tokens.items() if token.special}
        self._spelt = re.compile("|".join(map(re.escape, sorted(self._special, key=len, reverse=True))) or r"(?!)")

    def prompt(self, prompt: str, count: int, *, chats: bool = True) -> Asked:
        """A prompt with `count` pictures, which come first where it has no place for them.

        One that spells the model's image token is as it stands; else it is a message to a model that `chats`.
        Raises RegardError for another number of places than of pictures.
        """
        token = self._processor.image_token
        places = prompt.count(token) if token else 0
        if places:
            if places != count:
                raise RegardError(
                    f"the prompt has {places} places {token!r}, and {count} pictures are given; give one for each"
                )
            return Asked(prompt)
        if chats and self._processor.chat_template is not None:
            return self.message(prompt, count)
        self._refuse_special([prompt])
        return Asked((token or "") * count + prompt)

    def message(self, prompt: str, count: int) -> Asked:
        """A prompt as a message of the user, its pictures first. Raises RegardError as `chat`."""
        pictures = [{"type": "image"}] * count
        return self.chat([{"role": "user", "content": [*pictures, {"type": "text", "text": prompt}]}])

    def chat(self, messages: Sequence[Message], **extras: Any) -> Asked:
        """Messages in the model's chat template. Raises RegardError where it has none, or fails, or changes them."""
        if self._processor.chat_template is None:
            raise RegardError(f"{self._name} has no chat template; give it a prompt and images")
        listed = [_listed(message) for message in messages]
        roles = [message["role"] for message in listed for part in message["content"] if part["type"] == "text"]
        contents = [part["text"] for message in listed for part in message["content"] if part["type"] == "text"]
        self._refuse_special(contents)
        text = self._render(listed, extras)
        shape = self._render(_marked(listed), extras)
        try:
            spans = located(text, shape, dict(enumerate(contents)))
        except NotThere as error:
            shown = contents[error.index][:40]
            raise RegardError(f"{self._name}: its chat template {error.how} {shown!r}; write it differently") from None
        turns = tuple(Turn(roles[index], *span) for index, span in spans)
        return Asked(text, turns, self._ends(listed, extras), is_chat=True)

    def encode(self, asked: Asked, pictures: Sequence[Any]) -> tuple[Encoded, Prepared]:
        """The ids and what else the model is given; the text is what the processor makes of it, places written out."""
        bos = getattr(self._processor.tokenizer, "bos_token", None)
        # a template may have put it there
        has_begun = asked.is_chat and bool(bos) and asked.text.startswith(bos)
        prepared = self._processor.prepare(asked.text, pictures, adds_special=not has_begun)
        turns = _moved(asked, prepared.text, self._processor.image_token)
        return Encoded(prepared.text, prepared.ids, list(prepared.offsets), turns, asked.ends), prepared

    def _refuse_special(self, texts: Sequence[str]) -> None:
        for spelt in (spelt for text in texts for spelt in self._spelt.findall(text)):
            raise RegardError(f"{spelt!r} is a special token, which no text beside pictures can spell; remove it")

    def _ends(self, listed: Sequence[dict[str, Any]], extras: dict[str, Any]) -> frozenset[int]:
        """The token that the template puts behind an answer."""
        answer = PLACEHOLDER.format(0)
        message = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
        try:
            text = self._render([*listed, message], extras, asks=False)
        except RegardError:
            return frozenset()
        end = self._spelt.match(text.rpartition(answer)[2].lstrip())
        return frozenset([self._special[end[0]]] if end else [])

    def _render(self, messages: Sequence[Any], extras: dict[str, Any], *, asks: bool = True) -> str:
        with quiet(), told(f"{self._name}: its chat template fails"):
            return self._processor.tokenizer.apply_chat_template(
                messages,
                chat_template=self._processor.chat_template,
                tokenize=False,
                add_generation_prompt=asks,
                **extras,
            )


def _listed(message: Message) -> dict[str, Any]:
    """A message whose content is a list, in which pictures are mere places."""
    content = message.get("content") or ""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    listed = [part if part["type"] == "text" else {"type": "image"} for part in parts]
    return {**message, "content": listed}


def _marked(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages with a placeholder for each text."""
    found, index = [], 0
    for message in messages:
        parts = []
        for part in message["content"]:
            if part["type"] == "text":
                part, index = {**part, "text": PLACEHOLDER.format(index)}, index + 1
            parts.append(part)
        found.append({**message, "content": parts})
    return found


def _moved(asked: Asked, text: str, token: str | None) -> tuple[Turn, ...]:
    """The turns in the text that the processor made, in which each place of a picture is written out."""
    if not asked.turns:
        return ()
    pieces = re.split(f"({re.escape(token)})", asked.text) if token else [asked.text]
    pattern = "(.*?)" + "(.*?)".join(f"({re.escape(piece)})" for piece in pieces[::2]) + "(.*?)"
    match = re.fullmatch(pattern, text, re.DOTALL)
    if match is None:
        raise RegardError("the processor changes the text of the messages; give a prompt instead")
    starts, position = [], 0
    for index, piece in enumerate(pieces):
        if index % 2 == 0:
            starts.append((position, len(piece), match.start(index + 2)))
        position += len(piece)

    def moved(place: int) -> int:
        start, _, new = next(each for each in reversed(starts) if each[0] <= place)
        return new + place - start

    return tuple(Turn(turn.role, moved(turn.start), moved(turn.start) + turn.end - turn.start) for turn in asked.turns)
