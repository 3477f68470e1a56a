"""Other ways to rank the passages of an answer, rebuilt after their papers.

AttnLRP: Achtibat et al. 2024, "AttnLRP: attention-aware layer-wise relevance propagation for transformers", section 3;
as its authors' package does it, the rules are gradients of a changed forward pass. AT2: Cohen-Wang et al. 2025,
"Learning to attribute with attention". ContextCite: Cohen-Wang et al. 2024, "ContextCite: attributing model generation
to context". Rollout: Abnar and Zuidema 2020, "Quantifying attention flow in transformers".
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from regard.language_model import LanguageModel
from regard.models.pretrained.texts import Texts
from regard.reading.language import read_tokens
from regard.reading.options import ReadOptions
from regard.reading.record import Span

# ContextCite's own penalty, of log-odds per token of the answer
PENALTY, SWEEPS = 0.01, 200
# of ridge regression, in units of the mean square of a feature
PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)


def contextcite(kept: np.ndarray, log_probabilities: np.ndarray, tokens: int) -> np.ndarray:
    """The change by each passage, of the LASSO of the answer's log-odds on which are kept, by coordinate descent."""
    odds = (log_probabilities - np.log1p(-np.exp(np.minimum(log_probabilities, -1e-9)))) / tokens
    scale = kept.std(0)
    scale[scale == 0] = 1.0
    inputs, rest = (kept - kept.mean(0)) / scale, odds - odds.mean()
    weights = np.zeros(kept.shape[1])
    for _ in range(SWEEPS):
        for number, column in enumerate(inputs.T):
            rest += column * weights[number]
            along = column @ rest / len(rest)
            weights[number] = math.copysign(max(0.0, abs(along) - PENALTY), along) / max(column @ column / len(rest), 1)
            rest -= column * weights[number]
    return -weights / scale * tokens


def head_weights(
    prompts: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> np.ndarray:
    """AT2: weights of heads with which their attention to what is kept tells the answer's log-probability.

    Of each prompt the heads' attention [head, passage], which passages random halves keep [half, passage], and the
    log-probability then. The penalty of the ridge regression is the one that does best on prompts left out.
    """
    moments = [_moments(*each) for each in prompts]
    folds = [[number for number in range(len(moments)) if number % 4 == fold] for fold in range(4)]

    def error(penalty: float) -> float:
        total = 0.0
        for fold in folds:
            chosen = _ridge([each for number, each in enumerate(moments) if number not in fold], penalty)
            for gram, along, _ in (moments[number] for number in fold):
                total += float(chosen @ gram @ chosen - 2 * chosen @ along)
        return total

    return _ridge(moments, min(PENALTIES, key=error))


Moments = tuple[np.ndarray, np.ndarray, int]


def _moments(attention: np.ndarray, kept: np.ndarray, after: np.ndarray) -> Moments:
    """Of a prompt the products of features and of features with the target, the target of unit spread."""
    features = (kept - kept.mean(0)) @ attention.T
    target = (after - after.mean()) / (after.std() or 1.0)
    return features.T @ features, features.T @ target, len(target)


def _ridge(moments: Sequence[Moments], penalty: float) -> np.ndarray:
    gram, along = sum(each[0] for each in moments), sum(each[1] for each in moments)
    assert isinstance(gram, np.ndarray)
    return np.linalg.solve(gram + penalty * np.trace(gram) / len(gram) * np.eye(len(gram)), along)


def rollout(model: LanguageModel, prompt: str, answer: str, spans: Sequence[Span]) -> np.ndarray:
    """What of the rows that wrote the answer came from each passage by attention rollout, below 0."""
    texts = Texts(model.tokenizer, model.name)
    given = texts.given(prompt, chat=True)
    reading = read_tokens(
        model.module,
        model.tokenizer,
        given,
        texts.encode_answer(answer),
        ReadOptions.of({"statistics": "rollout"}, rows="generated"),
        ends=model.ends,
        inputs=model.adapter.inputs,
        name=model.name,
    )
    # of the first layer: down to the tokens
    flow = reading.statistics["decoder", 0]["rollout"].sum(0)
    return np.array([-float(flow[slice(*span)].sum()) for span in spans])


# AttnLRP


def relevance(module: Any, prompt: list[int], answer: list[int]) -> np.ndarray:
    """AttnLRP of the answer's logits, summed, by token of the prompt.

    `module` is a model of transformers whose blocks are Llama's.
    """
    ids = torch.tensor([[*prompt, *answer[:-1]]])
    embedded = module.get_input_embeddings()(ids).detach().requires_grad_()
    with attnlrp(module), torch.enable_grad():
        logits = module(inputs_embeds=embedded, use_cache=False, logits_to_keep=len(answer)).logits[0]
        chosen = logits.gather(1, torch.tensor(answer)[:, None]).sum()
        (gradient,) = torch.autograd.grad(chosen, embedded)
    return (embedded * gradient).sum(-1)[0, : len(prompt)].detach().double().numpy()


@contextlib.contextmanager
def attnlrp(module: Any) -> Iterator[None]:
    """While this is open, input times gradient is relevance by AttnLRP's rules.

    Norms and activations pass relevance on as it is, a product's factors share it, and the softmax is as it is.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    name = module.config._attn_implementation
    original = ALL_ATTENTION_FUNCTIONS[name]

    def shared(block: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        # values and weights share what comes out, queries and keys what weights get of it
        return original(block, _part(query, 4), _part(key, 4), _part(value, 2), *args, **kwargs)

    with contextlib.ExitStack() as stack:
        ALL_ATTENTION_FUNCTIONS[name] = shared
        stack.callback(ALL_ATTENTION_FUNCTIONS.__setitem__, name, original)
        for each in module.modules():
            rule = _rule_of(each)
            if rule is not None:
                vars(each)["forward"] = rule
                stack.callback(vars(each).pop, "forward")
        frozen = [each for each in module.parameters() if each.requires_grad]
        stack.callback(lambda: [each.requires_grad_() for each in frozen])
        for each in frozen:
            each.requires_grad_(False)
        yield


def _rule_of(module: Any) -> Callable[[Tensor], Tensor] | None:
    if type(module).__name__.endswith("RMSNorm"):
        weight = module.weight + 1 if type(module).__name__.startswith("Gemma") else module.weight
        epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        assert isinstance(epsilon, float)
        return lambda x: x * (x.pow(2).mean(-1, keepdim=True) + epsilon).rsqrt().detach() * weight
    if all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj", "act_fn")):

        def forward(x: Tensor) -> Tensor:
            gate = module.gate_proj(x)
            # the activation as a factor
            factor = (module.act_fn(gate) / torch.where(gate == 0, 1e-9, gate)).detach()
            return module.down_proj(_part(gate * factor * module.up_proj(x), 2))

        return forward
    return None


def _part(x: Tensor, of: int) -> Tensor:
    """The same, with its gradient divided."""
    return x / of + (x - x / of).detach()
