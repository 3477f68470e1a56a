"""CTranslate2 at work in a process of its own, without torch: in_ctranslate2.py '"MODEL"' '"SENTENCES"' 1 2."""

import json
import sys
import time
from pathlib import Path

import ctranslate2
import tokenizers
import turns


def translate(model: str, sentences: str, inter_threads: int, intra_threads: int) -> None:
    """Each turn translates every so many lines of text, by the batch and the beam that it is told."""
    tokenizer = tokenizers.Tokenizer.from_file(f"{model}/tokenizer.json")
    tokenizer.encode_special_tokens = True
    translator = ctranslate2.Translator(
        model, compute_type="float32", inter_threads=inter_threads, intra_threads=intra_threads
    )
    lines = Path(sentences).read_text(encoding="utf-8").split("\n")[:-1]
    while (request := turns.wait()) is not None:
        started = time.perf_counter()
        results = translator.translate_batch(
            [encoding.tokens for encoding in tokenizer.encode_batch(lines[:: request["every"]])],
            beam_size=request["num_beams"],
            max_batch_size=request["batch_size"],
            max_input_length=0,
            min_decoding_length=0,
            max_decoding_length=request["max_new_tokens"],
        )
        outputs = [tokenizer.decoder.decode(result.hypotheses[0]) for result in results]
        turns.tell(seconds=time.perf_counter() - started, outputs=outputs)
    turns.tell()


if __name__ == "__main__":
    translate(*map(json.loads, sys.argv[1:]))
