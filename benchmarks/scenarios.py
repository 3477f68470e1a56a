"""Ways of running a model beside forward and greedy `generate`, each with the rows and the names that must be read.

A scenario builds a `Case` from an architecture and a backend, or None where it does not apply. The truth of a
generated sequence is a teacher-forced eager pass, of another run the eager model's own calls.
"""

import dataclasses
import importlib
import inspect
import re
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import DynamicCache

from benchmarks import witness, written
from benchmarks.judging import FAILURES, Case, Truth, tensors
from benchmarks.truths import by_place, eager_for, of_forward, of_written
from benchmarks.zoo.architecture import BEGIN, PAD, Architecture, Inputs
from benchmarks.zoo.inputs import picked
from regard.generation.steps import cache_name, cache_of

GREEDY = {
    "do_sample": False,
    "num_beams": 1,
    "max_new_tokens": 5,
    "return_dict_in_generate": True,
    "suppress_tokens": [PAD, BEGIN],
}
VIRTUAL, CHUNK = 4, 4
# weights in float64 of what the kernel got, and kept in float32
ROUNDED = 1e-6
Scenario = Callable[[Architecture, str], Case | None]


# what a scenario needs beside transformers
NEEDS = {"prompt tuning": "peft", "LoRA": "peft", "offloaded weights": "accelerate"}


# generate


def generating(
    architecture: Architecture, implementation: str, *, model: Any = None, captured: bool = False,
    before: int = 0, settings: dict[str, Any] | None = None, around: Callable[[], Any] | None = None, **how: Any,
) -> Case | None:  # fmt: skip
    """A case of `generate` with further settings.

    `captured` where only the run's own calls have its rows, from `before` forwards on.
    """
    if not architecture.generates:
        return None
    model = architecture.build(implementation) if model is None else model
    prompt = architecture.prompt(next(model.parameters()).dtype)
    how = greedy(architecture) | how

    def run(_: Any) -> Any:
        if around is None:
            return model.generate(**prompt, **how)
        with around():
            return model.generate(**prompt, **how)

    def truths(output: Any) -> list[Truth]:
        sequences, beams = output.sequences, getattr(output, "beam_indices", None)
        if captured or not architecture.steps_agree:
            torch.manual_seed(0)
            calls = witness.capture(model, lambda: run(None), kinds=architecture.kinds)
            rows = written.from_run(architecture, calls, sequences, beams, before=before)
        else:
            rows = written.teacher_forced(
                architecture, sequences, implementation=eager_for(architecture, implementation)
            )
        return of_written(architecture, sequences, rows)

    return Case(model, run, truths, {"rows": "generated"} | (settings or {}))


def greedy(architecture: Architecture) -> dict[str, Any]:
    """Settings by which no token is written that holds the place of a picture or sound, which would be looked for."""
    medium = [] if architecture.medium_id is None else [architecture.medium_id]
    return GREEDY | {"suppress_tokens": [*GREEDY["suppress_tokens"], *medium]}


def _alone(architecture: Architecture) -> Architecture:
    """The padded second sequence alone."""
    return dataclasses.replace(architecture, make_inputs=lambda: picked(architecture.make_inputs(), [1]))


def new_cache(model: Any) -> Any:
    """An empty cache; None for a model that takes only one of its own kind, which it makes."""
    return None if "MiniMax" in type(model).__name__ else DynamicCache(config=model.config)


def _is_decoder(architecture: Architecture) -> bool:
    return set(architecture.kinds) == {"decoder"} and architecture.generates


def assisted(architecture: Architecture, implementation: str) -> Case | None:
    if not architecture.generates:
        return None
    return _proposed(architecture, implementation, assistant_model=architecture.build(implementation, seed=1))


def prompt_lookup(architecture: Architecture, implementation: str) -> Case | None:
    return _proposed(architecture, implementation, prompt_lookup_num_tokens=3) if architecture.generates else None


def _proposed(architecture: Architecture, implementation: str, **how: Any) -> Case | None:
    if not architecture.steps_agree:
        # which run of it had the row of a token is not told apart from outside
        return None
    alone = _alone(architecture)
    model, prompt = alone.build(implementation), alone.prompt()
    if not torch.equal(
        model.generate(**prompt, **GREEDY | how).sequences, model.generate(**prompt, **GREEDY).sequences
    ):
        raise RuntimeError("unwatched it does not write what it writes without proposals")
    return generating(alone, implementation, **how)


def inputs_embeds(architecture: Architecture, implementation: str) -> Case | None:
    if not _is_decoder(architecture) or not architecture.steps_agree:
        return None
    model, prompt = architecture.build(implementation), architecture.prompt()
    given = {
        "inputs_embeds": model.get_input_embeddings()(prompt["input_ids"]),
        "attention_mask": prompt["attention_mask"],
    }

    def truths(output: Any) -> list[Truth]:
        sequences = torch.cat([prompt["input_ids"], output.sequences], dim=1)
        names = torch.cat([torch.full_like(prompt["input_ids"], -1), output.sequences], dim=1)
        rows = written.teacher_forced(architecture, sequences, implementation=eager_for(architecture, implementation))
        return of_written(architecture, sequences, rows, names=names)

    return Case(model, lambda _: model.generate(**given, **GREEDY), truths)


def turns(architecture: Architecture, implementation: str, *, before: bool = False) -> Case | None:
    """Two turns on one cache; with `before` the first of them ran before the watch was opened."""
    case = generating(architecture, implementation)
    if case is None or not _is_decoder(architecture):
        return None
    model, prompt = case.watched, architecture.prompt()

    def first() -> Any:
        mask = prompt["attention_mask"][:, :6]
        given = {"input_ids": prompt["input_ids"][:, :6], "attention_mask": mask}
        if "position_ids" in written.arguments(model):
            given["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
        cache = new_cache(model)
        output = model(**given, **{cache_name(model): cache}, use_cache=True)
        return cache_of(output) if cache is None else cache

    def run(cache: Any) -> Any:
        filled = {cache_name(model): first() if cache is None else cache}
        return model.generate(**prompt, **filled, **GREEDY)

    def truths(output: Any) -> list[Truth]:
        if architecture.unread:
            # the state of a layer without attention may not be what one forward over both turns gives
            calls = witness.capture(model, lambda: run(None), kinds=architecture.kinds)
            rows = written.from_run(architecture, calls, output.sequences, before=1)
            made = of_written(architecture, output.sequences, rows)
        else:
            made = case.truths(output)
        for truth in made if before else ():
            # of what ran before, no id is proved
            truth.keys = {kind: [None] * len(ids) for kind, ids in truth.keys.items()}
        return made

    return Case(model, run, truths, prepare=first if before else lambda: None)


def guided_by_hand(architecture: Architecture, implementation: str) -> Case | None:
    """Classifier-free guidance in a loop of one's own: prompts and, behind them, as many beginnings without, one batch.

    Both halves are fed the token that their mixed logits chose, on one cache.
    """
    if not _is_decoder(architecture):
        return None
    model, prompt = architecture.build(implementation), architecture.prompt()
    size, count = prompt["input_ids"].shape
    begin = functional.pad(torch.full((size, 1), BEGIN), (count - 1, 0), value=PAD)
    ids = torch.cat([prompt["input_ids"], begin])
    mask = torch.cat([prompt["attention_mask"], (begin == BEGIN).long()])

    def given(ids: torch.Tensor) -> Inputs:
        seen = functional.pad(mask, (0, ids.shape[1] - count), value=1)
        inputs = {"input_ids": ids, "attention_mask": seen}
        if "position_ids" in written.arguments(model):
            inputs["position_ids"] = (seen.cumsum(1) - 1).clamp(min=0)
        return inputs

    def run(_: Any) -> Any:
        cache, fed, mixed = new_cache(model), ids, []
        for step in range(GREEDY["max_new_tokens"]):
            inputs = given(fed)
            for name in inputs.keys() - {"attention_mask"} if step else ():
                inputs[name] = inputs[name][:, -1:]
            output = model(**inputs, **{cache_name(model): cache}, use_cache=True)
            cache = cache_of(output) if cache is None else cache
            guided, free = output.logits[:, -1].chunk(2)
            mixed.append(free + 1.5 * (guided - free))
            fed = torch.cat([fed, mixed[-1].argmax(-1).repeat(2)[:, None]], dim=1)
        return {"sequences": fed, "logits": mixed}

    def truths(output: Any) -> list[Truth]:
        # the token that was written last was fed to no run
        inputs = given(output["sequences"][:, :-1])
        if architecture.steps_agree:
            return forward(architecture, implementation, given=inputs).truths(None)
        calls = witness.capture(model, lambda: run(None), kinds=architecture.kinds)
        return of_forward(architecture, inputs, by_place(calls))

    return Case(model, run, truths, {"rows": "all"})


def prompt_tuning(architecture: Architecture, implementation: str) -> Case | None:
    """Virtual tokens before the prompt, and so before its padding."""
    if not _is_decoder(architecture):
        return None
    peft = importlib.import_module("peft")
    base = architecture.build(implementation)
    if cache_name(base) == "cache" and '"cache"' not in inspect.getsource(peft.PeftModelForCausalLM):
        raise RuntimeError("this version of peft does not find the cache, and feeds its virtual tokens in every step")
    torch.manual_seed(1)
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=VIRTUAL)
    model = peft.get_peft_model(base, config).eval().requires_grad_(False)
    prompt = architecture.prompt()
    longer = dataclasses.replace(
        architecture,
        make_inputs=lambda: {
            "input_ids": functional.pad(prompt["input_ids"], (VIRTUAL, 0), value=-1),
            "attention_mask": functional.pad(prompt["attention_mask"], (VIRTUAL, 0), value=1),
        },
    )

    def run(_: Any) -> Any:
        return model.generate(**prompt, **GREEDY)

    def truths(output: Any) -> list[Truth]:
        sequences = functional.pad(output.sequences, (VIRTUAL, 0), value=-1)
        calls = witness.capture(base, lambda: run(None), kinds=architecture.kinds)
        found = of_written(longer, sequences, written.from_run(longer, calls, sequences))
        if cache_name(base) in written.arguments(base):
            return found
        # what was written is fed as embeddings alone, again in each step, and nothing says which ids they are
        return [
            dataclasses.replace(
                truth,
                **{
                    name: {kind: [None] * len(ids) for kind, ids in getattr(truth, name).items()}
                    for name in ("queries", "keys", "written")
                },
            )
            for truth in found
        ]

    return Case(model, run, truths)


def lora(architecture: Architecture, implementation: str) -> Case | None:
    """A wrapper whose own `generate` is called and which is watched."""
    if not architecture.generates:
        return None
    peft = importlib.import_module("peft")

    def adapted(name: str) -> Any:
        torch.manual_seed(1)
        config = peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
        return peft.get_peft_model(architecture.build(name), config).eval().requires_grad_(False)

    model, twin = adapted(implementation), adapted(eager_for(architecture, implementation)).get_base_model()
    prompt, how = architecture.prompt(), greedy(architecture)

    def truths(output: Any) -> list[Truth]:
        if architecture.steps_agree:
            rows = written.teacher_forced(architecture, output.sequences, model=twin)
        else:
            base = model.get_base_model()
            calls = witness.capture(base, lambda: model.generate(**prompt, **how), kinds=architecture.kinds)
            rows = written.from_run(architecture, calls, output.sequences)
        return of_written(architecture, output.sequences, rows)

    return Case(model, lambda _: model.generate(**prompt, **how), truths)


def offloaded_weights(architecture: Architecture, implementation: str) -> Case | None:
    """Parameters that are on the meta device between the calls of their modules."""
    accelerate = importlib.import_module("accelerate")
    model = accelerate.cpu_offload(architecture.build(implementation), execution_device=torch.device("cpu"))
    settings = {"rows": "generated", "statistics": ("received", "output_norm")}
    # the dtype is asked of a parameter, which the meta device has too
    return generating(architecture, implementation, model=model, settings=settings)


def half(architecture: Architecture, implementation: str) -> Case | None:
    model = architecture.build(implementation, dtype=torch.float16)
    case = generating(architecture, implementation, model=model, captured=True)
    return case and dataclasses.replace(case, tolerance=_rounding(implementation, torch.float16))


def autocast(architecture: Architecture, implementation: str) -> Case | None:
    """Mixed precision: the kernel gets bfloat16 queries and keys."""
    case = generating(
        architecture, implementation, captured=True, around=lambda: torch.autocast("cpu", dtype=torch.bfloat16)
    )
    return case and dataclasses.replace(case, tolerance=_rounding(implementation, torch.bfloat16))


def _rounding(implementation: str, dtype: torch.dtype) -> float:
    """Weights are exact in float32; a model's own softmax may have rounded them to `dtype`: half a step below 1."""
    return ROUNDED + (torch.finfo(dtype).eps / 4 if implementation == "eager" else 0.0)


# forward


def forward(
    architecture: Architecture, implementation: str, *, given: Inputs | None = None, model: Any = None, **settings: Any
) -> Case:
    model = architecture.build(implementation) if model is None else model
    inputs = architecture.inputs() if given is None else given

    def truths(_: Any) -> list[Truth]:
        twin = architecture.build(eager_for(architecture, implementation))
        calls = witness.capture(twin, lambda: twin(**inputs), kinds=architecture.kinds)
        return of_forward(architecture, inputs, by_place(calls))

    return Case(model, lambda _: model(**inputs), truths, {"rows": "all"} | settings)


def own_mask(architecture: Architecture, implementation: str) -> Case | None:
    """A mask [batch, 1, query, key] of the user's own, which hides the first three tokens from all later ones."""
    if set(architecture.kinds) != {"decoder"}:
        return None
    ids = architecture.inputs()["input_ids"][:1]
    count = ids.shape[1]
    seen = torch.ones(count, count, dtype=torch.bool).tril()
    seen[3:, :3] = False
    mask = torch.zeros(count, count).masked_fill(~seen, torch.finfo(torch.float32).min)
    given = {"input_ids": ids, "attention_mask": mask[None, None], "position_ids": torch.arange(count)[None]}
    return forward(architecture, implementation, given=given)


def masked_step(architecture: Architecture, implementation: str) -> Case | None:
    """A step on a cache whose own mask hides the first three keys."""
    case = own_mask(architecture, implementation)
    if case is None:
        return None
    model, ids = case.watched, architecture.inputs()["input_ids"][:1]
    count = ids.shape[1]
    positions, hidden = torch.arange(count)[None], torch.zeros(1, 1, 1, count)
    hidden[..., :3] = torch.finfo(torch.float32).min

    def run(_: Any) -> Any:
        cache, first = new_cache(model), {"input_ids": ids[:, :-1], "position_ids": positions[:, :-1]}
        output = model(**first, **{cache_name(model): cache}, use_cache=True)
        cache = cache_of(output) if cache is None else cache
        step = {"input_ids": ids[:, -1:], "attention_mask": hidden, "position_ids": positions[:, -1:]}
        return model(**step, **{cache_name(model): cache})

    seen = torch.ones(count, count, dtype=torch.bool).tril()
    seen[-1, :3] = False
    mask = torch.zeros(count, count).masked_fill(~seen, torch.finfo(torch.float32).min)[None, None]
    given = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    whole = forward(architecture, implementation, given=given)
    # what does not run with such a mask has no witness
    whole.run(None)
    # a state space rounds otherwise step by step
    tolerance = case.tolerance if architecture.steps_agree else 1e-3
    return dataclasses.replace(case, run=run, truths=whole.truths, tolerance=tolerance)


def packed(architecture: Architecture, implementation: str) -> Case | None:
    """Two texts in one row, told apart by their position ids alone."""
    if set(architecture.kinds) != {"decoder"}:
        return None
    ids = architecture.inputs()["input_ids"][:1]
    positions = torch.cat([torch.arange(5), torch.arange(ids.shape[1] - 5)])[None]
    return forward(architecture, implementation, given={"input_ids": ids, "position_ids": positions})


def training(architecture: Architecture, implementation: str, *, checkpointing: bool = False) -> Case | None:
    """A step of training with dropout off; its output are loss and gradients."""
    model = _without_dropout(architecture.build(implementation)).requires_grad_(True)
    if checkpointing:
        model.gradient_checkpointing_enable()
    inputs = architecture.inputs()

    def run(_: Any) -> Any:
        with torch.enable_grad():
            outputs = [x for x in tensors(model(**inputs)) if x.requires_grad]
            loss = sum(x.square().mean() for x in outputs)
            loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        model.zero_grad(set_to_none=True)
        return [loss.detach(), *gradients]

    def truths(_: Any) -> list[Truth]:
        twin = _without_dropout(architecture.build(eager_for(architecture, implementation)))
        # a router may draw
        torch.manual_seed(0)
        calls = witness.capture(twin, lambda: twin(**inputs), kinds=architecture.kinds)
        return of_forward(architecture, inputs, by_place(calls))

    return dataclasses.replace(forward(architecture, implementation, model=model), run=run, truths=truths)


def _without_dropout(model: Any) -> Any:
    """In training, with dropout and other noise off."""
    modules = list(model.train().modules())
    for owner in (*modules, *(module.config for module in modules if hasattr(module, "config"))):
        for name, value in list(vars(owner).items()):
            if isinstance(value, float) and (re.search("drop|jitter", name) or isinstance(owner, nn.Dropout)):
                setattr(owner, name, 0.0)
            elif name == "pos_embed_rescale":
                setattr(owner, name, None)
    return model


def threads(architecture: Architecture, implementation: str) -> Case | None:
    """Each sequence in a thread of its own, which reads it."""
    inputs = architecture.inputs()
    model = architecture.build(implementation)
    watches: list[Any] = [None]
    readings: dict[int, Any] = {}

    def run(_: Any) -> Any:
        outputs: dict[int, Any] = {}
        both = threading.Barrier(2)

        def one(item: int) -> None:
            both.wait()
            with torch.no_grad():
                outputs[item] = model(**picked(inputs, [item]))
            both.wait()
            if watches[0] is not None:
                readings[item] = watches[0].reading(0)

        workers = [threading.Thread(target=one, args=(item,)) for item in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return [list(tensors(outputs[item])) for item in range(2)]

    def truths(_: Any) -> list[Truth]:
        each = (forward(architecture, implementation, given=picked(inputs, [item])) for item in range(2))
        return [case.truths(None)[0] for case in each]

    return Case(
        model,
        run,
        truths,
        {"rows": "all"},
        readings=lambda: [readings[item] for item in sorted(readings)],
        enter=lambda watch: watches.__setitem__(0, watch),
    )


def chunked(architecture: Architecture, implementation: str) -> Case | None:
    if not _is_decoder(architecture) and "vision" not in architecture.kinds:
        # a translator's prompt is one token
        return None
    if "vision" in architecture.kinds and not _pictures_go_with_parts(architecture, implementation):
        return None
    count = written.prompt_length(architecture)
    own = {"captured": bool(architecture.unread), "before": (count - 1) // CHUNK}
    return generating(architecture, implementation, **own, prefill_chunk_size=CHUNK)


def _pictures_go_with_parts(architecture: Architecture, implementation: str) -> bool:
    """Whether a prompt in parts is the same run: transformers 5.5 leaves its picture out without a word."""
    model, prompt = architecture.build(implementation), architecture.prompt()
    settings = GREEDY | {"output_logits": True}
    whole = model.generate(**prompt, **settings).logits[0]
    try:
        parts = model.generate(**prompt, **settings, prefill_chunk_size=CHUNK).logits[0]
    except FAILURES:
        # the case itself says why
        return True
    return torch.allclose(whole, parts, atol=1e-3)


def _generating(**how: Any) -> Scenario:
    captured = how.pop("captured", False)
    return lambda architecture, implementation: generating(architecture, implementation, captured=captured, **how)


SCENARIOS: dict[str, Scenario] = {
    "sampling": _generating(do_sample=True, num_return_sequences=2),
    "beams": _generating(num_beams=3, num_return_sequences=2),
    "assisted": assisted,
    "prompt lookup": prompt_lookup,
    # some models look at the room behind what a static cache holds, and so write something else
    "static cache": _generating(cache_implementation="static", captured=True),
    "quantised cache": _generating(cache_implementation="quantized", cache_config={"backend": "fp8"}, captured=True),
    "offloaded cache": _generating(cache_implementation="offloaded"),
    "chunked prefill": chunked,
    # where steps differ from one forward, the two runs of each step are not told apart from outside
    "guidance": lambda a, i: generating(a, i, guidance_scale=1.5) if a.steps_agree else None,
    "guidance in one batch": guided_by_hand,
    "turns": turns,
    "filled cache": lambda a, i: turns(a, i, before=True),
    "inputs_embeds": inputs_embeds,
    "own mask": own_mask,
    "masked step": masked_step,
    "packed": packed,
    "prompt tuning": prompt_tuning,
    "LoRA": lora,
    "offloaded weights": offloaded_weights,
    "autocast": autocast,
    "half": half,
    "threads": threads,
    "training": training,
    "checkpointing": lambda a, i: training(a, i, checkpointing=True),
    "pictures": lambda a, i: generating(a, i) if "pixel_values" in a.prompt() else None,
}
