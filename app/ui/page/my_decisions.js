// The person's decisions: consent, a copy of all their data, and erasure.
import { post, put } from "./api.js";
import { h, forgetStored } from "./dom.js";
import { dialogue } from "./notices.js";
import { t } from "./texts.js";

// Open where something waits for it. `actions`: changed() after a change of consent, forgotten(receipt), fail(error)
export function yourDecisions({ consent: allowed, summary }, actions) {
  const consent = h("input", { type: "checkbox", id: "my-consent", role: "switch", checked: allowed });
  consent.addEventListener("change", async () => {
    try {
      await put("api/consent", { allowed: consent.checked });
      await actions.changed();
    } catch (error) {
      consent.checked = !consent.checked;
      actions.fail(error);
    }
  });
  const choice = (about, control) => h("div", { class: "setting" }, h("span", { class: "small" }, about), control);
  return h(
    "details",
    { class: "panel", id: "my-decisions", open: !allowed || !summary.said },
    h("summary", {}, t("my_decisions")),
    h("label", { class: "setting" }, h("span", {}, t("consent")), consent),
    h("p", { class: "small" }, t("consent_is"), " ", t("my_consent_off")),
    choice(t("my_download_is"), h("a", { class: "link", id: "download", href: "chat/person/data", download: "" }, t("my_download"))),
    choice(t("my_forget_is"), h("button", { type: "button", class: "link bad", id: "forget", onclick: () => askToForget(actions) }, t("my_forget"))),
  );
}

function askToForget({ forgotten, fail }) {
  const forget = async () => {
    sure.disabled = true;
    sure.textContent = t("my_forgetting");
    try {
      const receipt = await post("chat/person/forget");
      forgetStored("draft.");
      box.close();
      forgotten(receipt);
    } catch (error) {
      box.close();
      fail(error);
    }
  };
  const sure = h("button", { type: "button", class: "primary bad", id: "forget-sure", onclick: forget }, t("my_forget_sure"));
  const box = dialogue(
    t("my_forget"),
    h("p", {}, t("my_forget_means")),
    h("div", { class: "row-of" }, sure, h("button", { type: "button", class: "link", onclick: () => box.close() }, t("cancel"))),
  );
}
