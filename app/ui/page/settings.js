// The person's settings: language, theme and consent to training.
import { get, put } from "./api.js";
import { h, stored } from "./dom.js";
import { dialogue } from "./notices.js";
import { t } from "./texts.js";

const dark = matchMedia("(prefers-color-scheme: dark)");

export function useTheme(root, theme) {
  const draw = () => {
    const chosen = stored("theme") || theme || "system";
    root.classList.toggle("dark", chosen === "dark" || (chosen === "system" && dark.matches));
  };
  dark.addEventListener("change", draw);
  draw();
}

// `imports` provides the setting that imports a file of conversations
export async function showSettings(boot, imports, fail) {
  const root = document.getElementById("burnish");
  try {
    const { allowed } = await get("api/consent");
    const consent = h("input", { type: "checkbox", id: "consent", checked: allowed });
    consent.addEventListener("change", () =>
      put("api/consent", { allowed: consent.checked }).catch((error) => {
        consent.checked = !consent.checked;
        fail(error);
      }),
    );
    const theme = select("theme", ["system", "light", "dark"].map((name) => [name, t(`theme_${name}`)]), stored("theme") || "system");
    theme.addEventListener("change", () => (stored("theme", theme.value), useTheme(root)));
    const language = select("language", Object.entries(boot.languages), boot.language);
    language.addEventListener("change", () => {
      document.cookie = `burnish_language=${language.value};path=${new URL(".", location.href).pathname};max-age=31536000;samesite=lax`;
      location.reload();
    });
    const box = dialogue(
      t("settings"),
      h("label", { class: "setting" }, h("span", {}, t("language")), language),
      h("label", { class: "setting" }, h("span", {}, t("theme")), theme),
      h("label", { class: "setting" }, h("span", {}, t("consent")), consent),
      h("p", { class: "small" }, t("consent_is")),
      ...imports.setting(() => box.close()),
    );
  } catch (error) {
    fail(error);
  }
}

function select(id, options, chosen) {
  const element = h("select", { id }, options.map(([value, words]) => h("option", { value }, words)));
  element.value = chosen;
  return element;
}
