// The viewer's words in English and Chinese. A value is text, or a function that makes it.

const percent = (value) => format(value);

export const WORDS = {
  en: {
    language: "Language",
    theme: "Theme",
    auto: "auto",
    light: "light",
    dark: "dark",
    kind: { decoder: "within the text", encoder: "within the source", cross: "output on source", vision: "image" },
    kindOfTarget: "within the output",
    kindLabel: "Attention",
    prompt: "Prompt",
    answer: "Answer",
    text: "Text",
    source: "Source",
    target: "Translation",
    grainLabel: "Grain",
    grain: { token: "tokens", word: "words", sentence: "sentences", paragraph: "paragraphs" },
    measureLabel: "Measure",
    weights: "weights",
    reduceLabel: "Heads as",
    reduce: { mean: "mean", max: "largest" },
    apart: "first token apart",
    folded: "template folded",
    template: "template",
    roles: { system: "system", user: "user", assistant: "assistant", tool: "tool" },
    wholeAnswer: (count) => `The whole answer, ${count} tokens`,
    wholeText: (count) => `All ${count} rows`,
    lookedAt: (name) => `What “${name}” looked at`,
    lookedAtWhole: "What it looked at",
    onlyTop: "Only the strongest keys of each head are known here.",
    usedBy: (name) => `Who looked at “${name}”`,
    allHeads: (layers, heads) => `mean of ${layers} layers, ${heads} heads`,
    largestOf: (heads) => `largest single weight of ${heads} heads`,
    meanOf: (heads) => `mean of ${heads} heads`,
    oneHead: (layer, head) => `layer ${layer}, head ${head}`,
    first: (name) => `first token “${name}”`,
    outside: "outside the text",
    input: "the rest of the text",
    strongest: "Strongest",
    heads: "Layers and heads",
    headsHint: "Click chooses, shift-click adds.",
    layer: "layer",
    head: "head",
    reset: "all heads",
    // of heads alone; statistics bring their own labels
    statistic: { strongest: "strongest weight", concentration: "received by one token", span: "on the selection" },
    withUnit: (label, unit) => `${label}, ${unit}`,
    statisticLabel: "Shown",
    heatmap: "Heatmap",
    lines: "Lines",
    rowsByKeys: "rows down, what they looked at across",
    zoomIn: "zoom in",
    zoomOut: "zoom out",
    zoomAll: "show all",
    numbers: "Numbers",
    position: "position",
    token: "token",
    weight: "weight",
    share: "share",
    numbersCaption: (name, scope) => `What ${name} looked at, ${scope}`,
    exactly: "exact to float32",
    rounded: (value) => `rounded to within ${percent(value)} of each value`,
    step: "Step through",
    back: "one token back",
    forward: "one token on",
    start: "to the start",
    play: "play",
    pause: "pause",
    keys: "← → step · Enter pins · Esc lets go · / finds · drag over text to see who looked at it",
    find: "Find in the text",
    found: (place, count) => `${place} of ${count}`,
    notFound: "not found",
    findBack: "previous place",
    findOn: "next place",
    findClose: "close",
    weightScale: "share of weight",
    largestScale: "largest weight",
    effect: "Does it matter?",
    effectIs: (value) =>
      `${value >= 0 ? "+" : "−"}${Math.abs(value).toFixed(2)} log-probability of the token when this is hidden`,
    sources: "Sources",
    sourcesHint: "Which passages does this answer rest on?",
    seeking: "Removing passages, to see what the answer is without them…",
    waiting: (count) => `Waiting for ${count} other ${count === 1 ? "answer" : "answers"}…`,
    verdict: (on, either, hasQuestion) => {
      if (!on.length) return `This answer rests on no passage: on ${hasQuestion ? "the question, or on " : ""}what the model knows`;
      const last = on[on.length - 1];
      return `This answer rests on ${on.length > 1 ? `${on.slice(0, -1).join(", ")} ${either ? "or" : "and"} ${last}` : last}`;
    },
    withoutIs: (name, times) => `without ${name} it is ${times} times less likely`,
    eitherIs: (times) => `either is enough; without all that were tried it is ${times} times less likely`,
    semicolon: "; ",
    others: (count) => `the other ${count}`,
    lossNote: "How much less likely the answer is without the passage, in nats; ≈ is an estimate.",
    copied: (why) => `Estimates are from heads that copy: ${why}`,
    loading: (done, all) => `layer ${done} of ${all}`,
    about: "Attention is not explanation:",
    aboutMore: "what these numbers say, and what proves them",
    explained:
      "A weight says where a head looked, not what it took from there, nor what would have been without it. " +
      "Values may be small where weights are large: the first token of a text often draws most of the weight and " +
      "gives next to nothing. Layers work one after another, so that what is found at a position has itself been " +
      "gathered from others.",
    checked: (rows, error) =>
      `${rows} rows were computed again: they sum to 1 and give the model’s own context, off by at most ${error}.`,
    unchecked: "No layer of this reading was checked.",
    precision: (relative, exact) =>
      `Means over all heads, statistics and checks are float32 as read. Weights of single heads are rounded to within ` +
      `${percent(relative)} of each value${exact ? ", and exact where one head and one token are chosen" : ""}.`,
    refused: (kind, layers, why) => `Refused: ${kind} ${layers}: ${why}`,
    nothing: "No attention was read.",
    failed: (why) => `This could not be had: ${why}`,
    minimap: "Where in the text the weight is; click to go there",
    none: "none",
    readout: (row, key, value) => `“${row}” on “${key}”: ${value}`,
    onward: "next",
    // of the ladder
    ladder: "From one hidden state to attention",
    ladderIntro:
      "Three translators of one size, trained for the same time on the same sentences. The RNN must carry the whole " +
      "source in one hidden state; with attention it looks back at every source word; the Transformer is attention alone.",
    curve: "Quality by length of the source",
    curveNote: (count) => `Exact match on ${count} sentences that no model saw; bands are 95 % intervals.`,
    words: "source words",
    exactMatch: "exact match",
    oneSentence: "One sentence, three models",
    reference: "Reference",
    noWeights: "No attention: all of the source is one vector.",
    languageModel: "What a language model looks at",
    parameters: (count) => `${count} parameters`,
  },
  zh: {
    language: "语言",
    theme: "主题",
    auto: "自动",
    light: "浅色",
    dark: "深色",
    kind: { decoder: "文本内部", encoder: "源文内部", cross: "译文看源文", vision: "图像" },
    kindOfTarget: "译文内部",
    kindLabel: "注意力",
    prompt: "提示",
    answer: "回答",
    text: "文本",
    source: "源文",
    target: "译文",
    grainLabel: "粒度",
    grain: { token: "词元", word: "词", sentence: "句", paragraph: "段" },
    measureLabel: "度量",
    weights: "权重",
    reduceLabel: "头的合并",
    reduce: { mean: "平均", max: "最大" },
    apart: "首词元另计",
    folded: "折叠模板",
    template: "模板",
    roles: { system: "系统", user: "用户", assistant: "助手", tool: "工具" },
    wholeAnswer: (count) => `整个回答，${count} 个词元`,
    wholeText: (count) => `全部 ${count} 行`,
    lookedAt: (name) => `“${name}”看了哪里`,
    lookedAtWhole: "看了哪里",
    onlyTop: "此处只知道每个头最强的几个词元。",
    usedBy: (name) => `谁看了“${name}”`,
    allHeads: (layers, heads) => `${layers} 层 ${heads} 个头的平均`,
    largestOf: (heads) => `${heads} 个头中最大的单个权重`,
    meanOf: (heads) => `${heads} 个头的平均`,
    oneHead: (layer, head) => `第 ${layer} 层，第 ${head} 头`,
    first: (name) => `首词元“${name}”`,
    outside: "文本之外",
    input: "文本其余部分",
    strongest: "最强",
    heads: "层与头",
    headsHint: "点击选择，Shift 加点击可多选。",
    layer: "层",
    head: "头",
    reset: "全部头",
    statistic: { strongest: "最强权重", concentration: "单个词元所得", span: "所选部分" },
    withUnit: (label, unit) => `${label}（${{ nats: "纳特", tokens: "词元" }[unit] ?? unit}）`,
    statisticLabel: "显示",
    heatmap: "热图",
    lines: "连线",
    rowsByKeys: "纵为行，横为所看的词元",
    zoomIn: "放大",
    zoomOut: "缩小",
    zoomAll: "显示全部",
    numbers: "数值",
    position: "位置",
    token: "词元",
    weight: "权重",
    share: "占比",
    numbersCaption: (name, scope) => `${name}看了哪里，${scope}`,
    exactly: "精确到 float32",
    rounded: (value) => `每个值的舍入误差不超过 ${percent(value)}`,
    step: "逐步查看",
    back: "后退一个词元",
    forward: "前进一个词元",
    start: "回到开头",
    play: "播放",
    pause: "暂停",
    keys: "← → 逐步 · Enter 固定 · Esc 取消 · / 查找 · 拖选文字可看谁看了它",
    find: "在文本中查找",
    found: (place, count) => `第 ${place} 处，共 ${count} 处`,
    notFound: "没有找到",
    findBack: "上一处",
    findOn: "下一处",
    findClose: "关闭",
    weightScale: "权重占比",
    largestScale: "最大权重",
    effect: "有影响吗？",
    effectIs: (value) => `隐藏它后，该词元的对数概率变化 ${value >= 0 ? "+" : "−"}${Math.abs(value).toFixed(2)}`,
    sources: "依据",
    sourcesHint: "这个回答依据哪几段？",
    seeking: "正在逐段移除，看回答有何变化…",
    waiting: (count) => `前面还有 ${count} 个回答…`,
    verdict: (on, either, hasQuestion) => {
      if (!on.length) return `这个回答不依据任何一段，而是出自${hasQuestion ? "问题本身或" : ""}模型所知`;
      const last = on[on.length - 1];
      return `这个回答依据${on.length > 1 ? `${on.slice(0, -1).join("、")}${either ? "或" : "和"}${last}` : last}`;
    },
    withoutIs: (name, times) => `没有${name}，它的可能性只有 1/${times}`,
    eitherIs: (times) => `有其一即可；移除所有试过的段落，它的可能性只有 1/${times}`,
    semicolon: "；",
    others: (count) => `其余 ${count} 段`,
    lossNote: "没有该段时回答的可能性降低多少，单位为纳特；≈ 为估计值。",
    copied: (why) => `估计值来自复制的头：${why}`,
    loading: (done, all) => `第 ${done} 层，共 ${all} 层`,
    about: "注意力不是解释：",
    aboutMore: "这些数字说明什么，由什么证明",
    explained:
      "权重说明一个头看了哪里，而不是它取走了什么，也不是没有它会怎样。权重大处，值可能很小：文本的首词元常得到大部分权重，" +
      "却几乎不贡献内容。各层依次工作，因此在一个位置找到的内容本身也来自其他位置。",
    checked: (rows, error) => `重新计算了 ${rows} 行：各行之和为 1，并得出模型自己的上下文，误差最多 ${error}。`,
    unchecked: "此读数没有经过检验的层。",
    precision: (relative, exact) =>
      `全部头的平均、统计量与检验按所读的 float32 给出。单个头的权重舍入误差不超过 ${percent(relative)}` +
      `${exact ? "；选定一个头和一个词元时为精确值" : ""}。`,
    refused: (kind, layers, why) => `拒绝：${kind} ${layers}：${why}`,
    nothing: "没有读到注意力。",
    failed: (why) => `无法取得：${why}`,
    minimap: "权重在文本中的位置；点击可跳转",
    none: "无",
    readout: (row, key, value) => `“${row}”对“${key}”：${value}`,
    onward: "下一个",
    ladder: "从一个隐藏状态到注意力",
    ladderIntro:
      "三个大小相同的翻译模型，在同样的句子上训练同样长的时间。RNN 只能把整个源文装进一个隐藏状态；有了注意力，它可以回看每个源词；" +
      "Transformer 只有注意力。",
    curve: "质量随源文长度的变化",
    curveNote: (count) => `在 ${count} 个未见过的句子上的完全匹配率；色带为 95 % 区间。`,
    words: "源文词数",
    exactMatch: "完全匹配",
    oneSentence: "一个句子，三个模型",
    reference: "参考译文",
    noWeights: "没有注意力：整个源文是一个向量。",
    languageModel: "语言模型看哪里",
    parameters: (count) => `${count} 个参数`,
  },
};

export const NAMES = { en: "English", zh: "中文" };

// the language asked for, or else the browser's
export function chosen(wanted) {
  for (const name of [wanted, ...(navigator.languages ?? [navigator.language])]) {
    const base = name?.toLowerCase().split("-")[0];
    if (base in WORDS) return base;
  }
  return "en";
}

// a share as text: three figures at most, and never 0 for what is not
export function format(value) {
  if (Number.isNaN(value)) return "–";
  const percents = value * 100;
  if (percents > 0 && percents < 0.005) return "< 0.01 %";
  return `${percents.toFixed(percents >= 1 || percents === 0 ? 1 : 2)} %`;
}

export function number(value) {
  if (value === null || Number.isNaN(value)) return "–";
  return Math.abs(value) >= 100 ? value.toFixed(0) : Math.abs(value) >= 1 ? value.toFixed(2) : value.toFixed(3);
}
