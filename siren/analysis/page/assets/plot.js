// Charts over points: the figure around the drawing, the drawing, and what the pointer reads off it.

const HEIGHTS = { tall: 264, low: 168 };
const LETTER = 6.9; // pixels of an average letter at the size of the marks' texts

/** The figure of a chart: heading, drawing, sentence and table. */
function makeFigure(chart) {
  const title = `${chart.id}-title`;
  const caption = `${chart.id}-caption`;
  const figure = html(
    "figure",
    { id: `chart-${chart.id}`, class: `chart ${chart.kind}`, "aria-labelledby": title },
    html("h3", { id: title }, chart.title),
    html("p", { class: "unit" }),
    html("ul", { class: "legend", "aria-label": "legend" }),
    html("div", { class: "frame" }),
    html("figcaption", { id: caption }),
    html("details", { class: "data" }, html("summary", {}, "Table", html("span", { class: "unseen" }, ` of ${chart.title}`)), makeTable(chart.title)),
  );
  const frame = figure.querySelector(".frame");
  new ResizeObserver(() => drawFigure(figure)).observe(frame);
  return figure;
}

/** Shows what a chart holds now. */
function updateFigure(figure, chart) {
  figure.chart = chart;
  setText(figure.querySelector("h3"), chart.title);
  setText(figure.querySelector("figcaption"), chart.alt);
  const unit = figure.querySelector(".unit");
  unit.hidden = !chart.y;
  if (chart.y) setText(unit, chart.y.label);
  const legend = figure.querySelector(".legend");
  legend.hidden = !chart.legend;
  keyed(
    legend,
    chart.legend ? chart.series : [],
    (series) => series.tone,
    (series) => html("li", {}, html("span", { class: `swatch ${series.mark} tone-${series.tone}` }), html("span")),
    (item, series) => setText(item.lastChild, series.name),
  );
  fillTable(figure.querySelector(".scroll"), chart.table);
  figure.drawn = null;
  drawFigure(figure);
}

/** Draws a figure at its present width, if that is not done. */
function drawFigure(figure) {
  const { chart } = figure;
  const frame = figure.querySelector(".frame");
  const width = Math.floor(frame.clientWidth);
  if (!chart || width === 0 || figure.drawn === width) return;
  figure.drawn = width;
  const drawing = chart.kind === "amounts" ? drawAmounts(chart, width) : drawPoints(chart, width);
  drawing.setAttribute("aria-labelledby", `${chart.id}-title ${chart.id}-caption`);
  frame.replaceChildren(drawing);
  if (chart.kind === "points" && chart.xs.length) followPointer(frame, drawing, chart);
}

/** The empty drawing of a chart, `width` pixels wide. */
function canvas(width, height) {
  return svg("svg", { role: "img", width, height, viewBox: `0 0 ${width} ${height}` });
}

/** Draws axes, lines across and every series. */
function drawPoints(chart, width) {
  const height = HEIGHTS[chart.size];
  const drawing = canvas(width, height);
  const vertical = verticalDomain(chart);
  const bottom = height - 42;
  const y = makeScale(vertical.low, vertical.high, bottom, 10, vertical.log);
  const marks = labelledTicks(y, chart.y, chart.size === "tall" ? 5 : 3);
  const left = Math.ceil(Math.max(...marks.map((mark) => mark.text.length)) * LETTER) + 12;
  const labels = chart.series.map((series) => series.label.length);
  const right = width - 12 - Math.ceil(Math.max(0, ...labels) * (LETTER + 0.6));
  const [low, high] = horizontalDomain(chart);
  const x = makeScale(low, high, left + 1, right, false);
  drawing.append(...horizontalGrid(marks, y, left, right));
  drawing.append(...horizontalAxis(chart, x, left, right, bottom));
  const drawn = chart.series.map((series) => drawSeries(series, chart.xs, { x, y }));
  const points = drawn.flatMap(({ points }) => points).filter(Boolean);
  for (const rule of chart.rules) drawing.append(ruleAcross(rule, y, left, right, points));
  for (const [i, series] of chart.series.entries()) {
    const { group, last } = drawn[i];
    drawing.append(group);
    if (series.label && last) {
      const end = Math.max(last[0], series.mark === "steps" ? right : 0);
      drawing.append(...endOf(series, [end, last[1]]));
    }
  }
  if (!chart.xs.length) {
    drawing.append(svg("text", { class: "empty", x: (left + right) / 2, y: bottom / 2, "text-anchor": "middle" }, "no epoch has ended yet"));
  }
  drawing.places = chart.xs.map((value) => x(value));
  drawing.append(svg("line", { class: "cursor", y1: 10, y2: bottom, visibility: "hidden" }));
  return drawing;
}

function horizontalGrid(marks, y, left, right) {
  return marks.flatMap((mark) => [
    svg("line", { class: "grid", x1: left, x2: right, y1: y(mark.value).toFixed(1), y2: y(mark.value).toFixed(1) }),
    svg("text", { class: "mark", x: left - 8, y: (y(mark.value) + 4).toFixed(1), "text-anchor": "end" }, mark.text),
  ]);
}

function horizontalAxis(chart, x, left, right, bottom) {
  const widest = Math.max(...[x.low, x.high].map((value) => tickText(value, chart.x, (x.high - x.low) / 5).length));
  const room = Math.max(2, Math.floor((right - left) / (widest * LETTER + 26)));
  const ticks = labelledTicks(x, chart.x, Math.min(8, room));
  return [
    svg("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }),
    ...ticks.flatMap((tick) => [
      svg("line", { class: "axis", x1: x(tick.value), x2: x(tick.value), y1: bottom, y2: bottom + 4 }),
      svg("text", { class: "mark", x: x(tick.value), y: bottom + 18, "text-anchor": "middle" }, tick.text),
    ]),
    svg("text", { class: "mark name", x: right, y: bottom + 36, "text-anchor": "end" }, chart.x.label),
  ];
}

/** A line across, and its label where no series passes. */
function ruleAcross(rule, y, left, right, points) {
  const at = y(rule.y);
  const width = rule.label.length * (LETTER + 0.4);
  const middle = (left + right - width) / 2;
  const spots = [at - 6, at + 15].flatMap((base) => [left + 6, middle, right - width - 10].map((start) => [start, base]));
  const free = spots.find(([start, base]) => !passes(points, start - 4, start + width + 4, base - 14, base + 5));
  const [start, base] = free ?? spots[0];
  return svg(
    "g",
    { class: "rule" },
    svg("line", { x1: left, x2: right, y1: at.toFixed(1), y2: at.toFixed(1) }),
    svg("text", { x: start.toFixed(1), y: base.toFixed(1) }, rule.label),
  );
}

/** Whether the line through the points passes through a box. */
function passes(points, left, right, top, bottom) {
  return points.some(([x, y], i) => {
    const [x2, y2] = points[i + 1] ?? [x, y];
    if (x2 < left || x > right) return false;
    const height = (place) => (x2 === x ? y : y + ((y2 - y) * (Math.min(Math.max(place, x), x2) - x)) / (x2 - x));
    const [from, to] = [height(left), height(right)];
    return Math.max(from, to) >= top && Math.min(from, to) <= bottom;
  });
}

/** The last value of a series, written beside it. */
function endOf(series, [x, y]) {
  return [
    series.mark === "line" ? svg("circle", { class: `end tone-${series.tone}`, cx: x.toFixed(1), cy: y.toFixed(1), r: 4.5 }) : null,
    svg("text", { class: `last tone-${series.tone}`, x: (x + 9).toFixed(1), y: (y + 4.5).toFixed(1) }, series.label),
  ].filter(Boolean);
}

/** Shows the row of the point that is nearest to the pointer; the table has the same for everybody. */
function followPointer(frame, drawing, chart) {
  const tip = html("div", { class: "tip", "aria-hidden": "true", hidden: true });
  frame.append(tip);
  const cursor = drawing.querySelector(".cursor");
  const hide = () => {
    tip.hidden = true;
    cursor.setAttribute("visibility", "hidden");
  };
  drawing.addEventListener("pointerleave", hide);
  drawing.addEventListener("pointermove", (event) => {
    const at = event.clientX - drawing.getBoundingClientRect().left;
    const nearest = drawing.places.reduce((best, place, i) => (Math.abs(place - at) < Math.abs(drawing.places[best] - at) ? i : best), 0);
    const row = chart.table.rows[nearest];
    tip.replaceChildren(...chart.table.head.map((name, i) => html("div", {}, html("span", {}, name), html("b", {}, row[i]))));
    tip.hidden = false;
    const place = drawing.places[nearest];
    cursor.setAttribute("x1", place);
    cursor.setAttribute("x2", place);
    cursor.setAttribute("visibility", "visible");
    const beside = place + 14 + tip.offsetWidth > frame.clientWidth ? place - 14 - tip.offsetWidth : place + 14;
    tip.style.left = `${Math.max(0, beside)}px`;
  });
}
