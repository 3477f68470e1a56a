// Greedy search: at every step the most likely token, as in generation/search.py.

import { BOS, EOS, PAD } from "./tokenizer.js";
import { largest } from "./numerics.js";

/**
 * A translation and each of its steps: the token, its logits, and whatever else the model notes of a step.
 * `change(step, weights)` may give other attention weights than the model's own.
 */
export function translate(model, text, change) {
  const source = [...model.tokenizer.encode(text), EOS];
  const most = model.config.max_length;
  if (source.length > most) throw new RangeError(`${source.length} tokens, and the model reads at most ${most}`);
  const limit = Math.min(2 * source.length + 20, most - 1);
  const decoder = model.begin(source);
  const [ids, steps] = [[], []];
  let token = BOS;
  while (steps.length < limit) {
    const step = decoder.step(token, change && ((weights) => change(steps.length, weights)));
    step.logits[PAD] = step.logits[BOS] = -Infinity;
    token = step.token = largest(step.logits);
    steps.push(step);
    if (token === EOS) break;
    ids.push(token);
  }
  return { text: model.tokenizer.decode(ids), ids, steps, source, decoder };
}
