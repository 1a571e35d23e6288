// Draws the charts that the application/json scripts of the page describe.
(() => {
  const COLORS = ["#5b7db1", "#d9903d", "#c0392b", "#4f9d69", "#8e6bb0", "#8a8a8a"];
  const textColor = () => getComputedStyle(document.body).color;

  const axis = (options) => ({ stroke: textColor, grid: { stroke: "#8884", width: 1 }, ticks: { stroke: "#8884" }, ...options });
  const format = (value) => value == null ? "–" : value >= 100 ? value.toFixed(0) : value >= 1 ? value.toFixed(2) : value.toPrecision(2);

  function buildLines(chart, width) {
    return {
      options: {
        title: chart.title, width, height: 260,
        scales: { x: { time: true }, y: { range: (u, low, high) => [0, high > 0 ? high * 1.05 : 1] } },
        series: [{}, ...chart.series.map((series, n) => ({
          label: `${series.label}, ${chart.unit}`, stroke: COLORS[n % COLORS.length], width: 1.5, spanGaps: false,
          points: { show: chart.x.length < 60 }, value: (u, value) => format(value),
        }))],
        axes: [axis(), axis({ size: 70 })],
      },
      data: [chart.x, ...chart.series.map((series) => series.values)],
    };
  }

  function buildBars(chart, width) {
    const positions = chart.labels.map((_, n) => n);
    return {
      options: {
        title: chart.title, width, height: 260,
        scales: { x: { time: false, range: () => [-0.6, positions.length - 0.4] }, y: { range: (u, low, high) => [0, high > 0 ? high * 1.05 : 1] } },
        series: [
          { label: "at", value: (u, value) => chart.labels[value] ?? "–" },
          { label: chart.unit, stroke: COLORS[0], fill: COLORS[0] + "99", paths: uPlot.paths.bars({ size: [0.85, 60] }), points: { show: false } },
        ],
        axes: [axis({ splits: () => positions, values: (u, splits) => splits.map((n) => chart.labels[n]), rotate: -45, size: 60 }), axis({ size: 70 })],
      },
      data: [positions, chart.series[0].values],
    };
  }

  function draw(container, charts) {
    for (const chart of charts) {
      const element = document.createElement("div");
      element.className = "chart";
      container.append(element);
      const build = chart.kind === "lines" ? buildLines : buildBars;
      const { options, data } = build(chart, Math.max(320, container.clientWidth));
      new uPlot(options, data, element);
    }
  }

  for (const container of document.querySelectorAll(".charts")) {
    const groups = JSON.parse(container.querySelector("script").textContent);
    const names = Object.keys(groups);
    const drawn = document.createElement("div");
    if (names.length > 1) {
      const select = document.createElement("select");
      for (const name of names) select.append(new Option(name));
      select.addEventListener("change", () => { drawn.replaceChildren(); draw(drawn, groups[select.value]); });
      container.append(select);
    }
    container.append(drawn);
    if (names.length) draw(drawn, groups[names[0]]);
  }
})();
