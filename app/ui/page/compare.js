// Comparisons: a person chooses between two answers to one question.
import { Refused, get, post } from "./api.js";
import { h } from "./dom.js";
import { toast } from "./notices.js";
import { t } from "./texts.js";
import { Turn } from "./turn.js";

// Start a second answer; it stays hidden until both are complete
export async function compare(page, turn) {
  const first = turn.document.answer;
  const close = () => turn.more.replaceChildren();
  turn.more.replaceChildren(h("p", { class: "small" }, t("second_answer_is_written")));
  const end = await page.stream(new Turn(page.actions), `chat/answers/${first.id}/again`, { to_compare: true, sampling: page.composer.sampling }, { undo: close });
  close();
  if (!page.turns.includes(turn) || end?.status !== "done") return; // an incomplete answer is not compared
  choose(page, turn, first, await get(`chat/answers/${end.id}`));
}

// Ask for an offer: at random, the server writes a second answer, or has two new ones to an earlier
// question of the person's; choosing is optional
export async function offer(page, turn) {
  const { second, waiting } = await post(`chat/answers/${turn.answerId}/offer`).catch((error) => {
    if (error instanceof Refused) return {}; // an offer may fail silently
    throw error;
  });
  if (!(second || waiting) || page.turns.at(-1) !== turn || turn.more.children.length) return;
  const close = () => turn.more.replaceChildren();
  turn.more.replaceChildren(
    h(
      "div",
      { class: "why", id: "offer", role: "group", "aria-label": t("compare") },
      h("span", {}, t(waiting ? "offer_waiting" : "offer")),
      h("button", { type: "button", class: "chip", onclick: () => (waiting ? chooseWaiting(page, turn, waiting) : choose(page, turn, turn.document.answer, second)) }, t("offer_accept")),
      h("button", { type: "button", class: "link", onclick: close }, t("offer_refuse")),
    ),
  );
  page.scroller.grown();
}

// Compare two answers to the question of a turn, on random sides, without saying which came first
function choose(page, turn, first, second) {
  const [left, right] = crypto.getRandomValues(new Uint8Array(1))[0] % 2 ? [first, second] : [second, first];
  const leave = (choice) => page.actions.showAnswer({ left, right }[choice]?.id ?? first.id);
  const send = async (choice) => {
    const { id } = await post("api/comparisons", { left: left.id, right: right.id });
    await post(`api/comparisons/${id}/choice`, { choice });
  };
  turn.element.classList.add("comparing");
  sideBySide(page, turn, [left.html, right.html], send, leave);
}

// Compare two new answers to an earlier question; the turn is only the place where they are shown
function chooseWaiting(page, turn, { id, question_html, first, second }) {
  const send = (choice) => post(`chat/waiting/${id}/choice`, { choice });
  sideBySide(page, turn, [first, second], send, () => {}, h("div", { class: "question", html: question_html }));
}

// `send` stores a choice; `leave` is called at the end, with the choice if there was one
function sideBySide(page, turn, [left, right], send, leave, question = null) {
  const end = (choice) => {
    turn.settle();
    leave(choice);
  };
  turn.settle = () => {
    turn.settle = () => {};
    removeEventListener("keydown", pressed, true);
    turn.element.classList.remove("comparing");
    panel.remove();
  };
  const say = async (choice) => {
    try {
      await send(choice);
      end(choice);
      toast(t("thanks"));
    } catch (error) {
      page.fail(error);
    }
  };
  const choices = ["left", "right", "tie", "both_bad"];
  const pressed = (event) => {
    if (!panel.isConnected) return turn.settle();
    if (event.target.matches("input, textarea, select") || document.querySelector("dialog[open]")) return;
    const choice = choices[Number(event.key) - 1];
    if (choice) say(choice);
    else if (event.key === "Escape") end();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const side = (html, key) => h("section", { class: "side-by-side", "aria-label": t(key) }, h("h3", {}, t(key)), h("div", { html }));
  const panel = h(
    "div",
    { class: "compare", id: "compare-panel" },
    question,
    h("div", { class: "sides" }, side(left, "answer_one"), side(right, "answer_two")),
    h(
      "div",
      { class: "choices" },
      choices.map((choice, index) =>
        h("button", { type: "button", "data-choice": choice, onclick: () => say(choice) }, t(`compare_${choice}`), h("kbd", {}, String(index + 1))),
      ),
      h("button", { type: "button", class: "link", onclick: () => end() }, t("leave_comparison")),
    ),
  );
  addEventListener("keydown", pressed, true);
  turn.more.replaceChildren(panel);
  turn.more.scrollIntoView({ block: "nearest" });
  turn.more.querySelector("button").focus({ preventScroll: true });
}
