"""The pages of other viewers, in an environment of their own: in_pages.py '"bertviz"'."""

import json
import sys

import torch
import turns


def bertviz(tokens: list[str], weights: torch.Tensor) -> str:
    from bertviz import head_view

    return str(head_view(list(weights[:, None]), tokens, html_action="return").data)


def circuitsvis(tokens: list[str], weights: torch.Tensor) -> str:
    from circuitsvis.attention import attention_heads

    # the form that brings its script along
    return attention_heads(tokens=tokens, attention=weights.flatten(0, 1)).local_src


def pages(name: str) -> None:
    """Each turn writes the page of random causal weights."""
    while (asked := turns.wait()) is not None:
        torch.manual_seed(0)
        length = asked["length"]
        weights = torch.rand(asked["layers"], asked["heads"], length, length).tril() ** 12
        weights = weights / weights.sum(-1, keepdim=True)
        tokens = [f"word{place % 100}" for place in range(length)]
        html = {"bertviz": bertviz, "circuitsvis": circuitsvis}[name](tokens, weights)
        with open(asked["path"], "w", encoding="utf-8") as file:
            file.write(html)
        turns.tell(size=len(html))
    turns.tell()


if __name__ == "__main__":
    pages(json.loads(sys.argv[1]))
