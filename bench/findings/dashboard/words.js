// Numbers as text: SI units for bits, per cent for accuracies, fractions of settings as Python gives them.

const SI = [[1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
const isBits = (column) => column.includes("bits") && column !== "bits_over_bound";
const isPercent = (column) => column.endsWith("accuracy");
const isSeconds = (column) => column.endsWith("_s");
const rounded = (value, digits) => Number(value.toPrecision(digits));

// A number in full if it is whole, to so many digits if it is not.
function told(value, digits = 6) {
  if (value === 0) return "0";
  if (Number.isInteger(value) || Math.abs(value) >= 1e6) return Math.round(value).toLocaleString("en");
  return Math.abs(value) < 1e-3 ? value.toExponential(Math.min(3, digits - 1)).replace(/\.?0+e/, "e") : String(rounded(value, digits));
}

function prefixed(value, unit, digits = 4) {
  const [scale, prefix] = SI.find(([scale]) => Math.abs(value) >= scale) ?? [1, ""];
  return `${rounded(value / scale, digits)} ${prefix}${unit}`;
}

// A value of a column of the history, with its unit.
function amount(column, value) {
  if (isBits(column)) return prefixed(value, "bit");
  if (isPercent(column)) return `${rounded(100 * value, 4)} %`;
  if (isSeconds(column)) return `${told(value, 4)} s`;
  return told(value, 6);
}
const amountInFull = (column, value) => (isBits(column) && column !== "message_bits" ? `${amount(column, value)} (${prefixed(value / 8, "B")})` : amount(column, value));

const inWords = (column) => (value) => (value === null ? "" : amount(column, value));

// How an axis writes a column's values.
function axisOf(column, log, title = data.titles[column]) {
  const units = isBits(column) ? { ticksuffix: "bit", tickformat: "~s" }
    : isPercent(column) ? { tickformat: "~%" }
      : isSeconds(column) ? { ticksuffix: " s", tickformat: "~r" }
        : data.costs.includes(column) ? { tickformat: "~s" } : log ? { exponentformat: "power" } : {};
  return { title: { text: title }, type: log ? "log" : "linear", ...units };
}
