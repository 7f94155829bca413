"""What a browser can tell of a page by itself: scripts that return a list of faults, empty for none."""

from __future__ import annotations

OVERLAPS = """
const shown = [...document.querySelectorAll("h1, h2, h3, p, li > a, button, input:not([type=hidden]), select, label, "
  + "figure, .scroll, dt, dd, summary")].filter((one) => !one.closest(".skip, td") && one.checkVisibility());
const name = (one) => one.tagName + " " + one.textContent.slice(0, 30);
const found = [];
for (let i = 0; i < shown.length; i++) for (let j = i + 1; j < shown.length; j++) {
  const [a, b] = [shown[i], shown[j]];
  if (a.contains(b) || b.contains(a)) continue;
  const [p, q] = [a.getBoundingClientRect(), b.getBoundingClientRect()];
  const x = Math.min(p.right, q.right) - Math.max(p.left, q.left);
  const y = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
  if (x > 2 && y > 2) found.push([name(a), name(b)]);
}
return found.slice(0, 5);
"""
"""Pairs of parts of the page whose boxes overlap by more than a rounding."""

SIDEWAYS = """
return [...document.querySelectorAll(".scroll:not(.diff)")].filter((one) => one.scrollWidth > one.clientWidth)
  .map((one) => `${one.ariaLabel}: ${one.scrollWidth} px in ${one.clientWidth}`);
"""
"""Tables that have to be scrolled sideways; lines of a file may be as long as they are."""

CONTRAST = """
const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
const rgba = (colour) => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
const behind = (one) => {
  for (; one; one = one.parentElement) {
    const colour = rgba(getComputedStyle(one).backgroundColor);
    if (colour[3] === 255) return colour;
  }
  return [255, 255, 255, 255];
};
const found = [];
for (const one of document.querySelectorAll("body *")) {
  const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || !one.checkVisibility() || one.closest("datalist, title, desc, option")) continue;
  const style = getComputedStyle(one);
  const colours = [rgba(one instanceof SVGElement ? style.fill : style.color), behind(one)];
  const [a, b] = colours.map(light).sort((p, q) => q - p);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < 4.5) found.push(`${one.tagName} ${ratio.toFixed(2)} ${one.textContent.slice(0, 20)}`);
}
return found.slice(0, 5);
"""
"""Texts with less contrast than WCAG 2.2 asks for (1.4.3, AA: 4.5 to 1)."""

UNNAMED = """
const faults = [];
const all = (css) => [...document.querySelectorAll(css)];
for (const one of all("input:not([type=hidden]), select"))
  if (!one.labels.length && !one.ariaLabel) faults.push("no label: " + one.name);
for (const one of all("table")) if (!one.caption) faults.push("no caption");
for (const one of all("th")) if (!one.scope) faults.push("no scope: " + one.textContent);
for (const one of all("button, a")) if (!(one.ariaLabel || one.textContent).trim()) faults.push("no name");
for (const one of all("[aria-labelledby]"))
  for (const id of one.getAttribute("aria-labelledby").split(" "))
    if (!document.getElementById(id)) faults.push("nothing is " + id);
const ids = all("[id]").map((one) => one.id);
for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) faults.push("twice: " + id);
let level = 0;
for (const one of all("h1, h2, h3")) {
  const now = Number(one.tagName[1]);
  if (now > level + 1) faults.push("a level is left out: " + one.textContent);
  level = now;
}
return faults;
"""
"""What a screen reader would not find a name for, ids that are there twice, and headings out of order."""
