"""A tokenizer of Regard's own as one of transformers, for what is written once for both."""

from typing import Any

import tokenizers
from tokenizers import processors

from regard.data.batch import EOS, SPECIAL_TOKENS
from regard.data.tokenizer import Tokenizer
from regard.models.pretrained.needs import check_installed, quiet

NAMES = ("pad_token", "bos_token", "eos_token", "unk_token")


def as_transformers(tokenizer: Tokenizer) -> Any:
    """The same tokens, and before every text EOS, as training had it before every document.

    Raises RegardError where transformers is not installed.
    """
    check_installed()
    from transformers import PreTrainedTokenizerFast

    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    end = SPECIAL_TOKENS[EOS]
    backend.post_processor = processors.TemplateProcessing(single=f"{end} $A", special_tokens=[(end, EOS)])
    with quiet():
        return PreTrainedTokenizerFast(tokenizer_object=backend, **dict(zip(NAMES, SPECIAL_TOKENS, strict=True)))
