// The account's pages: theme and language. They work without it.
import { stored } from "./dom.js";
import { useTheme } from "./settings.js";

const root = document.getElementById("burnish");
useTheme(root, stored("theme"));
const language = document.getElementById("language");
language.parentElement.hidden = false;
language.addEventListener("change", () => {
  document.cookie = `burnish_language=${language.value};path=${root.dataset.root}/;max-age=31536000;samesite=lax`;
  location.reload();
});
