// Elements made of names, properties and children. Text is only ever text: nothing here parses HTML.

const SVG = "http://www.w3.org/2000/svg";

export function element(name, properties = {}, ...children) {
  return fill(document.createElement(name), properties, children);
}

export function svg(name, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, name), properties, children);
}

function fill(node, properties, children) {
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "class") node.setAttribute("class", value);
    else node.setAttribute(key, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// a canvas as sharp as the screen, at this size in CSS pixels
export function sized(canvas, width, height) {
  const ratio = globalThis.devicePixelRatio || 1;
  const [wide, high] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
  if (canvas.width !== wide || canvas.height !== high) {
    canvas.width = wide;
    canvas.height = high;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

// what is in the keyboard's hands stays there when its box is made anew
export function keepingFocus(box, make) {
  const all = () => [...box.querySelectorAll("button, select, input, summary")];
  const at = box.contains(document.activeElement) ? all().indexOf(document.activeElement) : -1;
  make();
  if (at >= 0) (all()[at] ?? box.closest(".regard-view"))?.focus({ preventScroll: true });
}

export function select(label, options, chosen, choose) {
  const list = element("select", { "aria-label": label, onchange: () => choose(list.value) });
  for (const [value, text] of options) {
    list.append(element("option", { value, selected: value === chosen }, text));
  }
  return list;
}
