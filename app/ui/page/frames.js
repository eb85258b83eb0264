// Slows down the animation of gradio's loading status. Gradio 6.31 redraws it at each frame, even
// after the status is gone, which keeps the processor busy for every open page. This is a classic
// script, so that it runs before gradio's modules.
const everyFrame = window.requestAnimationFrame.bind(window);
window.requestAnimationFrame = (draw) =>
  new Error().stack.includes("/statustracker-") ? setTimeout(draw, 1000) : everyFrame(draw);
