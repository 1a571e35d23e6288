// Draws the charts that a page describes in its application/json scripts.
(() => {
  const COLORS = ["#5b7db1", "#d9903d", "#c0392b", "#4f9d69", "#8e6bb0", "#8a8a8a"];
  const ink = () => getComputedStyle(document.body).color;

  const axis = (more) => ({ stroke: ink, grid: { stroke: "#8884", width: 1 }, ticks: { stroke: "#8884" }, ...more });
  const short = (value) => value == null ? "–" : value >= 100 ? value.toFixed(0) : value >= 1 ? value.toFixed(2) : value.toPrecision(2);

  function lines(chart, width) {
    return {
      options: {
        title: chart.title, width, height: 260,
        scales: { x: { time: true }, y: { range: (u, low, high) => [0, high > 0 ? high * 1.05 : 1] } },
        series: [{}, ...chart.series.map((one, n) => ({
          label: `${one.label}, ${chart.unit}`, stroke: COLORS[n % COLORS.length], width: 1.5, spanGaps: false,
          points: { show: chart.x.length < 60 }, value: (u, value) => short(value),
        }))],
        axes: [axis(), axis({ size: 70 })],
      },
      data: [chart.x, ...chart.series.map((one) => one.values)],
    };
  }

  function bars(chart, width) {
    const places = chart.labels.map((_, n) => n);
    return {
      options: {
        title: chart.title, width, height: 260,
        scales: { x: { time: false, range: () => [-0.6, places.length - 0.4] }, y: { range: (u, low, high) => [0, high > 0 ? high * 1.05 : 1] } },
        series: [
          { label: "at", value: (u, value) => chart.labels[value] ?? "–" },
          { label: chart.unit, stroke: COLORS[0], fill: COLORS[0] + "99", paths: uPlot.paths.bars({ size: [0.85, 60] }), points: { show: false } },
        ],
        axes: [axis({ splits: () => places, values: (u, splits) => splits.map((n) => chart.labels[n]), rotate: -45, size: 60 }), axis({ size: 70 })],
      },
      data: [places, chart.series[0].values],
    };
  }

  function draw(room, charts) {
    for (const chart of charts) {
      const place = document.createElement("div");
      place.className = "chart";
      room.append(place);
      const made = (chart.kind === "lines" ? lines : bars)(chart, Math.max(320, room.clientWidth));
      new uPlot(made.options, made.data, place);
    }
  }

  for (const room of document.querySelectorAll(".charts")) {
    const choices = JSON.parse(room.querySelector("script").textContent);
    const names = Object.keys(choices);
    const drawn = document.createElement("div");
    if (names.length > 1) {
      const select = document.createElement("select");
      for (const name of names) select.append(new Option(name));
      select.addEventListener("change", () => { drawn.replaceChildren(); draw(drawn, choices[select.value]); });
      room.append(select);
    }
    room.append(drawn);
    if (names.length) draw(drawn, choices[names[0]]);
  }
})();
