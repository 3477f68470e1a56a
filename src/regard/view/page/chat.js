// The regions of a text: of a chat its messages and the template between them, the answer, and what only ends it.

// `of` says which region a token is in; of a region `roles` has the role that its template opens, "" where it is open,
// and null of what is no template
export function regions(kind, { turns = [], end_tokens: ends = 0 }) {
  const { sequence, size, prompt, within, query } = kind;
  const chat = within && query === "text" ? turns : [];
  const last = size - (within && prompt ? ends : 0);
  const of = new Int32Array(size + 1);
  const roles = [];
  let before = null;
  let next = 0;
  let opened = null;
  // a picture is a turn of its own within a message, whose role is told once
  const opens = () => {
    const message = chat.findIndex(({ role }, turn) => turn >= next && role !== "image");
    const isNew = message !== opened;
    opened = message;
    return isNew ? (chat[message]?.role ?? "assistant") : "";
  };
  for (let token = 0; token <= size; token++) {
    let name = "end";
    if (token < (prompt || size)) {
      const turn = turnOf(chat, sequence, token);
      name = turn ?? "template";
      if (turn !== null) next = turn + 1;
    } else if (token < last || token === size) name = token === size ? "onward" : "answer";
    if (name !== before) roles.push(name === "template" ? opens() : null);
    before = name;
    of[token] = roles.length - 1;
  }
  return { of, roles, last, isChat: chat.length > 0 };
}

// the message that a token has a part of, null of the template's; without messages all is one
function turnOf(turns, sequence, token) {
  if (!turns.length) return 0;
  const [start, end] = [sequence.starts[token], sequence.ends[token]];
  const turn = turns.findLastIndex((each) => each.start <= end - 1);
  return turn >= 0 && start < turns[turn].end ? turn : null;
}
