// Named amounts as horizontal bars.

const ROW = 34;

/** Draws the bars of a chart, `width` pixels wide. */
function drawAmounts(chart, width) {
  const count = chart.names.length;
  const drawing = canvas(width, Math.max(1, count) * ROW + 4);
  if (count === 0) {
    drawing.append(svg("text", { class: "empty", x: width / 2, y: 22, "text-anchor": "middle" }, "nothing has been billed yet"));
    return drawing;
  }
  const longest = (texts) => Math.ceil(Math.max(...texts.map((text) => text.length)) * (LETTER + 0.3));
  const left = longest(chart.names) + 12;
  const room = Math.max(20, width - left - longest(chart.texts) - 10);
  const highest = Math.max(...chart.values);
  chart.names.forEach((name, i) => {
    const middle = i * ROW + ROW / 2;
    const length = highest > 0 ? (chart.values[i] / highest) * room : 0;
    drawing.append(
      svg("text", { class: "mark item", x: left - 12, y: middle + 4.5, "text-anchor": "end" }, name),
      svg("rect", { class: "bar tone-main", x: left, y: middle - 9, width: Math.max(1.5, length).toFixed(1), height: 18 }),
      svg("text", { class: "mark amount", x: (left + Math.max(1.5, length) + 8).toFixed(1), y: middle + 4.5 }, chart.texts[i]),
    );
  });
  return drawing;
}
