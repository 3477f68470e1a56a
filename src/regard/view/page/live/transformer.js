// Rung 3: the Transformer, pre-norm. The same computation as models/transformer.py.
//
// Vaswani et al. 2017, "Attention is all you need"; Xiong et al. 2020.

import { dot, layerNorm, linear, mix, plus, relu, softmax } from "./numerics.js";
import { row, under } from "./weights.js";

/** Several heads side by side; rows of `in_proj` are query, key and value, one under the other. */
export class MultiHead {
  constructor(tensors, prefix, heads) {
    const found = under(tensors, prefix);
    Object.assign(this, { weight: found["in_proj.weight"], bias: found["in_proj.bias"] });
    Object.assign(this, { out: found["out_proj.weight"], outBias: found["out_proj.bias"], dim: this.weight.columns });
    Object.assign(this, { heads, size: this.dim / heads });
  }

  /** Query, key or value of x, by its place 0, 1 or 2: all heads, one after the other. */
  project(x, place) {
    return linear(this.weight, x, this.bias, this.dim, place * this.dim);
  }

  /** What x offers to those who look at it, added to `memory`. */
  remember(x, memory = { keys: [], values: [] }) {
    memory.keys.push(this.project(x, 1));
    memory.values.push(this.project(x, 2));
    return memory;
  }

  /** One head's part of a vector. */
  part(vector, head) {
    return vector.subarray(head * this.size, (head + 1) * this.size);
  }

  attend(query, { keys, values }) {
    const context = new Float32Array(this.dim);
    const heads = Array.from({ length: this.heads }, (_, head) => {
      const [asked, from] = [this.part(query, head), head * this.size];
      const products = new Float32Array(keys.length);
      for (let place = 0; place < keys.length; place++) products[place] = dot(asked, keys[place], from);
      const scores = products.map((product) => product / Math.sqrt(this.size));
      const weights = softmax(scores);
      const own = mix(weights, values, this.size, from);
      context.set(own, from);
      return { query: asked, products, scores, weights, context: own };
    });
    return { heads, output: linear(this.out, context, this.outBias, this.dim) };
  }
}

export class Transformer {
  constructor(tensors, config, tokenizer) {
    Object.assign(this, { tensors, config, tokenizer });
    this.embedding = tensors["source_embedding.weight"];
    const layers = (name, parts) =>
      Array.from({ length: config.num_layers }, (_, layer) => this.layer(`${name}_layers.${layer}`, parts));
    this.encoder = layers("encoder", ["attention"]);
    this.decoder = layers("decoder", ["self_attention", "cross_attention"]);
    [this.encoderNorm, this.decoderNorm] = ["encoder_norm", "decoder_norm"].map((name) => under(tensors, name));
  }

  layer(prefix, attentions) {
    const { tensors, config } = this;
    const norm = (name) => under(tensors, `${prefix}.${name}_sublayer.norm`);
    const [feed, feedNorm] = [under(tensors, `${prefix}.feed_forward`), norm("feed_forward")];
    const layer = { feed: (x) => this.feed(feed, layerNorm(x, feedNorm)) };
    for (const name of attentions) {
      const short = name.replace("_attention", "");
      layer[short] = new MultiHead(tensors, `${prefix}.${name}`, config.num_heads);
      layer[`${short}Norm`] = norm(short);
    }
    return layer;
  }

  feed(weights, x) {
    const inside = relu(linear(weights["0.weight"], x, weights["0.bias"], weights["0.weight"].rows));
    return linear(weights["3.weight"], inside, weights["3.bias"], weights["3.weight"].rows);
  }

  /** The token's vector and the sines and cosines of its position (Vaswani et al. 2017, section 3.5). */
  embed(id, position) {
    const dim = this.embedding.columns;
    return row(this.embedding, id).map((value, place) => {
      const angle = position * 10000 ** (-(place - (place % 2)) / dim);
      return value * Math.sqrt(dim) + (place % 2 ? Math.cos(angle) : Math.sin(angle));
    });
  }

  begin(source) {
    let states = source.map((id, position) => this.embed(id, position));
    for (const layer of this.encoder) {
      const normed = states.map((x) => layerNorm(x, layer.attentionNorm));
      const memory = { keys: [], values: [] };
      for (const x of normed) layer.attention.remember(x, memory);
      states = states.map((x, place) => {
        const looked = plus(x, layer.attention.attend(layer.attention.project(normed[place], 0), memory).output);
        return plus(looked, layer.feed(looked));
      });
    }
    const encoded = states.map((x) => layerNorm(x, this.encoderNorm));
    return new Decoder(this, this.decoder.map((layer) => layer.cross).map((cross) => {
      const memory = { keys: [], values: [] };
      for (const x of encoded) cross.remember(x, memory);
      return memory;
    }));
  }
}

class Decoder {
  constructor(model, memories) {
    Object.assign(this, { model, memories, past: memories.map(() => ({ keys: [], values: [] })), position: 0 });
  }

  /** `cross[layer][head]` is what each head of the cross-attention did. */
  step(token) {
    const { model } = this;
    let x = model.embed(token, this.position++);
    const cross = model.decoder.map((layer, place) => {
      const own = layerNorm(x, layer.selfNorm);
      x = plus(x, layer.self.attend(layer.self.project(own, 0), layer.self.remember(own, this.past[place])).output);
      const look = layer.cross.attend(layer.cross.project(layerNorm(x, layer.crossNorm), 0), this.memories[place]);
      x = plus(x, look.output);
      x = plus(x, layer.feed(x));
      return look.heads;
    });
    const features = layerNorm(x, model.decoderNorm);
    return { cross, logits: linear(model.embedding, features, null, model.embedding.rows) };
  }
}
