// Judged answers that are shown to the model as examples for similar questions: the person's own,
// and, in an answer's details, those that the operator shares with everybody.
import { get, post, remove } from "./api.js";
import { h, iconButton } from "./dom.js";
import { toast } from "./notices.js";
import { t } from "./texts.js";

const UNDO_SECONDS = 8;

// All of the person's own examples, newest first, loaded page by page
export async function ownExamples(fail) {
  const list = h("ul", { class: "examples" });
  const more = h("button", { type: "button", class: "link" }, t("show_more"));
  const load = async (first) => {
    const { examples, count } = await get(`chat/examples?first=${first}`);
    list.append(...examples.map((each) => example(each, fail)));
    more.hidden = list.children.length >= count;
    if (!count) list.replaceChildren(h("li", { class: "small" }, t("my_examples_none")));
  };
  more.addEventListener("click", () => load(list.children.length).catch(fail));
  await load(0);
  return [list, more];
}

// The examples in an answer's prompt; empty until they are loaded
export function examplesInView(answerId, fail) {
  const place = h("section", { class: "in-view" });
  const draw = async () => {
    const { examples } = await get(`chat/answers/${answerId}/examples`);
    if (!examples.length) return;
    place.append(
      h("h3", {}, t("my_examples_in_view")),
      h("ul", { class: "examples" }, examples.map((each) => example(each, fail))),
    );
  };
  draw().catch(fail);
  return place;
}

// One example, with a button that removes it and an undo action
function example({ answer, source, question, text, for_everybody: forEverybody = false, removed = false }, fail) {
  const act = async (removes) => {
    try {
      await (removes ? remove(`chat/examples/${answer}`) : post(`chat/examples/${answer}/restore`));
      draw(removes);
      if (removes) toast(t("my_example_removed"), [t("undo"), () => act(false)], UNDO_SECONDS);
    } catch (error) {
      fail(error);
    }
  };
  const place = h("span", { class: "act" });
  const item = h(
    "li",
    { "data-example": answer },
    h(
      "div",
      {},
      h("p", { class: "asked-for", dir: "auto" }, question),
      h("p", { class: "small", dir: "auto" }, t("my_with_words", { what: t(`my_example_${source}`), words: text })),
      forEverybody && h("p", { class: "small" }, t("my_example_for_everybody")),
    ),
    place,
  );
  const draw = (isRemoved) => {
    item.classList.toggle("removed", isRemoved);
    place.replaceChildren(
      isRemoved
        ? h("button", { type: "button", class: "link", onclick: () => act(false) }, t("undo"))
        : iconButton("close", t("my_example_remove"), () => act(true), { "data-does": "remove-example" }),
    );
  };
  draw(removed);
  return item;
}
