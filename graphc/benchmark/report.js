"use strict";
// A tip beside the pointer, in place of the browser's own, which comes late.
const tip = document.getElementById("tip");
for (const mark of document.querySelectorAll("[data-tip]")) {
  mark.querySelector("title")?.remove();
  mark.addEventListener("pointermove", (event) => {
    tip.textContent = mark.dataset.tip;
    tip.hidden = false;
    const left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${Math.max(8, event.clientY - tip.offsetHeight - 12)}px`;
  });
  mark.addEventListener("pointerleave", () => { tip.hidden = true; });
}
// A side of the legend stands out in all plots while it is chosen.
const buttons = [...document.querySelectorAll(".legend button")];
for (const button of buttons) {
  button.addEventListener("click", () => {
    const chosen = button.getAttribute("aria-pressed") !== "true";
    for (const other of buttons) other.setAttribute("aria-pressed", String(chosen && other === button));
    for (const mark of document.querySelectorAll("svg .mark")) {
      mark.style.opacity = !chosen || mark.classList.contains(`s-${button.value}`) ? "" : "0.15";
    }
  });
}
