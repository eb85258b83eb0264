// The citations of an answer that was made from documents: numbers that open their passage, marks
// behind sentences that no passage supports, and the list of passages under the answer.
import { h } from "./dom.js";
import { dialogue, toast } from "./notices.js";
import { number, t } from "./texts.js";

const UNSUPPORTED = "\ue000"; // the server puts it behind a sentence
// With the space before a citation, so that it stands at its word
const MARKS = /(\s*[[【]\d{1,2}(?:\s*[,，、]\s*\d{1,2})*[\]】]|\ue000)/;
const UNREAD = "pre, code, a, math, button";

// Turn the marks in a rendered answer into elements; returns the numbers that it cites
export function decorate(answer, passages) {
  const cited = new Set();
  for (const node of textsOf(answer)) {
    const parts = node.data.split(MARKS);
    if (parts.length === 1) continue;
    node.replaceWith(...parts.filter(Boolean).flatMap((part) => drawn(part, passages, cited)));
  }
  return cited;
}

// The passages that the model was shown; those that the answer does not cite have a dashed border
export function sources(passages, cited, isDoubted) {
  const source = (passage, at) =>
    h(
      "button",
      { type: "button", class: `chip source${cited.has(at + 1) ? " cited" : ""}`, "data-passage": String(at + 1), onclick: () => show(passage, at + 1) },
      h("b", {}, number(at + 1)), " ", h("span", {}, label(passage)),
    );
  return [
    h("div", { class: "chips", role: "group", "aria-label": t("passages") }, passages.map(source)),
    ...(isDoubted ? [h("p", { class: "small" }, h("span", { class: "doubt", "aria-hidden": "true" }, "?"), " ", t("unsupported"))] : []),
  ];
}

function textsOf(answer) {
  const walker = document.createTreeWalker(answer, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) if (!walker.currentNode.parentElement.closest(UNREAD)) found.push(walker.currentNode);
  return found;
}

function drawn(part, passages, cited) {
  if (part === UNSUPPORTED) {
    return h("button", { type: "button", class: "doubt", title: t("unsupported"), "aria-label": t("unsupported"), onclick: () => toast(t("unsupported")) }, "?");
  }
  if (!MARKS.test(part)) return part;
  const numbers = part.match(/\d+/g).map(Number);
  if (numbers.some((each) => !passages[each - 1])) return part;
  return numbers.map((each) => {
    cited.add(each);
    const passage = passages[each - 1];
    return h("button", { type: "button", class: "cite", title: label(passage), "aria-label": t("passage", { number: number(each), place: label(passage) }), onclick: () => show(passage, each) }, number(each));
  });
}

const place = ({ page, heading }) => (page ? t("on_page", { page: number(page) }) : heading);

// Where a passage stands: its document, and the page or heading
export function label(passage) {
  return [passage.source, place(passage)].filter(Boolean).join(" · ");
}

function show(passage, at) {
  const box = dialogue(`[${number(at)}] ${passage.source}`, h("p", { class: "small" }, place(passage)), h("div", { class: "passage", html: passage.text_html }));
  box.id = "passage";
}
