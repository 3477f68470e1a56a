// Rungs 1 and 2: an RNN encoder–decoder, without attention or with Bahdanau's.
//
// Cho et al. 2014; Bahdanau, Cho and Bengio 2015, appendix A. The same computation as models/rnn.py and bahdanau.py.

import { dot, join, linear, mix, plus, sigmoid, softmax, tanh } from "./numerics.js";
import { row, under } from "./weights.js";

/** A gated recurrent unit: its new state after an input. Rows of its weights are the gates reset, update and new. */
class GRU {
  constructor(tensors, prefix) {
    const found = under(tensors, prefix);
    [this.input, this.inputBias] = [found.weight_ih_l0, found.bias_ih_l0];
    [this.recurrent, this.recurrentBias] = [found.weight_hh_l0, found.bias_hh_l0];
    this.size = this.recurrent.columns;
  }

  step(x, state) {
    const { size } = this;
    const ours = linear(this.input, x, this.inputBias, 3 * size);
    const past = linear(this.recurrent, state, this.recurrentBias, 3 * size);
    const after = new Float32Array(size);
    for (let dim = 0; dim < size; dim++) {
      const reset = sigmoid(ours[dim] + past[dim]);
      const update = sigmoid(ours[size + dim] + past[size + dim]);
      const fresh = Math.tanh(ours[2 * size + dim] + reset * past[2 * size + dim]);
      after[dim] = fresh + update * (state[dim] - fresh);
    }
    return after;
  }

  /** The states after each input. */
  run(inputs) {
    let state = new Float32Array(this.size);
    return inputs.map((x) => (state = this.step(x, state)));
  }
}

export class RNNTranslator {
  constructor(tensors, config, tokenizer) {
    Object.assign(this, { tensors, config, tokenizer });
    this.embedding = tensors["source_embedding.weight"];
    this.forwards = new GRU(tensors, "encoder.forwards");
    this.backwards = new GRU(tensors, "encoder.backwards");
    this.rnn = new GRU(tensors, "decoder.rnn");
    this.readout = under(tensors, "decoder.readout");
    this.looks = config.attention !== "none";
  }

  embed(id) {
    return row(this.embedding, id).map((value) => value * Math.sqrt(this.embedding.columns));
  }

  begin(source) {
    const embedded = source.map((id) => this.embed(id));
    const forwards = this.forwards.run(embedded);
    const backwards = this.backwards.run(embedded.toReversed()).reverse();
    const states = forwards.map((state, place) => join(state, backwards[place]));
    const last = join(forwards.at(-1), backwards[0]);
    const bridge = under(this.tensors, "encoder.bridge");
    const state = tanh(linear(bridge.weight, last, bridge.bias, bridge.weight.rows));
    return new Decoder(this, { states, last, forwards, state });
  }
}

class Decoder {
  constructor(model, { states, last, forwards, state }) {
    Object.assign(this, { model, states, last, forwards, state });
    if (!model.looks) return;
    this.key = model.tensors["decoder.attention.key_proj.weight"];
    this.query = model.tensors["decoder.attention.query_proj.weight"];
    this.score = row(model.tensors["decoder.attention.score_proj.weight"], 0);
    this.prepared = states.map((each) => linear(this.key, each, null, this.key.rows));
  }

  step(token, change) {
    const { model, state } = this;
    const embedded = model.embed(token);
    const look = model.looks ? this.look(state, change) : { context: this.last };
    this.state = model.rnn.step(join(embedded, look.context), state);
    const { readout } = model;
    const features = tanh(linear(readout.weight, join(this.state, embedded, look.context), readout.bias, readout.weight.rows));
    return { ...look, state: this.state, logits: linear(model.embedding, features, null, model.embedding.rows) };
  }

  /** score = v · tanh(W query + U key), softmax, and the sum of the states, each times its weight. */
  look(state, change) {
    const query = linear(this.query, state, null, this.query.rows);
    const scores = new Float32Array(this.prepared.length);
    for (let place = 0; place < scores.length; place++) scores[place] = dot(this.score, tanh(plus(query, this.prepared[place])));
    const own = softmax(scores);
    const weights = change ? change(own) : own;
    return { query, scores, own, weights, context: mix(weights, this.states) };
  }
}
