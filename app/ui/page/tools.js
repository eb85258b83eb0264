// The tools that answers may call: the switches of the person, and the calls that an answer made.
import { get, put } from "./api.js";
import { h, iconButton } from "./dom.js";
import { dialogue } from "./notices.js";
import { t } from "./texts.js";

const OWN = ["calculator", "clock", "documents"]; // those with texts in the person's language

export class Tools {
  // `fail` shows an error above the composer
  constructor(boot, fail) {
    this.fail = fail;
    this.button = iconButton("tool", t("tools"), () => this.open(), { id: "tools", hidden: !boot.has_tools, "aria-haspopup": "dialog" });
  }

  async open() {
    this.button.disabled = true; // until the servers have answered
    try {
      const { tools, problems } = await get("chat/tools");
      const said = h("p", { class: "small", role: "status" }, problems.join(" "));
      const list = h("ul", { class: "tool-list" }, tools.map((tool) => this.#row(tool, said)));
      const box = dialogue(t("tools"), h("p", { class: "small" }, t("tools_is")), list, said);
      box.id = "tools-box";
    } catch (error) {
      this.fail(error);
    } finally {
      this.button.disabled = false;
    }
  }

  #row({ name, description, server, allowed }, said) {
    const box = h("input", { type: "checkbox", checked: allowed, "data-tool": name });
    box.addEventListener("change", async () => {
      try {
        await put(`chat/tools/${encodeURIComponent(name)}`, { allowed: box.checked });
      } catch (error) {
        box.checked = !box.checked;
        said.textContent = error.message;
      }
    });
    const words = server ? description : t(`tool_${name}_is`);
    return h(
      "li",
      {},
      h("label", {}, box, h("span", {}, h("b", {}, titleOf(name)), h("span", { class: "small" }, words), server && h("span", { class: "small" }, t("tool_from", { server })))),
    );
  }
}

// Draw the calls of an answer, so that one that was unfolded stays so. All of it is text
export function drawCalled(element, called) {
  element.hidden = !called.length;
  called.forEach((call, at) => {
    const key = JSON.stringify(call);
    const before = element.children[at];
    if (before?.dataset.key === key) return;
    const fresh = drawn(call, key);
    if (!before) return element.append(fresh);
    fresh.open = before.open;
    before.replaceWith(fresh);
  });
  while (element.children.length > called.length) element.lastElementChild.remove();
}

function drawn({ name, arguments: given, result, status }, key) {
  const words = t(`tool_is_${status}`, { name: titleOf(name) });
  return h(
    "details",
    { class: "call", "data-key": key, "data-status": status },
    h("summary", {}, h("span", { class: "state", "aria-hidden": "true" }), words, h("code", {}, brief(given))),
    h("p", { class: "small" }, t("tool_arguments")),
    h("pre", { dir: "auto" }, pretty(given)),
    ...(status === "running" ? [] : [h("p", { class: "small" }, t("tool_result")), h("pre", { dir: "auto" }, result || "–")]),
  );
}

function titleOf(name) {
  return OWN.includes(name) ? t(`tool_${name}`) : name;
}

// The values of the arguments in one line
function brief(given) {
  const values = Object.values(JSON.parse(given)).map((value) => (typeof value === "string" ? value : JSON.stringify(value)));
  const line = values.join(", ");
  return line.length > 60 ? `${line.slice(0, 59)}…` : line;
}

function pretty(given) {
  return JSON.stringify(JSON.parse(given), null, 2);
}
