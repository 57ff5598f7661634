"""A page in the browser, with everything that it said and asked for; and what can be measured there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

PHONE = {"width": 360, "height": 740}
DESKTOP = {"width": 1240, "height": 900}

# Relative luminance and contrast as in WCAG 2.2 (w3.org/TR/WCAG22, "contrast ratio"). Colours are
# read through a canvas, which gives sRGB whatever form the style has; a background that is see-through
# is that of what lies below it.
CONTRASTS = """
() => {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (colour) => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = colour.slice(0, 3).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => {
    const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x);
    return (high + 0.05) / (low + 0.05);
  };
  const below = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.getElementById("page"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    const element = walker.currentNode.parentElement;
    if (!text || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const colour = rgba(element.closest("svg") ? style.fill : style.color);
    found.push({ kind: "text", what: text, ratio: ratio(colour, below(element)) });
  }
  const lines = "svg .line, svg .area, svg .rule line";
  const shapes = { stroke: lines, fill: "svg .bar", backgroundColor: ".swatch" };
  for (const [property, selector] of Object.entries(shapes)) {
    for (const shape of document.querySelectorAll(selector)) {
      const colour = rgba(getComputedStyle(shape)[property]);
      found.push({ kind: "shape", what: selector, ratio: ratio(colour, below(shape.closest("figure"))) });
    }
  }
  return found;
}
"""

WIDTHS = """
() => {
  const wide = document.documentElement.clientWidth;
  const out = [...document.querySelectorAll("#page *")].filter((element) => {
    if (!element.checkVisibility() || element.closest(".scroll") || element.closest(".unseen")) return false;
    const box = element.getBoundingClientRect();
    return box.right > wide + 0.5 || box.left < -0.5;
  });
  const page = document.documentElement.scrollWidth;
  return { page, screen: wide, out: out.map((element) => element.outerHTML.slice(0, 120)) };
}
"""


class View:
    """A page of the browser that keeps what went wrong and what was asked for."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements that match."""
        return self.page.locator(selector).all_text_contents()

    def open_all(self) -> None:
        """Opens every `details`."""
        self.page.evaluate(
            "document.querySelectorAll('details').forEach((element) => { element.open = true; })"
        )


@contextlib.contextmanager
def view(browser: Any, address: str, **options: Any) -> Iterator[View]:
    """A page of its own, without a network unless it is served.

    Args:
        browser: The browser.
        address: What to show.
        options: Of the browser's context, e.g. `color_scheme`.
    """
    context = browser.new_context(**{"viewport": DESKTOP, **options})
    try:
        context.set_offline(address.startswith("file:"))
        shown = View(context.new_page())
        shown.page.goto(address)
        yield shown
    finally:
        context.close()
