// Section 3: self-attention in four steps on the reader's own words: the numbers of `regard attention TEXT`.

import { element } from "../dom.js";
import { Matrix, figure } from "./matrix.js";
import { productByHand, softmaxByHand } from "./parts.js";
import { HEAD_DIM, embeddings, fourSteps, tokensOf } from "./four_steps.js";

const dims = (count) => Array.from({ length: count }, (_, dim) => String(dim + 1));

export class SelfSection {
  constructor(app) {
    this.app = app;
    this.root = element("section", { id: "self", "aria-labelledby": "self-title" });
    Object.assign(this, { text: null, row: 1 });
  }

  begin() {
    this.start = JSON.parse(new TextDecoder().decode(this.app.bytes("self-attention")));
    this.read(this.start.tokens.join(" "));
  }

  build() {
    const own = this.app.words.self;
    this.field = element("input", { id: "words", value: this.text ?? "", maxlength: 400, autocomplete: "off" });
    this.field.addEventListener("input", () => this.read(this.field.value));
    const chips = own.examples.map((text) =>
      element("button", { onclick: () => { this.field.value = text; this.read(text); } }, text),
    );
    const textbook = element("button", { onclick: () => { this.field.value = this.start.tokens.join(" "); this.read(this.field.value); } }, own.textbook);
    this.fault = element("p", { class: "fault", role: "alert" });
    this.note = element("p", { class: "note" });
    const follow = (row) => { this.row = row; this.show(); };
    this.matrices = {};
    const matrix = (name, options = {}) => (this.matrices[name] = new Matrix({ follow, ...options })).box;
    const plain = (name) => (this.matrices[name] = new Matrix()).box;
    this.lines = Object.fromEntries(["score", "weight", "context", "query", "scaled", "masked", "joined"].map((name) => [name, element("p", { class: "hand" })]));
    const { lines } = this;
    const edit = (row, column, value) => { this.inputs[row][column] = value; this.show(); };
    const step = (number, ...children) => element("div", { class: "step" }, element("h3", {}, own.steps[number - 1]), element("p", {}, own.ideas[number - 1]), ...children);
    const side = (...boxes) => element("div", { class: "side" }, ...boxes);
    this.root.replaceChildren(
      element("h2", { id: "self-title" }, own.title),
      element("p", { class: "intro" }, own.intro),
      element("div", { class: "ask" }, element("label", { for: "words" }, own.ask), this.field, element("div", { class: "chips" }, textbook, ...chips)),
      this.fault,
      this.note,
      side(matrix("inputs", { edit, follow: null })),
      step(1, side(matrix("scores"), matrix("weights", { shaded: true }), matrix("context")), lines.score, lines.weight, lines.context),
      step(2, side(plain("queryMatrix"), plain("keyMatrix"), plain("valueMatrix")), side(matrix("query"), matrix("key"), matrix("value")), lines.query,
        side(matrix("products"), matrix("scaled"), matrix("trainable", { shaded: true }), matrix("trainableContext")), lines.scaled),
      step(3, side(matrix("masked"), matrix("causal", { shaded: true }), matrix("causalContext")), lines.masked,
        element("p", {}, own.dropout), side(matrix("dropped", { shaded: true }), matrix("trainingContext"))),
      step(4, side(plain("secondMatrix"), matrix("second", { shaded: true })), side(matrix("joined"), plain("out"), matrix("output")), lines.joined),
    );
  }

  read(text) {
    this.text = text;
    const { tokens, isCut } = tokensOf(text);
    this.isTextbook = tokens.join(" ") === this.start.tokens.join(" ");
    this.isCut = isCut;
    this.tokens = tokens;
    this.inputs = this.isTextbook ? this.start.inputs.map((row) => [...row]) : embeddings(tokens);
    this.row = Math.min(this.row, Math.max(0, tokens.length - 1));
    this.show();
  }

  show() {
    if (!this.tokens || !this.matrices) return;
    const { tokens, inputs, row, lines, app } = this;
    const own = app.words.self;
    this.field.value ||= this.text;
    this.fault.textContent = !tokens.length ? own.empty : this.isCut ? own.cut : "";
    this.note.textContent = this.isTextbook ? own.fromTextbook : own.drawn;
    if (!tokens.length) return;
    const other = Math.min(2, tokens.length - 1);
    const { simple, trainable, causal, multi } = fourSteps(inputs, this.start);
    const found = (this.found = { simple, trainable, causal, multi });
    const { palette } = app;
    const put = (name, title, values, columns, more = {}) =>
      this.matrices[name].show(title, values, { rows: tokens, columns, marked: row, palette, ...more });
    const pairs = (name, title, values, more) => put(name, title, values, tokens, more);
    const vectors = (name, title, values, more) => put(name, title, values, dims(values[0].length), more);
    const parameters = (name, title, values) =>
      this.matrices[name].show(title, values, { rows: dims(values.length), columns: dims(values[0].length), palette });
    vectors("inputs", own.inputs, inputs);
    pairs("scores", "scores = inputs · inputsᵀ", simple.scores);
    pairs("weights", "weights = softmax(scores)", simple.weights);
    vectors("context", "context = weights · inputs", simple.context);
    parameters("queryMatrix", "W_query", trainable.matrices[0]);
    parameters("keyMatrix", "W_key", trainable.matrices[1]);
    parameters("valueMatrix", "W_value", trainable.matrices[2]);
    vectors("query", "query = inputs · W_query", trainable.query);
    vectors("key", "key = inputs · W_key", trainable.key);
    vectors("value", "value = inputs · W_value", trainable.value);
    pairs("products", "scores = query · keyᵀ", trainable.scores);
    pairs("scaled", `scaled scores = scores / √${HEAD_DIM}`, trainable.scaled);
    pairs("trainable", "weights = softmax(scaled scores)", trainable.weights);
    vectors("trainableContext", "context = weights · value", trainable.context);
    pairs("masked", own.masked, causal.masked);
    pairs("causal", "weights = softmax(masked scores)", causal.weights);
    vectors("causalContext", "context = weights · value", causal.context);
    pairs("dropped", own.dropped, causal.dropped, { isZero: (query, key) => key <= query && !causal.dropped[query][key] });
    vectors("trainingContext", own.trainingContext, causal.trainingContext);
    this.matrices.secondMatrix.show("W_query │ W_key │ W_value", beside(multi.second.matrices), { rows: dims(3), columns: ["q1", "q2", "k1", "k2", "v1", "v2"], palette, split: HEAD_DIM });
    pairs("second", own.second, multi.second.weights);
    vectors("joined", own.joined, multi.joined, { split: HEAD_DIM });
    parameters("out", "W_out", multi.out);
    vectors("output", "output = joined · W_out", multi.output);

    const name = (kind, one, two) => `${kind}(${tokens[one]}${two === undefined ? "" : `, ${tokens[two]}`})`;
    lines.score.textContent = productByHand(name("score", row, other), inputs[row], inputs[other], simple.scores[row][other]);
    lines.weight.textContent = softmaxByHand(name("weight", row, other), simple.scores[row], simple.weights[row], other);
    lines.context.textContent = productByHand(`${name("context", row)}, ${own.dim} 1`, simple.weights[row], inputs.map(([first]) => first), simple.context[row][0], 6);
    lines.query.textContent = productByHand(`${name("query", row)}, ${own.dim} 1`, inputs[row], trainable.matrices[0].map(([first]) => first), trainable.query[row][0]);
    lines.scaled.textContent = `${productByHand(name("score", row, other), trainable.query[row], trainable.key[other], trainable.scores[row][other])}; ${figure(trainable.scores[row][other])} / √${HEAD_DIM} = ${figure(trainable.scaled[row][other])}`;
    lines.masked.textContent = softmaxByHand(name("weight", row, 0), causal.masked[row].slice(0, row + 1), causal.weights[row], 0);
    lines.joined.textContent = productByHand(`${name("output", row)}, ${own.dim} 1`, multi.joined[row], multi.out.map(([first]) => first), multi.output[row][0], 4);
    return found;
  }
}

const beside = (matrices) => matrices[0].map((_, row) => matrices.flatMap((matrix) => matrix[row]));
