"""A pretrained model that runs in transformers: its module and tokenizer, and what can be done with them."""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, final

import torch
from torch import nn

from regard.errors import RegardError
from regard.models.pretrained.find import find_model
from regard.models.pretrained.folder import load_folder
from regard.models.pretrained.needs import quiet, told
from regard.reading.language import Settings, Spelt, decoder_start, read_pair, read_tokens
from regard.reading.pieces import Rows
from regard.reading.reading import Reading
from regard.reading.segments import Segmenter

# where each token stands in a text: its first character and the one after its last
Offsets = list[tuple[int, int]]
# stands for the user's message while a chat template is looked at; no template writes it of itself
PLACEHOLDER = "\ue000\ue001\ue002"


@final
class LanguageModel:
    """A model of transformers in evaluation mode, its tokenizer (None where its folder has none), and its name."""

    def __init__(self, module: nn.Module, tokenizer: Any, *, name: str, device: torch.device) -> None:
        self.module: Any = module.to(device)
        self.tokenizer = tokenizer
        self.name = name
        self.device = device

    @classmethod
    def load(cls, model: str | os.PathLike[str], *, device: torch.device, dtype: torch.dtype) -> "LanguageModel":
        """The model of an alias, a Hugging Face folder, a name of its hub or a GGUF file. Raises RegardError."""
        name, folder = find_model(model)
        module, tokenizer = load_folder(folder, dtype=dtype)
        return cls(module, tokenizer, name=name, device=device)

    @property
    def context_length(self) -> int | None:
        """How many tokens the model takes at most; None where it does not say."""
        length = getattr(self.module.config, "max_position_embeddings", None)
        return length if isinstance(length, int) else None

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
        if self._tokenizer().chat_template is None:
            raise RegardError(f"{self.name} has no chat template; give the prompt as plain text")
        _check_text(prompt)
        chat = self._chat(prompt)
        ids, offsets = self._encode_all_special(chat.text)
        special = self._special().values()
        if any(token in special and chat.holds(*place) for token, place in zip(ids, offsets, strict=True)):
            # piece by piece is as good as whole only where it gives the same for a message that spells out nothing
            plain = self._chat(PLACEHOLDER)
            if self._encode_pieces(plain) != self._encode_all_special(plain.text):
                raise RegardError(f"{self.name} cannot tell special tokens of the prompt from its own; remove them")
            ids, offsets = self._encode_pieces(chat)
        return ids, offsets, chat.text

    def decode(self, ids: list[int]) -> str:
        """The text of tokens, special ones spelt out."""
        return self._tokenizer().decode(ids, clean_up_tokenization_spaces=False)

    def generate_ids(self, ids: list[int], max_new_tokens: int) -> list[int]:
        """What the model writes after `ids`, always its likeliest token, up to an end that it writes itself.

        Raises RegardError where the model writes nothing, or could not hold so many tokens.
        """
        if not self.module.can_generate():
            raise RegardError(
                f"{self.name} is a {type(self.module).__name__}, which generates nothing; name another model"
            )
        if not ids:
            raise RegardError("the prompt is empty; give it at least one token")
        if max_new_tokens < 1:
            raise RegardError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
        self.check_length(len(ids), max_new_tokens)
        tokens = torch.tensor([ids], device=self.device)
        with quiet(), told(f"{self.name}: transformers cannot generate"):
            written = self.module.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                use_cache=True,
            )
        # an encoder-decoder's output begins with the token that starts its decoder, any other's with the prompt
        return written[0, 1 if self.module.config.is_encoder_decoder else len(ids) :].tolist()

    def read(
        self,
        prompt: str | None = None,
        *,
        text: str | None = None,
        source: str | None = None,
        target: str | None = None,
        chat: bool = False,
        max_new_tokens: int = 64,
        rows: Rows | None = None,
        top_k: int | None = None,
        statistics: Sequence[str] = (),
        layers: Sequence[int] | int | None = None,
        segments: str | Segmenter = "sentences",
    ) -> Reading:
        """What the model looked at: when it goes on from `prompt`, in a `text`, or from `source` to `target`.

        It writes first, always its likeliest token, then runs once over all of it and is read there. With `chat` the
        prompt is a user's message. `rows` are by default those that wrote a token, of a text the last, of an encoder
        all. The other settings are those of `watching`.
        Raises RegardError for none or several of the texts, one that is empty or too long, and for what the model
        cannot do.
        """
        given = {"prompt": prompt, "text": text, "source": source}
        texts = {name: value for name, value in given.items() if value is not None}
        if len(texts) != 1:
            raise RegardError(f"give one of prompt, text and source, not {' and '.join(texts) or 'none'}")
        ((name, value),) = texts.items()
        if not value.strip():
            raise RegardError(f"the {name} is empty; there is nothing to read")
        is_pair = bool(self.module.config.is_encoder_decoder)
        if is_pair != (name == "source"):
            wanted = "source (and perhaps a target)" if is_pair else "prompt or a text"
            raise RegardError(f"{self.name} takes a {wanted}, not a {name}")
        if target is not None and not is_pair:
            raise RegardError("a target goes with a source")
        if chat and name != "prompt":
            raise RegardError("chat goes with a prompt")
        if name == "prompt" and not self.module.can_generate():
            raise RegardError(f"{self.name} writes nothing; give it a text")
        if chat:
            ids, offsets, value = self.encode_chat(value)
        else:
            ids, offsets = self.encode(value)
        spelt = Spelt(value, ids, offsets)
        self.check_length(len(ids))
        settings = Settings("generated", top_k, statistics, layers, segments)
        if name == "text":
            writes = self.module.can_generate()
            settings = replace(settings, rows=("last" if writes else "all") if rows is None else rows)
            return read_tokens(self.module, self.tokenizer, spelt, [], settings, name=self.name)
        if name == "prompt":
            settings = replace(settings, rows="generated" if rows is None else rows)
            written = self.generate_ids(ids, max_new_tokens)
            return read_tokens(self.module, self.tokenizer, spelt, written, settings, name=self.name)
        settings = replace(settings, rows="all" if rows is None else rows)
        if target is None:
            written = self.generate_ids(ids, max_new_tokens)
        else:
            with quiet():
                written = self.tokenizer(text_target=target).input_ids
        pair = [decoder_start(self.module), *written]
        return read_pair(self.module, self.tokenizer, spelt, pair, settings, name=self.name)

    def check_length(self, prompt: int, max_new_tokens: int = 0) -> None:
        """Raises RegardError where so many tokens are more than the model takes."""
        most = self.context_length
        new = 0 if self.module.config.is_encoder_decoder else max_new_tokens
        if most is not None and prompt + new > most:
            writes = f", {new} new ones may follow" if new else ""
            raise RegardError(f"the prompt has {prompt} tokens{writes}, the model takes at most {most}; shorten it")

    def _tokenizer(self) -> Any:
        if self.tokenizer is None:
            raise RegardError(f"{self.name} has no tokenizer beside it; put its tokenizer.json into its folder")
        return self.tokenizer

    def _encode(self, text: str, *, adds_special: bool = False) -> tuple[list[int], Offsets]:
        _check_text(text)
        with quiet():
            found = self._tokenizer()(
                text, add_special_tokens=adds_special, split_special_tokens=True, return_offsets_mapping=True
            )
        ids, offsets = found["input_ids"], [tuple(pair) for pair in found["offset_mapping"]]
        special = self._special()
        for token, (start, end) in zip(ids, offsets, strict=True):
            if start < end and special.get(text[start:end].strip()) == token:
                raise RegardError(
                    f"{text[start:end]!r} at character {start} is a special token, and the tokenizer of {self.name} "
                    "cannot write it as plain text; remove it"
                )
        return ids, offsets

    def _encode_all_special(self, text: str) -> tuple[list[int], Offsets]:
        with quiet():
            found = self._tokenizer()(text, add_special_tokens=False, return_offsets_mapping=True)
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
        added = self._tokenizer().added_tokens_decoder
        return {token.content: index for index, token in added.items() if token.special}

    def _chat(self, prompt: str) -> "_Chat":
        before, _, after = self._render(PLACEHOLDER).partition(PLACEHOLDER)
        text = self._render(prompt)
        # many templates strip the message
        for message in (prompt, prompt.strip()):
            if text == before + message + after:
                return _Chat(text, len(before), len(before) + len(message))
        raise RegardError(f"{self.name}: its chat template changes the prompt; give the whole as plain text")

    def _render(self, message: str) -> str:
        with quiet(), told(f"{self.name}: its chat template fails"):
            return self._tokenizer().apply_chat_template(
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
