// Elements, icons and small helpers. Knows nothing of conversations.

export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "html") element.innerHTML = value; // only HTML that the server rendered
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const PATHS = {
  again: "M20 12a8 8 0 1 1-2.3-5.6M20 3v4h-4",
  back: "M15 5l-7 7 7 7",
  change: "M4 7h10M18 7h2M4 17h2M10 17h10M16 4v6M8 14v6",
  check: "M5 13l4 4L19 7",
  clip: "M20 11.5l-8 8a5 5 0 0 1-7-7l8.5-8.5a3.3 3.3 0 0 1 4.7 4.7L10 17a1.6 1.6 0 0 1-2.3-2.3l7.3-7.3",
  close: "M6 6l12 12M18 6L6 18",
  compare: "M12 4v16M4 7h4v10H4zM16 7h4v10h-4z",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  down: "M12 5v14M6 13l6 6 6-6",
  feedback: "M4 5h16v11h-8l-5 4v-4H4zM9 10.5l2 2 4-4",
  edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  forth: "M9 5l7 7-7 7",
  ghost: "M5 20V11a7 7 0 0 1 14 0v9l-3-2-2 2-2-2-2 2-2-2zM9.5 11v.5M14.5 11v.5",
  menu: "M4 7h16M4 12h16M4 17h16",
  more: "M5 12h.01M12 12h.01M19 12h.01",
  person: "M12 4a4 4 0 1 0 0 8 4 4 0 0 0 0-8M4 21c1-5 4-6 8-6s7 1 8 6",
  pin: "M9 4h6l-1 6 4 4H6l4-4zM12 14v6",
  plus: "M12 5v14M5 12h14",
  search: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14M16 16l4 4",
  send: "M12 20V5M6 11l6-6 6 6",
  sliders: "M4 8h9M17 8h3M4 16h3M11 16h9M15 5.5v5M9 13.5v5",
  stop: "M7 7h10v10H7z",
  tool: "M20 7.5a5 5 0 0 1-6.8 4.7L7 18.4a2 2 0 0 1-2.9-2.9l6.3-6.2A5 5 0 0 1 15.5 3l-2.6 2.6.5 3.5 3.5.5z",
  thumb_down: "M17 14V4H8.5a2 2 0 0 0-2 1.6L5 11.6A2 2 0 0 0 7 14h4l-.8 4.2A1.5 1.5 0 0 0 13 19l4-5h3V4h-3",
  thumb_up: "M7 10v10h8.5a2 2 0 0 0 2-1.6l1.5-6A2 2 0 0 0 17 10h-4l.8-4.2A1.5 1.5 0 0 0 11 5l-4 5H4v10h3",
};

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

// An icon button; its name is the accessible label and the tooltip
export function iconButton(name, label, onclick, props = {}) {
  return h("button", { type: "button", class: "icon", title: label, "aria-label": label, onclick, ...props }, icon(name));
}

// Replace the children of a rendered text from the first one that differs, so that a selection or a
// scrolled block before it is kept
export function morph(element, html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  const fresh = template.content.firstElementChild;
  const old = element.firstElementChild;
  if (!fresh || !old || fresh.className !== old.className) {
    element.replaceChildren(template.content);
    return;
  }
  const now = [...old.childNodes];
  const next = [...fresh.childNodes];
  let same = 0;
  while (same < now.length && same < next.length && now[same].isEqualNode(next[same])) same += 1;
  now.slice(same).forEach((node) => node.remove());
  old.append(...next.slice(same));
}

export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return;
  } catch {
    // There is no clipboard API outside https and localhost; use a text area
  }
  const area = h("textarea", { class: "unseen" });
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

export function stored(key, value) {
  try {
    if (value === undefined) return localStorage.getItem(`burnish.${key}`) ?? "";
    if (value === "") localStorage.removeItem(`burnish.${key}`);
    else localStorage.setItem(`burnish.${key}`, value);
  } catch {
    // The browser may forbid storage; nothing is remembered then
  }
  return value ?? "";
}

export function forgetStored(prefix) {
  try {
    for (const key of Object.keys(localStorage)) if (key.startsWith(`burnish.${prefix}`)) localStorage.removeItem(key);
  } catch {
    // Storage is forbidden: nothing is remembered
  }
}
