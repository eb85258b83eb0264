// The entry point: reads the boot document of the server, then builds the page.
import { get } from "./api.js";
import { h, stored } from "./dom.js";
import { mountNotices } from "./notices.js";
import { Page } from "./page.js";
import { useTheme } from "./settings.js";
import { learn } from "./texts.js";

const root = h("div", { id: "burnish" });
document.body.append(root); // outside gradio's frame, whose styles do not apply to this page
const boot = await get("chat/boot");
learn(boot.language, boot.texts);
root.lang = boot.language; // gradio gives the document the browser's own language
useTheme(root, stored("theme"));
mountNotices(root);
const page = new Page(boot);
root.prepend(page.sidebar.element, page.sidebar.shade, page.element, page.imports.curtain);
await page.start();
root.dataset.ready = "";
