// The plots of the overview: uPlot, with the colours of the page, loaded again every ten seconds.
"use strict";
(() => {
  const main = document.getElementById("plot-quality");
  if (!main || !window.uPlot) return;
  const RELOAD_MS = 10000;
  const names = main.dataset.names.split("|");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  let measure = "hit", found = null, plots = [], again = false;

  const percent = (value) => value == null ? "–" : `${value.toFixed(2)} %`;
  const whole = (value) => value == null ? "–" : Math.round(value).toLocaleString();
  const styles = () => [
    {stroke: colour("accent"), width: 2.5},
    {stroke: colour("rival-1"), width: 1.5},
    {stroke: colour("rival-2"), width: 1.5, dash: [7, 4]},
    {stroke: colour("rival-3"), width: 1.5, dash: [2, 3]},
  ];
  const clock = new Intl.DateTimeFormat(undefined, {hour: "2-digit", minute: "2-digit"});
  const day = new Intl.DateTimeFormat(undefined, {month: "short", day: "numeric"});
  const exact = new Intl.DateTimeFormat(undefined, {hour: "2-digit", minute: "2-digit", second: "2-digit"});
  const times = (_, ticks, axis, space, step) => {
    const form = step >= 86400 ? day : step >= 60 ? clock : exact;
    return ticks.map((t) => form.format(new Date(t * 1000)));
  };
  const axes = (unit) => {
    const font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const common = {stroke: colour("muted"), font, grid: {stroke: colour("line"), width: 1}, ticks: {stroke: colour("line"), width: 1, size: 4}};
    return [{...common, grid: {show: false}, values: times, space: 90}, {...common, size: 52, values: (_, ticks) => ticks.map((t) => unit(t))}];
  };
  // A line where another version began to answer.
  const swaps = {hooks: {draw: [(plot) => {
    const {ctx, bbox} = plot, ratio = devicePixelRatio;
    ctx.save();
    ctx.font = `${11 * ratio}px ${getComputedStyle(document.body).fontFamily}`;
    ctx.textAlign = "left";
    let free = -Infinity;
    for (const [at, version] of found.versions) {
      const x = Math.round(plot.valToPos(at, "x", true));
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.strokeStyle = colour("muted"); ctx.globalAlpha = .45; ctx.lineWidth = ratio; ctx.setLineDash([3 * ratio, 3 * ratio]);
      ctx.beginPath(); ctx.moveTo(x, bbox.top); ctx.lineTo(x, bbox.top + bbox.height); ctx.stroke();
      const text = String(Number(version) || version), width = ctx.measureText(text).width;
      if (x < free) continue;
      ctx.globalAlpha = 1; ctx.fillStyle = colour("muted");
      ctx.fillText(text, Math.min(x + 3 * ratio, bbox.left + bbox.width - width), bbox.top + 11 * ratio);
      free = x + width + 8 * ratio;
    }
    ctx.restore();
  }]}};

  const full = new Intl.DateTimeFormat(undefined, {dateStyle: "medium", timeStyle: "short"});
  const when = {label: "time", value: (_, t) => t == null ? "–" : full.format(new Date(t * 1000))};
  const column = (values) => values || [];
  const draw = () => {
    plots.forEach((plot) => plot.destroy());
    plots = [];
    again = false;
    const quality = styles().map((style, n) => ({...style, label: names[n], points: {show: false}, value: (_, v) => percent(v)}));
    const narrow = innerWidth < 640;
    make(main, narrow ? 190 : 240, [when, ...quality], (v) => `${+v.toFixed(2)} %`, () => found[measure].map(column), [swaps]);
    const latency = [
      {label: "median", stroke: colour("accent"), width: 2, points: {show: false}, value: (_, v) => v == null ? "–" : `${whole(v)} ms`},
      {label: "slowest", stroke: colour("rival-1"), width: 1, points: {show: false}, value: (_, v) => v == null ? "–" : `${whole(v)} ms`},
    ];
    make(document.getElementById("plot-latency"), 125, [when, ...latency], whole, () => found.latency);
    const lag = [
      {label: "waiting", stroke: colour("accent"), width: 2, points: {show: false}, value: (_, v) => whole(v)},
      {label: "applied a second", stroke: colour("rival-1"), width: 1, dash: [7, 4], points: {show: false}, value: (_, v) => v == null ? "–" : `${whole(v)}/s`},
    ];
    make(document.getElementById("plot-lag"), 125, [when, ...lag], whole, () => found.lag);
  };
  const make = (into, height, series, unit, columns, plugins = []) => {
    into.textContent = "";
    const known = columns().some((values) => values.some((v) => v != null));
    if (found.t.length < 2 || !known) {
      const text = document.createElement("p");
      text.className = "muted";
      text.textContent = found.t.length < 2 ? "Collecting: the first line comes after twenty seconds." : into.dataset.none;
      into.append(text);
      again = true;
      return;
    }
    const plot = new uPlot({
      width: into.clientWidth, height, series, plugins, axes: axes(unit),
      scales: {y: {range: (_, low, high) => [0, Math.max(high * 1.1, 1e-9) || 1]}},
      cursor: {points: {size: 6}, drag: {x: true, y: false}}, legend: {live: true},
    }, [found.t, ...columns()], into);
    plot.columns = columns;
    plots.push(plot);
  };
  const describe = () => {
    const last = found[measure].map((values) => values.findLast((v) => v != null));
    if (last[0] == null) return;
    const words = names.map((name, n) => `${name} ${percent(last[n])}`).join(", ");
    main.setAttribute("aria-label", `Plot of the live quality, ${measure === "hit" ? "Hit@10" : "NDCG@10"}. Last values: ${words}. The table below has more.`);
  };
  const load = async () => {
    try {
      const response = await fetch(main.dataset.source, {signal: AbortSignal.timeout(8000)});
      if (!response.ok) return;
      found = await response.json();
      if (plots.length && !again) plots.forEach((plot) => plot.setData([found.t, ...plot.columns()]));
      else draw();
      describe();
    } catch { /* the next time */ }
  };
  for (const button of document.querySelectorAll("[data-measure]")) {
    button.addEventListener("click", () => {
      measure = button.dataset.measure;
      for (const other of document.querySelectorAll("[data-measure]")) other.setAttribute("aria-pressed", other === button);
      if (found) { draw(); describe(); }
    });
  }
  let resized = 0;
  const redraw = () => { clearTimeout(resized); resized = setTimeout(() => found && draw(), 150); };
  addEventListener("resize", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  load();
  setInterval(() => { if (!document.hidden) load(); }, RELOAD_MS);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) load(); });
})();
