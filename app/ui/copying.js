// The chat window's copy buttons put a message's HTML on the clipboard. This puts there the text that
// the HTML was made from: app/ui/copying.py adds it at the end.
"use strict";

(() => {
  const sourceOf = (copied) => {
    if (!copied.includes('<div class="rendered">')) return copied;
    const message = new DOMParser().parseFromString(copied, "text/html");
    return message.querySelector("data")?.value ?? message.body.textContent;  // or still growing
  };

  // Over HTTPS and on this machine the window calls the clipboard; elsewhere it copies a text area.
  if (navigator.clipboard) {
    const write = navigator.clipboard.writeText.bind(navigator.clipboard);
    navigator.clipboard.writeText = (copied) => write(sourceOf(copied));
  }
  document.addEventListener("copy", (event) => {
    const area = document.activeElement;
    if (!(area instanceof HTMLTextAreaElement)) return;
    const selected = area.value.slice(area.selectionStart, area.selectionEnd);
    const source = sourceOf(selected);
    if (source === selected) return;
    event.clipboardData.setData("text/plain", source);
    event.preventDefault();
  });
})();
