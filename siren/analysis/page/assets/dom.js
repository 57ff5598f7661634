// Elements: made, and changed in place, so that focus, scroll position and open details survive an update.

const SVG_NAMESPACE = "http://www.w3.org/2000/svg";

/** An HTML element. Attributes that are null or false are left out; children are elements or text. */
function html(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** An SVG element, as `html`. */
function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG_NAMESPACE, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Sets an element's text, if it is another one. */
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Gives `parent` one child per item, in their order.
 *
 * A child stays the same element as long as there is an item of its key; `update` is called for all.
 */
function keyed(parent, items, keyOf, create, update) {
  const old = new Map(Array.from(parent.children, (child) => [child.dataset.key, child]));
  items.forEach((item, position) => {
    const key = String(keyOf(item, position));
    let child = old.get(key);
    old.delete(key);
    if (!child) {
      child = create(item);
      child.dataset.key = key;
    }
    if (parent.children[position] !== child) parent.insertBefore(child, parent.children[position] ?? null);
    update(child, item);
  });
  for (const child of old.values()) child.remove();
}

/** A table with a caption for screen readers, in a region that scrolls by itself where it is too wide. */
function makeTable(caption) {
  const region = html("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: "0" });
  const head = html("thead", {}, html("tr"));
  region.append(html("table", {}, html("caption", { class: "unseen" }, caption), head, html("tbody")));
  return region;
}

/** Fills a table that `makeTable` made. The first cell of a row is its heading. */
function fillTable(region, table) {
  const heads = region.querySelector("thead tr");
  if (heads.children.length !== table.head.length) heads.replaceChildren();
  keyed(heads, table.head, (_, i) => i, () => html("th", { scope: "col" }), setText);
  keyed(
    region.querySelector("tbody"),
    table.rows,
    (_, i) => i,
    () => html("tr"),
    (row, cells) => {
      if (row.children.length !== cells.length) row.replaceChildren();
      cells.forEach((cell, i) => {
        if (!row.children[i]) row.append(i === 0 ? html("th", { scope: "row" }) : html("td"));
        setText(row.children[i], cell);
      });
    },
  );
}
