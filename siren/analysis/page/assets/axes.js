// Axes: where the marks stand, what is written at them, and how numbers become pixels.

/** A step of 1, 2 or 5 times a power of ten that divides `span` into at most `count` parts. */
function niceStep(span, count, whole) {
  const raw = span / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999) * power;
  return whole ? Math.max(1, Math.round(step)) : step;
}

/** Round numbers from `low` to `high`. */
function linearTicks(low, high, count, whole) {
  const step = niceStep(high - low, count, whole);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => (first + i) * step);
}

/** 1, 2 and 5 of each power of ten from `low` to `high`; powers alone where there are many. */
function logTicks(low, high, count) {
  const factors = high / low < 1e3 ? [1, 2, 5] : [1];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const factor of factors) {
      const value = Number(`${factor}e${power}`);
      if (value >= low && value <= high) ticks.push(value);
    }
  }
  if (ticks.length < 2) return linearTicks(low, high, count, false);
  const every = Math.ceil(ticks.length / (count + 2));
  return ticks.filter((_, i) => i % every === 0);
}

/** A number as it stands at an axis whose marks are `step` apart. */
function tickText(value, axis, step) {
  let decimals = axis.whole ? 0 : Math.min(8, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
  if (axis.prefix === "$" && decimals === 1) decimals = 2;
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e7)) return `${axis.prefix}${value.toExponential(0)}`;
  return axis.prefix + value.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
}

/** Marks with their texts: those of a logarithmic axis have as many decimals as each needs. */
function labelledTicks(scale, axis, count) {
  const values = scale.log
    ? logTicks(scale.low, scale.high, count)
    : linearTicks(scale.low, scale.high, count, axis.whole);
  const step = values.length > 1 ? values[1] - values[0] : scale.high - scale.low || 1;
  return values.map((value) => {
    const own = scale.log && scale.high / scale.low > 10 ? value : step;
    return { value, text: tickText(value, axis, own) };
  });
}

/** A function from numbers to pixels, with the domain that it covers. */
function makeScale(low, high, from, to, log) {
  const place = log ? Math.log : (value) => value;
  const [start, end] = [place(low), place(high)];
  const scale = (value) => from + ((place(value) - start) / (end - start)) * (to - from);
  return Object.assign(scale, { low, high, log });
}

/** The domain of the vertical axis: every value and line, and some room. */
function verticalDomain(chart) {
  const values = chart.series.flatMap((series) => [...series.y, ...series.low]).filter((value) => value !== null);
  values.push(...chart.rules.map((rule) => rule.y));
  if (values.length === 0) return { low: 0, high: 1, log: false };
  let low = Math.min(...values);
  let high = Math.max(...values);
  if (chart.y.log && low > 0) {
    const room = Math.max(high / low, 1.0001) ** 0.08;
    return { low: low / room, high: high * room, log: true };
  }
  if (chart.y.zero) low = Math.min(0, low);
  if (high === low) high = low + (Math.abs(low) || 1);
  return { low: chart.y.zero ? low : low - 0.06 * (high - low), high: high + 0.1 * (high - low), log: false };
}

/** The domain of the horizontal axis; what stands around its points has half a step on both sides. */
function horizontalDomain(chart) {
  const around = chart.series.some((series) => series.mark === "steps" || series.mark === "bars");
  if (chart.xs.length === 0) return around ? [0.5, 1.5] : [0, 1];
  const [first, last] = [chart.xs[0], chart.xs[chart.xs.length - 1]];
  if (around) return [first - 0.5, last + 0.5];
  return [first, last > first ? last : first + 1];
}
