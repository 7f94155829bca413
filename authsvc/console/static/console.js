// Renews the parts of a page that are marked data-live, every 5 s. Pages say the same without it.
"use strict";

(() => {
  const INTERVAL = 5000;
  if (!document.querySelector("[data-live]")) return;

  const button = document.createElement("button");
  button.type = "button";
  button.className = "pause";
  let paused = false;
  const label = () => { button.textContent = paused ? "Resume updates" : "Pause updates"; };
  button.addEventListener("click", () => { paused = !paused; label(); });
  label();
  document.querySelector(".head").append(button);

  // Not under somebody's hands: a part with the focus in it, or with a selection, stays as it is.
  const busy = (part) => {
    const selection = document.getSelection();
    return part.contains(document.activeElement) && document.activeElement !== document.body
      || (selection && !selection.isCollapsed && part.contains(selection.anchorNode));
  };

  const renew = async () => {
    if (paused || document.hidden) return;
    let answer;
    try {
      answer = await fetch(location.href, { headers: { "X-Console-Refresh": "1" }, credentials: "same-origin" });
    } catch {
      return; // the next one may find the service again
    }
    if (answer.redirected) { location.reload(); return; }
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const other = fresh.getElementById(part.id);
      if (!other || busy(part)) continue;
      const boxes = [...part.querySelectorAll(".scroll")].map((box) => box.scrollLeft);
      part.replaceChildren(...other.childNodes);
      part.querySelectorAll(".scroll").forEach((box, at) => { box.scrollLeft = boxes[at] || 0; });
    }
  };
  setInterval(renew, INTERVAL);
})();
