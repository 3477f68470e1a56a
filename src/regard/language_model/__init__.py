"""A language model, Regard's own or one of transformers: its module and tokenizer, and the verbs on them."""

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, final

import torch
from torch import nn

from regard.config import shows
from regard.data.messages import Message
from regard.errors import RegardError
from regard.evaluation.perplexity import log_probabilities
from regard.export import hugging_face
from regard.generation.result import Generation
from regard.generation.writing import Writing
from regard.kernels.threads import fastest_threads
from regard.language_model.adapters import adapter_for, ends_of
from regard.language_model.asking import asking
from regard.language_model.heard import generate_heard, read_heard
from regard.language_model.media_sources import media_sources
from regard.language_model.seen import generate_pictured, has_pictures, pictured, read_answer, read_with
from regard.language_model.taken import processor_of
from regard.language_model.text import generate_text, read_encoded, read_text
from regard.models.compiled import compiled_step
from regard.models.gpt import quantise
from regard.models.pretrained.folder import load_folder, load_own
from regard.models.pretrained.gpt_weights import Unknown
from regard.models.pretrained.listening import Listening, hears, listening_of
from regard.models.pretrained.lora import Name, find_merged
from regard.models.pretrained.processors import Processor, takes
from regard.models.pretrained.texts import Offsets, Texts
from regard.reading.language import read_noted
from regard.reading.media_sources import MediaSources
from regard.reading.options import ReadOptions
from regard.reading.reading import Reading
from regard.reading.source_record import Sources
from regard.reading.sources import SourceOptions, find_sources

logger = logging.getLogger("regard")
# what is written to find out how fast that is
PROBE_TOKENS = 4
# of an answer that is read
MAX_NEW_TOKENS = 64


@final
class LanguageModel:
    """A model in evaluation mode, its tokenizer (None where its folder has none), its name, and what ends its texts.

    `library` runs it, regard or transformers. `writes` says whether it can continue a text. `context_length` is how
    many tokens it takes at most; None where it does not say.
    """

    def __init__(
        self,
        module: nn.Module,
        tokenizer: Any,
        *,
        name: str,
        device: torch.device,
        ends: frozenset[int] = frozenset(),
        folder: Path | None = None,
        processor: Any = None,
    ) -> None:
        self.adapter = adapter = adapter_for(module.to(device), name)
        self.library = adapter.library
        self.writes = adapter.writes
        self.context_length = adapter.context_length
        self.tokenizer = tokenizer
        self.ends = ends
        self.name = name
        self.device = device
        self._folder, self._processor = folder, processor

    @classmethod
    def load(
        cls, model: Name, *, library: str | None, device: torch.device, dtype: torch.dtype, adapter: Name | None = None
    ) -> "LanguageModel":
        """The model of an alias, a Hugging Face folder, a name of its hub or a GGUF file, in `library` or where it can.

        An `adapter` is merged into it, as one that is the model itself is into its base. Raises RegardError.
        """
        name, folder, adapters = find_merged(model, adapter)
        own = None
        if library != "transformers":
            try:
                own = load_own(folder, dtype=dtype, adapters=adapters)
            except Unknown as error:
                if library == "regard":
                    raise
                logger.info("%s; it runs in transformers", error)
        if own is not None:
            module, tokenizer, ends = own
            return cls(module, tokenizer, name=name, device=device, ends=ends)
        if library == "regard":
            raise RegardError(f"{name}: Regard has no model of its own for this architecture; leave out library")
        module, tokenizer = load_folder(folder, dtype=dtype, adapters=adapters)
        return cls(module, tokenizer, name=name, device=device, ends=ends_of(module), folder=folder)

    @property
    def module(self) -> Any:
        """The torch module."""
        return self.adapter.module

    @property
    def takes(self) -> frozenset[str]:
        """What it takes, of "text", "images" and "audio"."""
        return takes(self.module)

    @cached_property
    def listening(self) -> Listening:
        """What prepares a sound for it, and how its transcripts begin. Raises RegardError where its folder lacks it."""
        return listening_of(self.module, self._folder, self._processor, self.name)

    @cached_property
    def processor(self) -> Processor:
        """What prepares its pictures and sounds. Raises RegardError where its folder has none."""
        return processor_of(self.module, self._folder, self._processor, self.name)

    def quantise(self, dtype: str) -> None:
        """Round the weights to int8 or int4, so that writing, which waits for them, is faster.

        Raises RegardError for a model of transformers, and elsewhere than on a CPU.
        """
        quantise(self.adapter.own(f", which has no {dtype} weights here; use bfloat16"), dtype)

    def compile(self) -> None:
        """Let one text at a time be written by machine code, made for the model's sizes: about a minute, once.

        Raises RegardError for a model of transformers, elsewhere than on a CPU, and where there is no C++ compiler.
        """
        module = self.adapter.own("; only a model of Regard's is compiled")
        module.step = compiled_step(module)

    def fastest_threads(self) -> int:
        """On how many threads of a CPU, at most torch's number, the model writes fastest, by a short probe."""
        most = torch.get_num_threads()
        if self.device.type != "cpu" or not self.writes:
            return most
        new = PROBE_TOKENS if self.context_length is None else min(PROBE_TOKENS, self.context_length - 1)
        return fastest_threads(lambda: self.generate_ids([0], new), most)

    def encode(self, text: str) -> tuple[list[int], Offsets]:
        """Token ids of a text and where in it they stand; what the model puts before and after a text stands nowhere.

        Special tokens that are spelt out in the text are plain text. Raises RegardError for half a surrogate pair, and
        where the tokenizer cannot write such a token as plain text.
        """
        encoded = self._texts().encode(text)
        return encoded.ids, encoded.offsets

    def encode_chat(self, messages: str | Sequence[Message], **extras: Any) -> tuple[list[int], Offsets, str]:
        """Messages in the model's chat template: token ids, where they stand, and the text that they stand in.

        A text is one message of the user. `documents` and `tools` go to the template. The template's special tokens are
        special ones; those that a message spells out are plain text. Without a template, a single message of the user
        is framed: the page up to its last blank line, "Question: ", the question after it, and "Answer:".
        Raises RegardError for what are no messages, where the template fails, changes a message or ignores documents or
        tools, and for several turns without a template.
        """
        given = {"prompt": messages} if isinstance(messages, str) else {"messages": messages}
        encoded = self._texts().given(**given, chat=True, **extras)
        return encoded.ids, encoded.offsets, encoded.text

    def decode(self, ids: list[int]) -> str:
        """The text of tokens, special ones spelt out."""
        return self._tokenizer().decode(ids, clean_up_tokenization_spaces=False)

    def generate_ids(self, ids: list[int], max_new_tokens: int, *, ends: frozenset[int] = frozenset()) -> list[int]:
        """What the model writes after `ids`, always its likeliest token, up to its own end of a text or one of `ends`.

        Raises RegardError where the model writes nothing, or could not hold so many tokens.
        """
        if not self.writes:
            raise RegardError(
                f"{self.name} is a {type(self.module).__name__}, which generates nothing; name another model"
            )
        if not ids:
            raise RegardError("the prompt is empty; give it at least one token")
        if max_new_tokens < 1:
            raise RegardError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
        self.check_length(len(ids), max_new_tokens)
        return self.adapter.generate(torch.tensor([ids], device=self.device), max_new_tokens, self.ends | ends)

    @shows(Writing)
    def generate(
        self,
        prompts: str | Sequence[str] | None = None,
        *,
        images: Any = None,
        chat: bool = False,
        messages: Sequence[Message] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        tools: Sequence[Any] | None = None,
        n: int = 1,
        stream: Callable[[str], None] | None = None,
        going_on: Callable[[], bool] = lambda: True,
        read: bool = False,
        batch_size: int = 16,
        first: int = 0,
        **settings: Any,
    ) -> Any:
        """What the model writes after a prompt, or after each of several: `Generation`s.

        With `chat` a prompt is a message of the user. `messages` are a whole conversation in its place: a list of
        {"role": …, "content": …}, whose roles are system, user, assistant and tool. `documents` and `tools` go into the
        chat template. A model without one takes a single message of the user in the frame that `encode_chat` describes;
        its answer ends at the first newline after text. With n above 1 each prompt has a list of n samples.

        `images` are pictures beside a single prompt: paths, PIL images or arrays, one or a list; a message may have
        them as parts. `stream` receives the text of a single one as it comes, in whole characters. `going_on` is asked
        after every token; where it says no, the text ends early. With `read` the attention of a single one is recorded
        while it is written, for `read_written`, and the text ends where it fills the model's context; a model of
        transformers is read afterwards. `batch_size` prompts are written at a time, each as it would be alone.
        `first` is the place among all of the first prompt: samples follow from the seed and that.
        Raises RegardError for settings that make no sense, for a prompt that is empty or leaves no room, for messages
        that the template cannot take, and for a model that writes no text.
        """
        writing = Writing.of(settings)
        if has_pictures(self, images, messages):
            chats = {"chat": chat, "messages": messages, "documents": documents, "tools": tools}
            return generate_pictured(self, prompts, images, writing, chats, n=n, stream=stream, going_on=going_on)
        chats = {"chat": chat, "messages": messages, "documents": documents, "tools": tools}
        how: dict[str, Any] = {"stream": stream, "going_on": going_on, "read": read}
        how |= {"batch_size": batch_size, "first": first}
        return generate_text(self, prompts, writing, chats, n=n, **how)

    def transcribe(
        self, audio: Any, *, language: str | None = None, task: str | None = None, max_new_tokens: int | None = None
    ) -> Generation:
        """What a speech model such as Whisper writes of a sound, always its most likely token.

        A sound is a path, samples with their rate such as `(array, 16000)`, or {"array": …, "sampling_rate": …}.
        `language` is such as "en", by default the one that the model hears; `task` "transcribe" or, into English,
        "translate". By default it writes as much as it can.
        Raises RegardError for a sound that cannot be heard, and for a model that writes nothing of one.
        """
        return generate_heard(self, audio, language=language, task=task, max_new_tokens=max_new_tokens)

    def log_probabilities(self, text: str) -> list[float]:
        """The log-probability of every token of a text but the first, given those before it.

        A text longer than the model's context is read in windows that overlap by half.
        Raises RegardError for a text of one token, and for a model that predicts no next token.
        """
        if not self.writes:
            raise RegardError(f"{self.name} predicts no next token; name a decoder-only model")
        ids, _ = self.encode(text)
        if len(ids) < 2:
            raise RegardError("a text needs two tokens at least: the first is not predicted")
        found = log_probabilities(self.adapter.logits, ids, most=self.context_length or len(ids), device=self.device)
        if any(map(math.isnan, found)):
            raise RegardError(f"{self.name}: its logits are no numbers (NaN); its weights are broken")
        return found

    def perplexity(self, text: str) -> float:
        """exp of the mean negative log-probability per token."""
        values = self.log_probabilities(text)
        return math.exp(-math.fsum(values) / len(values))

    @shows(ReadOptions, rows=None)
    def read(
        self,
        prompt: str | None = None,
        *,
        text: str | None = None,
        images: Any = None,
        audio: Any = None,
        language: str | None = None,
        task: str | None = None,
        chat: bool = False,
        messages: Sequence[Message] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        tools: Sequence[Any] | None = None,
        max_new_tokens: int | None = None,
        **options: Any,
    ) -> Reading:
        """What the model looks at when it continues a `prompt`, in a `text`, in `images`, or in `audio`.

        Images are paths, PIL images or arrays, one or a list; messages may have them as parts. It writes first, always
        its most likely token, at most `max_new_tokens`, then runs once over all of it and is read there. `chat`,
        `messages`, `documents` and `tools` are those of `generate`; `audio`, `language` and `task` those of
        `transcribe`, and without max_new_tokens a sound is written down to its end.
        Raises RegardError for none or several of the texts, one that is empty or too long, options that make no sense,
        and for what the model cannot do.
        """
        inputs = (("prompt", prompt), ("messages", messages), ("text", text))
        texts = {name: value for name, value in inputs if value is not None}
        if audio is not None or hears(self.module):
            heard = {"language": language, "task": task, "max_new_tokens": max_new_tokens}
            return read_heard(self, audio, texts, options, **heard)
        if language is not None or task is not None:
            raise RegardError("language and task go with audio, which a speech model hears")
        chats = {"documents": documents, "tools": tools}
        most = MAX_NEW_TOKENS if max_new_tokens is None else max_new_tokens
        if has_pictures(self, images, messages):
            return read_with(self, texts, images, options, max_new_tokens=most, chat=chat, **chats)
        return read_text(self, texts, options, chat=chat, max_new_tokens=most, **chats)

    @shows(SourceOptions)
    def sources(
        self,
        prompt: str | None = None,
        *,
        chat: bool = False,
        messages: Sequence[Message] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        tools: Sequence[Any] | None = None,
        images: Any = None,
        audio: Any = None,
        language: str | None = None,
        task: str | None = None,
        answer: str | None = None,
        contrast: str | None = None,
        max_new_tokens: int | None = None,
        progress: Callable[[int], None] = lambda steps: None,
        **options: Any,
    ) -> Sources | MediaSources:
        """Which passages of a prompt its answer rests on: ranked by estimate, the first few confirmed by removal.

        With `images`, or messages that have some, it is regions of these, with `audio` spans of it, which are hidden
        instead: `MediaSources`. Of the options they take `of` and `confirm`.
        The answer is the model's own, always its most likely token, or `answer`, written elsewhere, as it follows the
        prompt. With a `contrast`, another answer, it is asked why this one and not that. `chat`, `messages`,
        `documents` and `tools` are those of `generate`; `audio`, `language`, `task` and `max_new_tokens` those of
        `read`. `progress` is called with 1 after each step: the estimates of all, then each removal.
        Raises RegardError for an empty answer, for options that make no sense, and for what the model cannot do.
        """
        chats = {"messages": messages, "documents": documents, "tools": tools}
        has_sound = hears(self.module) or any(each is not None for each in (audio, language, task))
        if has_sound or has_pictures(self, images, messages):
            voices = {"language": language, "task": task}
            how = {"answer": answer, "contrast": contrast, "max_new_tokens": max_new_tokens, "progress": progress}
            media = {"images": images, "audio": audio, "chats": {"chat": chat, **chats}, "voices": voices}
            return media_sources(self, prompt, options, **media, **how)
        most, texts = MAX_NEW_TOKENS if max_new_tokens is None else max_new_tokens, {"prompt": prompt, "answer": answer}
        asked, other = asking(self, texts | chats, chat=chat, contrast=contrast, max_new_tokens=most)
        return find_sources(asked, SourceOptions.of_settings(options), contrast=other, progress=progress)

    @shows(ReadOptions, rows="generated")
    def read_written(
        self,
        prompt: str | None,
        written: Generation,
        *,
        images: Any = None,
        chat: bool = False,
        messages: Sequence[Message] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        tools: Sequence[Any] | None = None,
        **options: Any,
    ) -> Reading:
        """What the model looked at when it wrote what `generate` gave for this prompt, stop text included.

        With `messages` the prompt is None. Where `generate` recorded it and only rows are asked for, the record is
        returned; else the model runs once over the very tokens. Raises RegardError where they outgrew its context.
        """
        read = ReadOptions.of(options, rows="generated")
        if has_pictures(self, images, messages):
            chats = {"chat": chat, "messages": messages, "documents": documents, "tools": tools}
            return read_answer(self, pictured(self, prompt, images=images, **chats), written.tokens, read)
        given = self._texts().given(prompt, messages, chat=chat, documents=documents, tools=tools)
        self.check_length(len(given.ids), len(written.tokens))
        if written.attention and read == ReadOptions(rows="generated", segments=read.segments):
            ends = self.ends | self._texts().ends(given, written.tokens)
            return read_noted(self.module, self.tokenizer, given, written, ends=ends, name=self.name)
        return read_encoded(self, given, written.tokens, read)

    def export(self, target: str, folder: str | os.PathLike[str]) -> None:
        """Write the model into a new folder for another library, whose logits must be the same: "hf", Hugging Face's.

        Raises RegardError if there is no such target or it has no such model, and if the folder is there already.
        """
        if target != "hf":
            raise RegardError(f"a language model is exported to 'hf', Hugging Face's transformers, not to {target!r}")
        module = self.adapter.own(": its module's own save_pretrained writes it")
        hugging_face.export(module, self.tokenizer, Path(folder), name=self.name, ends=self.ends)

    def check_length(self, prompt: int, max_new_tokens: int = 0) -> None:
        """Raises RegardError where so many tokens are more than the model takes."""
        most = self.context_length
        if most is not None and prompt + max_new_tokens > most:
            told = f"the prompt has {prompt} tokens" + f", {max_new_tokens} new ones may follow" * bool(max_new_tokens)
            fewer = f"ask for at most {most - prompt} new ones or " if max_new_tokens and prompt < most else ""
            raise RegardError(f"{told}, the model takes at most {most}; {fewer}shorten it")

    def _tokenizer(self) -> Any:
        if self.tokenizer is None:
            raise RegardError(f"{self.name} has no tokenizer beside it; put its tokenizer.json into its folder")
        return self.tokenizer

    def _texts(self) -> Texts:
        return Texts(self._tokenizer(), self.name)
