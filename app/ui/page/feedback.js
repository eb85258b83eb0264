// What a person says of an answer, under that answer: why, better words, a choice between two.
import { get, post } from "./api.js";
import { h, iconButton } from "./dom.js";
import { announce, toast } from "./notices.js";
import { t } from "./texts.js";

// Chips for a thumb's reasons and a line for words; it closes itself when they are sent
export function askWhy(turn, vote, reasons, fail) {
  const { answerId } = turn;
  const chosen = new Set();
  const comment = h("input", { type: "text", id: "comment", maxlength: "4000", placeholder: t("comment"), "aria-label": t("comment") });
  const say = () => post(`api/answers/${answerId}/vote`, { vote, reasons: [...chosen], comment: comment.value }).catch(fail);
  const chip = (reason) => {
    const button = h("button", { type: "button", class: "chip", "aria-pressed": "false", "data-reason": reason }, t(`reason_${reason}`));
    button.addEventListener("click", () => {
      if (!chosen.delete(reason)) chosen.add(reason);
      button.setAttribute("aria-pressed", String(chosen.has(reason)));
      say();
    });
    return button;
  };
  const send = async (event) => {
    event.preventDefault();
    await say();
    turn.more.replaceChildren();
    announce(t("thanks"));
  };
  turn.more.replaceChildren(
    h(
      "form",
      { class: "why", onsubmit: send },
      h("div", { class: "chips", role: "group", "aria-label": t("why") }, reasons.map(chip)),
      comment,
      h("button", { class: "link" }, t("send_reasons")),
      iconButton("close", t("close"), () => turn.more.replaceChildren()),
    ),
  );
}

// The answer opens for editing where it stands
export async function improve(turn, refresh, fail) {
  try {
    const text = turn.document.correction ?? (await get(`api/answers/${turn.answerId}`)).text;
    const words = h("textarea", { id: "correction", "aria-label": t("correction") });
    words.value = text;
    const leave = () => {
      turn.answer.hidden = false;
      turn.element.classList.remove("improving");
      turn.more.replaceChildren();
    };
    const save = async (event) => {
      event.preventDefault();
      try {
        await post(`api/answers/${turn.answerId}/correction`, { text: words.value });
        await refresh();
        leave();
        toast(t("correction_saved"));
      } catch (error) {
        fail(error);
      }
    };
    turn.answer.hidden = true;
    turn.element.classList.add("improving");
    turn.more.replaceChildren(
      h(
        "form",
        { class: "improve", onsubmit: save, onkeydown: (event) => event.key === "Escape" && (event.stopPropagation(), leave()) },
        words,
        h(
          "div",
          { class: "row-of" },
          h("button", { class: "primary", id: "save-correction" }, t("save")),
          h("button", { type: "button", class: "link", onclick: leave }, t("cancel")),
          h("span", { class: "small" }, t("what_a_correction_does")),
        ),
      ),
    );
    words.style.height = `${Math.min(words.scrollHeight + 8, innerHeight * 0.5)}px`;
    words.focus({ preventScroll: true });
    turn.more.scrollIntoView({ block: "nearest" });
  } catch (error) {
    fail(error);
  }
}

// Two answers side by side, the sides drawn by lot, nothing said of which came first
export function choose(turn, first, second, done, fail) {
  const [left, right] = crypto.getRandomValues(new Uint8Array(1))[0] % 2 ? [first, second] : [second, first];
  turn.settle = () => {
    turn.settle = () => {};
    removeEventListener("keydown", pressed, true);
    turn.element.classList.remove("comparing");
    panel.remove();
  };
  const leave = (shown) => {
    turn.settle();
    done(shown);
  };
  const say = async (choice) => {
    try {
      const { id } = await post("api/comparisons", { left: left.id, right: right.id });
      await post(`api/comparisons/${id}/choice`, { choice });
      leave({ left, right }[choice]?.id ?? first.id);
      toast(t("thanks"));
    } catch (error) {
      fail(error);
    }
  };
  const choices = ["left", "right", "tie", "both_bad"];
  const pressed = (event) => {
    if (!panel.isConnected) return turn.settle();
    if (event.target.matches("input, textarea, select") || document.querySelector("dialog[open]")) return;
    const choice = choices[Number(event.key) - 1];
    if (choice) say(choice);
    else if (event.key === "Escape") leave(first.id);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const side = (answer, key) => h("section", { class: "side-by-side", "aria-label": t(key) }, h("h3", {}, t(key)), h("div", { html: answer.html }));
  const panel = h(
    "div",
    { class: "compare", id: "compare-panel" },
    h("div", { class: "sides" }, side(left, "answer_one"), side(right, "answer_two")),
    h(
      "div",
      { class: "choices" },
      choices.map((choice, index) =>
        h("button", { type: "button", "data-choice": choice, onclick: () => say(choice) }, t(`compare_${choice}`), h("kbd", {}, String(index + 1))),
      ),
      h("button", { type: "button", class: "link", onclick: () => leave(first.id) }, t("leave_comparison")),
    ),
  );
  addEventListener("keydown", pressed, true);
  turn.element.classList.add("comparing");
  turn.more.replaceChildren(panel);
  turn.more.scrollIntoView({ block: "nearest" });
  turn.more.querySelector("button").focus({ preventScroll: true });
}
