// Notices: a toast with an undo action, dialogues, and announcements for screen readers.
import { h, iconButton } from "./dom.js";
import { t } from "./texts.js";

let region, status;

export function mountNotices(root) {
  region = h("div", { class: "toasts", role: "status", "aria-live": "polite" });
  status = h("div", { class: "unseen", role: "status", "aria-live": "polite", id: "announced" });
  root.append(region, status);
}

export function announce(words) {
  status.textContent = words;
}

// `action` is [label, function] and is offered while the toast is shown. Returns a function that
// closes the toast; without `seconds`, nothing else does
export function toast(words, action, seconds = 4) {
  const close = () => box.remove();
  const box = h("div", { class: "toast" }, h("span", {}, words));
  if (action) {
    box.append(h("button", { type: "button", class: "link", onclick: () => (close(), action[1]()) }, action[0]));
  }
  box.append(iconButton("close", t("close"), close));
  region.append(box);
  if (seconds) setTimeout(close, seconds * 1000);
  return close;
}

// A dialogue in the middle of the page; Esc, the cross and a click beside it close it
export function dialogue(title, ...children) {
  const box = h(
    "dialog",
    { class: "dialogue", "aria-label": title, onclick: (event) => event.target === box && box.close() },
    h(
      "div",
      { class: "inside" },
      h("header", {}, h("h2", {}, title), iconButton("close", t("close"), () => box.close())),
      ...children,
    ),
  );
  const before = document.activeElement;
  box.addEventListener("close", () => {
    box.remove();
    // Chromium restores the focus without the caret, and text typed then is lost
    before.blur();
    before.focus({ preventScroll: true });
  });
  document.getElementById("burnish").append(box);
  box.showModal();
  return box;
}
