// What the page says of why a head looked somewhere, in each language.

const part = (names) => ({ kind, layer, head }) => {
  if (head !== null) return `${names.head} ${layer}.${head}`;
  return layer === null ? names[kind] : `${names[kind]} ${layer}`;
};

export const WHY = {
  en: {
    why: "Why did it look there?",
    whyScope: (row, written, key, head) => `at “${row}”${written && `, writing “${written}”`}: on “${key}”, ${head}`,
    whyAsk: (key) => `Why at “${key}”?`,
    whyHint: "Mark another token of the text to ask about that one.",
    explaining: (done) => ["Running the model…", "Taking layers apart…", "Multiplying queries and keys…"][Math.min(done, 2)],
    whyScore: (score, weight) => `The score is ${score}, the weight ${weight}.`,
    whyAdded: (added) => `Position adds ${added} to the score.`,
    whyCap: (cap) => `The score is capped at ±${cap} afterwards.`,
    whyPairs: "what raised and lowered it: a part of the query × what it met in the key",
    inQuery: (token) => `in the query of “${token}”, all together`,
    inKey: (token) => `in the key of “${token}”, all together`,
    whyNote: "Head 16.0 is head 0 of layer 16; a click shows where it looked from there. What a row gives to all keys alike changes no weight.",
    component: part({
      embedding: "embedding",
      "token embedding": "token embedding",
      "position embedding": "position embedding",
      head: "head",
      attention: "attention",
      "attention bias": "attention bias",
      "feed-forward": "feed-forward",
      block: "layer",
      bias: "bias",
    }),
  },
  zh: {
    why: "为什么看那里？",
    whyScope: (row, written, key, head) => `在“${row}”处${written && `写“${written}”时`}看“${key}”，${head}`,
    whyAsk: (key) => `为什么看“${key}”？`,
    whyHint: "在文本中选中另一个词元，即可问那一个。",
    explaining: (done) => ["正在运行模型…", "正在拆分各层…", "正在将查询与键相乘…"][Math.min(done, 2)],
    whyScore: (score, weight) => `分数为 ${score}，权重为 ${weight}。`,
    whyAdded: (added) => `位置使分数增加 ${added}。`,
    whyCap: (cap) => `此后分数被限制在 ±${cap} 以内。`,
    whyPairs: "使它升高或降低的：查询中的成分 × 它在键中遇到的成分",
    inQuery: (token) => `“${token}”的查询中，合计`,
    inKey: (token) => `“${token}”的键中，合计`,
    whyNote: "“头 16.0”是第 16 层的第 0 头；点击可看它从那里看了哪里。一行给所有键相同的部分不改变权重。",
    component: part({
      embedding: "嵌入",
      "token embedding": "词元嵌入",
      "position embedding": "位置嵌入",
      head: "头",
      attention: "注意力",
      "attention bias": "注意力偏置",
      "feed-forward": "前馈",
      block: "层",
      bias: "偏置",
    }),
  },
};
