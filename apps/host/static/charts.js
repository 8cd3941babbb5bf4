// Draws the charts of a page with Chart.js, in the colours of the page; it knows no app.
// A chart is <figure data-chart="ID"> with a <canvas>, and <script type="application/json" id="ID"> beside it:
// {type: "bar" | "line", stacked, labels, series: [{label, values}], unit: "usd" | "count" | "seconds", links: [url],
//  horizontal: bars from left to right, for labels that are long}

const SERIES = ["--chart-1", "--chart-2", "--chart-3", "--chart-4", "--chart-5", "--chart-6", "--chart-7", "--chart-8"];
const MOTION = window.matchMedia("(prefers-reduced-motion: reduce)");
const DARK = window.matchMedia("(prefers-color-scheme: dark)");
const ROW_PX = 26;
const LETTER_PX = 7.5;
const drawn = new Map();
let library = null;

/** Draws every chart in `root` that is not drawn yet. */
export async function draw(root) {
  const figures = [...root.querySelectorAll("[data-chart]")];
  if (root.matches("[data-chart]")) figures.push(root);
  library ??= load("/static/vendor/chart.js");
  await library;
  for (const [figure, chart] of drawn) {
    if (figure.isConnected) continue;
    chart.destroy();
    drawn.delete(figure);
  }
  for (const figure of figures) if (!drawn.has(figure)) drawn.set(figure, make(figure));
}

function load(url) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = url;
    script.addEventListener("load", resolve);
    script.addEventListener("error", () => reject(new Error(`${url} cannot be loaded`)));
    document.head.append(script);
  });
}

function make(figure) {
  window.Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
  const data = JSON.parse(document.getElementById(figure.dataset.chart).textContent);
  let canvas = figure.querySelector("canvas");
  if (!canvas) {
    const box = document.createElement("div");
    box.className = "chart-box";
    canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", "A chart; the table has the same figures");
    box.append(canvas);
    figure.append(box);
  }
  if (data.horizontal) canvas.parentElement.style.height = `${data.labels.length * ROW_PX + 80}px`;
  return new window.Chart(canvas, { type: data.type, data: dataOf(data), options: optionsOf(data) });
}

function dataOf(data) {
  const colors = SERIES.map(color);
  const isLine = data.type === "line";
  return {
    labels: data.labels,
    datasets: data.series.map((row, index) => ({
      label: row.label,
      data: row.values,
      backgroundColor: colors[index % colors.length],
      borderColor: colors[index % colors.length],
      borderWidth: isLine ? 2 : 0,
      borderDash: isLine && index >= colors.length ? [4, 3] : [],
      borderRadius: isLine ? 0 : 3,
      maxBarThickness: 48,
      pointRadius: isLine ? 2.5 : 0,
      pointHitRadius: 12,
      tension: 0.2,
      spanGaps: true,
    })),
  };
}

function optionsOf(data) {
  const [ink, line, paper] = ["--muted", "--line", "--card"].map(color);
  const axis = { stacked: Boolean(data.stacked), border: { display: false }, ticks: { color: ink, maxRotation: 0 } };
  const skips = data.horizontal ? { autoSkip: false, callback: label } : { autoSkipPadding: 12 };
  const names = { ...axis, grid: { display: false }, ticks: { ...axis.ticks, ...skips } };
  const values = {
    ...axis,
    beginAtZero: true,
    grid: { color: line },
    ticks: { ...axis.ticks, maxTicksLimit: 6, callback: (value) => written(value, data.unit) },
  };
  return {
    responsive: true,
    maintainAspectRatio: false,
    indexAxis: data.horizontal ? "y" : "x",
    animation: MOTION.matches ? false : { duration: 250 },
    interaction: { mode: "index", intersect: false, axis: data.horizontal ? "y" : "x" },
    onClick: (event, _, chart) => follow(event, chart, data),
    onHover: (event, items) => {
      event.native.target.style.cursor = data.links && items.length ? "pointer" : "default";
    },
    scales: data.horizontal ? { x: values, y: names } : { x: names, y: values },
    plugins: {
      legend: {
        display: data.series.length > 1,
        position: "bottom",
        labels: { color: color("--ink"), boxWidth: 12, boxHeight: 12, padding: 14 },
      },
      tooltip: {
        backgroundColor: color("--ink"),
        titleColor: paper,
        bodyColor: paper,
        footerColor: paper,
        padding: 10,
        filter: (item) => !data.stacked || item.raw !== 0,
        callbacks: {
          label: (item) => ` ${item.dataset.label}: ${written(item.raw, data.unit)}`,
          footer: (items) =>
            data.stacked && items.length > 1
              ? `Total: ${written(items.reduce((sum, item) => sum + (item.raw ?? 0), 0), data.unit)}`
              : "",
        },
      },
    },
  };
}

/** The name beside a horizontal bar, cut to what half of the chart's width holds. */
function label(index) {
  const text = this.getLabelForValue(index);
  const most = Math.max(12, Math.floor(this.chart.width / 2 / LETTER_PX));
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

function follow(event, chart, data) {
  if (!data.links) return;
  const [item] = chart.getElementsAtEventForMode(event, "index", chart.options.interaction, true);
  const url = item && data.links[item.index];
  if (url && new URL(url, location.href).origin === location.origin) location.assign(url);
}

/** A value with its unit, as the tables write it. */
function written(value, unit) {
  if (value === null || value === undefined) return "–";
  if (unit === "usd") {
    const size = Math.abs(value);
    const digits = size >= 1 ? 2 : size >= 0.001 ? 4 : size === 0 ? 0 : Math.min(7, 1 - Math.floor(Math.log10(size)));
    const isCents = Math.abs(size * 100 - Math.round(size * 100)) < 1e-7;
    const shortest = digits === 4 && !isCents ? 4 : Math.min(digits, 2);
    const text = size.toLocaleString("en", { minimumFractionDigits: shortest, maximumFractionDigits: digits });
    return `${value < 0 ? "-" : ""}$${text}`;
  }
  if (unit === "seconds") return value > 0 && value < 1 ? `${Math.round(value * 1000)} ms` : `${number(value)} s`;
  return number(value);
}

const number = (value) => value.toLocaleString("en", { maximumFractionDigits: 1 });

/** What a colour variable of the page comes to now. */
function color(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  probe.hidden = true;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function redraw() {
  for (const [figure, chart] of drawn) {
    chart.destroy();
    drawn.set(figure, make(figure));
  }
}

document.addEventListener("muse:theme", redraw);
DARK.addEventListener("change", redraw);
