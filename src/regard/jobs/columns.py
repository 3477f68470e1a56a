"""The columns of rows, by verb, for tables: a type, `JSON` for what is kept as its text, a list of one, or several."""

from typing import Any

JSON = "json"
WRITTEN = {"text": str, "log_probability": float, "finished": bool}
# a passage of a prompt with what it did to the answer, and what an answer rests on
PASSAGE = {
    "text": str,
    "start": int,
    "end": int,
    "estimate": float,
    "effect": float,
    "share": float,
    "token_effects": [float],
}
VERDICT = {"text": str, "on": [int], "either": bool}

COLUMNS: dict[str, dict[str, Any]] = {
    "translate": {
        "id": str,
        "source": str,
        "prefix": str,
        **WRITTEN,
        "score": float,
        "shortened": bool,
        "translations": [{**WRITTEN, "score": float}],
        "error": str,
    },
    "generate": {
        "id": str,
        "prompt": str,
        "messages": JSON,
        **WRITTEN,
        "tokens": [int],
        "samples": [{**WRITTEN, "tokens": [int]}],
        "error": str,
    },
    "read": {
        "id": str,
        "prompt": str,
        "messages": JSON,
        "text": str,
        "source": str,
        "target": str,
        "answer": str,
        "parts": [{"text": str, "share": float}],
        "words": [{"text": str, "looked_at": [{"text": str, "weight": float}]}],
        "checks": {"rows": int, "largest_error": float, "refused": int},
        "reading": JSON,
        "error": str,
    },
    "sources": {
        "id": str,
        "prompt": str,
        "messages": JSON,
        "source": str,
        "target": str,
        "contrast": str,
        "within": str,
        "of": str,
        "answer": str,
        "verdict": VERDICT,
        "sentences": [{"text": str, "start": int, "end": int, "verdict": VERDICT}],
        "log_probability": float,
        "together": float,
        "method": str,
        "why": str,
        "passes": float,
        "question": PASSAGE,
        "sources": [PASSAGE],
        "error": str,
    },
}
