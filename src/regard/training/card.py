"""The model card: what a run is, for whoever finds the folder (Mitchell et al. 2019)."""

from typing import Any

from regard.training.recipe import Recipe

TRANSLATOR_USE = ("regard translate RUN FILE", "regard read RUN --source TEXT")
LANGUAGE_MODEL_USE = ("regard generate RUN PROMPT", "regard read RUN --prompt TEXT")


def model_card(recipe: Recipe, facts: dict[str, Any]) -> str:
    """Markdown, with the figures of this training."""
    budget = f"{facts['steps']} steps, {facts['epochs']:.1f} epochs, {facts['seconds'] / 60:.1f} minutes"
    again = []
    # elsewhere its learning rate, or the order of its sums, was not that of a run as long as this
    if facts["status"] == "finished" and facts["repeats"]:
        changes = f"--set train.steps={facts['steps']} --set train.threads={facts['threads']}"
        again = [f"- again, weight for weight on this machine: `{changes}`"]
    return "\n".join(
        [
            f"# {recipe.name}",
            "",
            f"{facts['parameters']:,} parameters, {_origin(facts)} on {facts['corpus']} with Regard.",
            "",
            "## Data",
            _size(facts),
            *rights(facts),
            "",
            "## Training",
            f"- {facts['status']} after {budget}",
            f"- {facts['tokens_per_second']:,.0f} tokens/s, {facts['device']}, {facts['threads']} threads, "
            f"torch {facts['torch']}",
            f"- loss on dev {facts['dev_loss']:.4f} nats a token{bits_told(facts)}{_before(facts)}",
            *again,
            "",
            "## Use",
            "```sh",
            *(TRANSLATOR_USE if recipe.translates else LANGUAGE_MODEL_USE),
            "regard evaluate RUN --split test",
            "```",
            "",
            _expected(facts),
            "",
            "## Recipe",
            "```toml",
            recipe.to_toml().rstrip(),
            "```",
            "",
        ]
    )


def _origin(facts: dict[str, Any]) -> str:
    if facts.get("init") is None:
        return "trained from scratch"
    adapted, all_of_it = facts.get("trained_parameters"), facts["parameters"]
    how = "trained further" if adapted in (None, all_of_it) else f"adapted by LoRA, {adapted:,} of them,"
    return f"begun from {facts['init']} and {how}"


def _before(facts: dict[str, Any]) -> str:
    return "" if facts.get("init") is None else f"; {facts['init_dev_loss']:.4f} before the first step"


def _expected(facts: dict[str, Any]) -> str:
    if facts.get("init") is None:
        return "It was trained on this text alone: expect nothing of it on other text."
    return f"The licence and the limits of {facts['init']} hold for this model too."


def bits_told(facts: dict[str, Any]) -> str:
    """What a language model's loss is in bits per byte, to be put behind it; nothing of a translator."""
    bits = facts.get("dev_bits_per_byte")
    return "" if bits is None else f", {bits:.3f} bits per byte"


def _size(facts: dict[str, Any]) -> str:
    if "pairs" in facts:
        return f"- {facts['pairs']:,} sentence pairs, {facts['pairs_skipped']:,} skipped as too long"
    if "conversations" in facts:
        size = f"{facts['conversations']:,} conversations, {facts['conversations_skipped']:,} skipped as too long"
        return f"- {size}; {facts['bytes']:,} bytes of answers, which alone are learned"
    return f"- {facts['documents']:,} documents, {facts['bytes']:,} bytes, {facts['tokens']:,} tokens"


def rights(facts: dict[str, Any]) -> list[str]:
    """What is to be said of the text that a run was trained on, a Markdown item each."""
    told = (("licence", "licence"), ("source", "attribution"))
    return [f"- {name}: {facts[key]}" for name, key in told if facts.get(key)]
