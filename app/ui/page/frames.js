// Slows down the clock of gradio's loading status. Gradio 6.31 draws it anew with each frame, and
// goes on for ever after the status is gone: a tenth of a core of every open page. A classic script,
// so that it runs before gradio's modules.
const everyFrame = window.requestAnimationFrame.bind(window);
window.requestAnimationFrame = (draw) =>
  new Error().stack.includes("/statustracker-") ? setTimeout(draw, 1000) : everyFrame(draw);
