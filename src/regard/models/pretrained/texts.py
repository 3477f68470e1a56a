"""Texts and chats as tokens of a transformers tokenizer; what is spelt out in a text is never a special token."""

import re
from typing import Any, NamedTuple, final

from regard.errors import RegardError
from regard.models.pretrained.needs import quiet, told

# where each token stands in a text: its first character and the one after its last
Offsets = list[tuple[int, int]]
# stands for the user's message while a chat template is looked at; no template writes it of itself
PLACEHOLDER = "\ue000\ue001\ue002"


@final
class Texts:
    """The tokenizer of the model `name`."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        self._tokenizer = tokenizer
        self._name = name

    def encode(self, text: str) -> tuple[list[int], Offsets]:
        """Token ids of a text and where in it they stand; what the model puts before and after a text stands nowhere.

        Special tokens that are spelt out in the text are plain text. Raises RegardError for half a surrogate pair, and
        where the tokenizer cannot write such a token as plain text.
        """
        return self._encode(text, adds_special=True)

    def encode_chat(self, prompt: str) -> tuple[list[int], Offsets, str]:
        """A user's message in the model's chat template: token ids, where they stand, and the text that they stand in.

        The template's special tokens are special ones; those that the user spelt out are plain text.
        Raises RegardError where the model has no template, or one that changes the message.
        """
        if self._tokenizer.chat_template is None:
            raise RegardError(f"{self._name} has no chat template; give the prompt as plain text")
        _check_text(prompt)
        chat = self._chat(prompt)
        ids, offsets = self._encode_all_special(chat.text)
        special = self._special().values()
        if any(token in special and chat.holds(*place) for token, place in zip(ids, offsets, strict=True)):
            # piece by piece is as good as whole only where it gives the same for a message that spells out nothing
            plain = self._chat(PLACEHOLDER)
            if self._encode_pieces(plain) != self._encode_all_special(plain.text):
                raise RegardError(f"{self._name} cannot tell special tokens of the prompt from its own; remove them")
            ids, offsets = self._encode_pieces(chat)
        return ids, offsets, chat.text

    def _encode(self, text: str, *, adds_special: bool = False) -> tuple[list[int], Offsets]:
        _check_text(text)
        with quiet():
            found = self._tokenizer(
                text, add_special_tokens=adds_special, split_special_tokens=True, return_offsets_mapping=True
            )
        ids, offsets = found["input_ids"], [tuple(pair) for pair in found["offset_mapping"]]
        special = self._special()
        for token, (start, end) in zip(ids, offsets, strict=True):
            if start < end and special.get(text[start:end].strip()) == token:
                raise RegardError(
                    f"{text[start:end]!r} at character {start} is a special token, and the tokenizer of {self._name} "
                    "cannot write it as plain text; remove it"
                )
        return ids, offsets

    def _encode_all_special(self, text: str) -> tuple[list[int], Offsets]:
        with quiet():
            found = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return found["input_ids"], [tuple(pair) for pair in found["offset_mapping"]]

    def _encode_pieces(self, chat: "_Chat") -> tuple[list[int], Offsets]:
        """The template's special tokens one by one, and what stands between them as plain text."""
        special = self._special()
        pattern = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))))
        around = [*pattern.finditer(chat.text, 0, chat.start), *pattern.finditer(chat.text, chat.end)]
        ids: list[int] = []
        offsets: Offsets = []
        position = 0
        for start, end in [*(match.span() for match in around), (len(chat.text),) * 2]:
            plain_ids, places = self._encode(chat.text[position:start])
            ids += plain_ids
            offsets += [(position + first, position + last) for first, last in places]
            if start < end:
                ids.append(special[chat.text[start:end]])
                offsets.append((start, end))
            position = end
        return ids, offsets

    def _special(self) -> dict[str, int]:
        added = self._tokenizer.added_tokens_decoder
        return {token.content: index for index, token in added.items() if token.special}

    def _chat(self, prompt: str) -> "_Chat":
        before, _, after = self._render(PLACEHOLDER).partition(PLACEHOLDER)
        text = self._render(prompt)
        # many templates strip the message
        for message in (prompt, prompt.strip()):
            if text == before + message + after:
                return _Chat(text, len(before), len(before) + len(message))
        raise RegardError(f"{self._name}: its chat template changes the prompt; give the whole as plain text")

    def _render(self, message: str) -> str:
        with quiet(), told(f"{self._name}: its chat template fails"):
            return self._tokenizer.apply_chat_template(
                [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True
            )


class _Chat(NamedTuple):
    """A message in a chat template: the whole text, and where in it the message stands."""

    text: str
    start: int
    end: int

    def holds(self, first: int, last: int) -> bool:
        """Whether the message has any of these characters."""
        return first < self.end and self.start < last


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RegardError(
            f"half a surrogate pair at character {error.start} of {text[:40]!a}, which is no text; remove it"
        ) from None
