// Feedback under an answer: the reasons for a thumb, and a correction.
import { get, post } from "./api.js";
import { h, iconButton } from "./dom.js";
import { announce, toast } from "./notices.js";
import { t } from "./texts.js";

// Chips for a thumb's reasons and a field for a comment; the panel closes when they are sent. Reasons
// are saved in order after the thumb (the promise `saved`), since the last statement counts
export function askWhy(turn, vote, reasons, saved, fail) {
  const { answerId } = turn;
  const chosen = new Set();
  const comment = h("input", { type: "text", id: "comment", maxlength: "4000", placeholder: t("comment"), "aria-label": t("comment") });
  const say = () => {
    const said = { vote, reasons: [...chosen], comment: comment.value };
    saved = saved.then(() => post(`api/answers/${answerId}/vote`, said));
    return saved.catch(fail);
  };
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
  turn.more.scrollIntoView({ block: "nearest" });
}

// Edit the answer in place
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
