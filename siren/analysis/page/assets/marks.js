// Marks: what a series looks like, from pixels.

/** Corners of a level line around each point; `half` is half of the distance between two. */
function levels(points, half) {
  return points.map((point) => point && [[point[0] - half, point[1]], [point[0] + half, point[1]]]);
}

/** Corners of a level line from each point to the next. */
function holds(points) {
  return points.map((point, i) => {
    const next = points[i + 1];
    return point && [point, [next ? next[0] : point[0], point[1]]];
  });
}

/** The path through groups of corners; a missing group breaks it. */
function pathThrough(groups) {
  let pen = "M";
  const parts = [];
  for (const group of groups) {
    if (!group) {
      pen = "M";
      continue;
    }
    for (const [x, y] of group) {
      parts.push(`${pen}${x.toFixed(1)} ${y.toFixed(1)}`);
      pen = "L";
    }
  }
  return parts.join("");
}

/** The closed area between corners above and corners below; missing ones leave a gap. */
function areaBetween(above, below) {
  return above
    .map((group, i) => (group && below[i] ? `${pathThrough([[...group, ...below[i].slice().reverse()]])}Z` : ""))
    .join("");
}

/** Draws one series. */
function drawSeries(series, xs, scales) {
  const { x, y } = scales;
  const at = (values) => xs.map((value, i) => (values[i] === null || values[i] === undefined ? null : [x(value), y(values[i])]));
  const points = at(series.y);
  const group = svg("g", { class: `series tone-${series.tone}`, "data-series": series.name });
  const half = xs.length > 1 ? (x(xs[1]) - x(xs[0])) / 2 : (x(x.high) - x(x.low)) / 2;
  if (series.mark === "line") {
    group.append(svg("path", { class: "line", d: pathThrough(points.map((point) => point && [point])) }));
    if (points.length <= 60) drawDots(group, points);
  } else if (series.mark === "hold") {
    group.append(svg("path", { class: "line", d: pathThrough(holds(points)) }));
  } else if (series.mark === "band") {
    // Its last level reaches to the point after it.
    const upTo = (values) => holds(at(values)).map((pair, i) => pair && xs[i + 1] !== undefined && [pair[0], [x(xs[i + 1]), pair[0][1]]]);
    group.append(svg("path", { class: "area", d: areaBetween(upTo(series.y), upTo(series.low)) }));
  } else if (series.mark === "steps") {
    const above = levels(points, half);
    const floor = points.map((point) => point && [point[0], y(Math.max(0, y.low))]);
    group.append(svg("path", { class: "wash", d: areaBetween(above, levels(floor, half)) }));
    group.append(svg("path", { class: "line", d: pathThrough(above) }));
  } else {
    const gap = half > 4 ? Math.min(half * 0.16, 4) : 0;
    const low = at(series.low);
    const bars = points.map((point, i) => point && low[i] && barPath(point, low[i], half - gap));
    group.append(svg("path", { class: "bar", d: bars.filter(Boolean).join("") }));
  }
  return { group, points, last: points.filter(Boolean).pop() };
}

function barPath([x, top], [, bottom], half) {
  return `M${(x - half).toFixed(2)} ${bottom.toFixed(2)}V${top.toFixed(2)}H${(x + half).toFixed(2)}V${bottom.toFixed(2)}Z`;
}

function drawDots(group, points) {
  for (const point of points.filter(Boolean)) {
    group.append(svg("circle", { class: "dot", cx: point[0].toFixed(1), cy: point[1].toFixed(1), r: 2.6 }));
  }
}
