// Rung 5: a GPT that writes text, letter by letter. The same computation as models/gpt.py.
//
// Radford et al. 2019, "Language models are unsupervised multitask learners".

import { gelu, layerNorm, linear, plus, softmax } from "./numerics.js";
import { EOS } from "./tokenizer.js";
import { MultiHead } from "./transformer.js";
import { row, under } from "./weights.js";

export class GPT {
  constructor(tensors, config, tokenizer) {
    Object.assign(this, { tensors, config, tokenizer });
    this.embedding = tensors["embedding.weight"];
    this.norm = under(tensors, "norm");
    this.layers = Array.from({ length: config.num_layers }, (_, layer) => ({
      attention: new MultiHead(tensors, `blocks.${layer}.attention`, config.num_heads),
      attentionNorm: under(tensors, `blocks.${layer}.attention_norm`),
      feedNorm: under(tensors, `blocks.${layer}.feed_forward_norm`),
      feed: under(tensors, `blocks.${layer}.feed_forward`),
    }));
  }

  begin() {
    return new Writer(this);
  }
}

/** Takes one token after the other; keys and values of those before are kept. */
export class Writer {
  constructor(model) {
    Object.assign(this, { model, past: model.layers.map(() => ({ keys: [], values: [] })), position: 0 });
  }

  /** Logits of the token after this one, and its attention: `heads[layer][head]` are weights on itself and all before. */
  step(token) {
    const { model } = this;
    let x = plus(row(model.embedding, token), row(model.tensors["positions.weight"], this.position++));
    const heads = model.layers.map((layer, place) => {
      const own = layerNorm(x, layer.attentionNorm);
      const look = layer.attention.attend(layer.attention.project(own, 0), layer.attention.remember(own, this.past[place]));
      x = plus(x, look.output);
      const { "in_proj.weight": wide, "in_proj.bias": wideBias, "out_proj.weight": back, "out_proj.bias": backBias } = layer.feed;
      const inside = gelu(linear(wide, layerNorm(x, layer.feedNorm), wideBias, wide.rows));
      x = plus(x, linear(back, inside, backBias, back.rows));
      return look.heads.map(({ weights }) => weights);
    });
    const features = layerNorm(x, model.norm);
    return { heads, logits: linear(model.embedding, features, null, model.embedding.rows) };
  }

  get isFull() {
    return this.position >= this.model.config.max_length;
  }
}

/** Probabilities of the next token; special tokens are never written. */
export function probabilities(logits, temperature) {
  const scaled = logits.map((logit, id) => (id <= EOS + 1 ? -Infinity : logit / temperature));
  return softmax(scaled);
}

/** The token on which `share`, a number between 0 and 1, falls. */
export function drawn(shares, share) {
  let [sum, last] = [0, 0];
  for (let id = 0; id < shares.length; id++) {
    if (!shares[id]) continue;
    sum += shares[id];
    last = id;
    if (share < sum) break;
  }
  return last;
}
