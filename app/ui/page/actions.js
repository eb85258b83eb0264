// The actions on a turn. `page` is the chat page, which sends requests, draws and shows errors.
import { get, post } from "./api.js";
import { compare } from "./compare.js";
import { copyText, h, iconButton } from "./dom.js";
import { askWhy, improve } from "./feedback.js";
import { announce, dialogue, toast } from "./notices.js";
import { examplesInView } from "./own_examples.js";
import { t } from "./texts.js";

const CHANGES = ["shorter", "longer", "simpler", "formal", "other_language"];

export function actionsOn(page) {
  const told = (act) => async (...rest) => {
    try {
      await act(...rest);
    } catch (error) {
      page.fail(error);
    }
  };
  return {
    showAnswer: told((answer) => page.show({ answer })),
    showTurn: told((turn) => page.show({ turn })),
    copyQuestion: told((turn) => copyText(turn.document.question).then(() => announce(t("copied")))),
    edit: (turn) => edit(page, turn),
    copy: told(copy),
    vote: told((turn, value) => vote(page, turn, value)),
    improve: told((turn) => improve(turn, () => page.refresh(), page.fail)),
    again: (turn) => page.again(turn, {}),
    goOn: (turn) => page.again(turn, undefined, `chat/answers/${turn.answerId}/continue`),
    change: (turn) => change(page, turn),
    compare: told((turn) => compare(page, turn)),
    details: (turn) => details(page, turn),
  };
}

// Edit the question in place; the edited question becomes a sibling branch
export function edit(page, turn) {
  const words = h("textarea", { "aria-label": t("edit_question"), class: "editing" });
  words.value = turn.document.question;
  const leave = () => turn.draw({ ...turn.document });
  const send = (event) => {
    event.preventDefault();
    if (!words.value.trim()) return;
    leave();
    page.ask(words.value, { after: page.turnBefore(turn), parent: turn.document.follows });
  };
  const keys = (event) => {
    if (event.key === "Escape") (event.stopPropagation(), leave());
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
  };
  turn.question.replaceChildren(
    h(
      "form",
      { class: "improve", onsubmit: send, onkeydown: keys },
      words,
      h("div", { class: "row-of" }, h("button", { class: "primary" }, t("send")), h("button", { type: "button", class: "link", onclick: leave }, t("cancel"))),
    ),
  );
  words.style.height = `${Math.min(words.scrollHeight + 4, innerHeight * 0.4)}px`;
  words.focus();
}

async function copy(turn) {
  const { text } = await get(`api/answers/${turn.answerId}`);
  await copyText(text);
  toast(t("copied"), null, 2);
  await post(`api/answers/${turn.answerId}/copy`);
}

async function vote(page, turn, value) {
  const before = turn.document;
  turn.draw({ ...before, vote: value, reasons: [], comment: "" });
  turn.bar.querySelector(`[data-does=${value < 0 ? "thumb_down" : "thumb_up"}]`)?.focus();
  const saved = post(`api/answers/${turn.answerId}/vote`, { vote: value });
  if (value) askWhy(turn, value, page.boot.reasons[value], saved, page.fail);
  try {
    await saved;
  } catch (error) {
    turn.draw(before);
    throw error;
  }
  announce(t(value ? "thanks" : "vote_cleared"));
}

// Rewrite the answer: chips for the usual changes, a text field for other instructions
function change(page, turn) {
  const close = () => turn.more.replaceChildren();
  const own = h("input", { type: "text", placeholder: t("own_words"), "aria-label": t("own_words"), maxlength: "500" });
  const ask = (kind, instruction) => {
    close();
    page.again(turn, { change: kind, instruction });
  };
  const chip = (kind) => h("button", { type: "button", class: "chip", "data-change": kind, onclick: () => ask(kind, t(`instruct_${kind}`)) }, t(`change_${kind}`));
  const send = (event) => {
    event.preventDefault();
    if (own.value.trim()) ask("own", own.value);
  };
  turn.more.replaceChildren(
    h(
      "form",
      { class: "why", onsubmit: send },
      h("div", { class: "chips", role: "group", "aria-label": t("change") }, CHANGES.map(chip)),
      own,
      iconButton("close", t("close"), close),
    ),
  );
  turn.more.querySelector("button").focus();
}

function details(page, turn) {
  const report = async () => {
    box.close();
    try {
      await post(`api/answers/${turn.answerId}/flag`);
      await page.refresh();
      toast(t("report_saved"));
    } catch (error) {
      page.fail(error);
    }
  };
  const box = dialogue(
    t("details"),
    h("dl", {}, turn.facts().flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
    turn.document.examples.length > 0 && examplesInView(turn.answerId, page.fail),
    h("p", { class: "small" }, t("what_a_report_does")),
    h("button", { type: "button", "data-does": "report", onclick: report }, t("report")),
  );
}
