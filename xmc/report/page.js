"use strict";
(() => {
  const PAGE = 25;
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  // Plots: the colours are the page's, so that they follow its scheme.
  function themed(figure) {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const ink = colour("--ink"), quiet = colour("--quiet"), paper = colour("--paper");
    const axis = (given) => ({
      ...given, fixedrange: true, gridcolor: colour("--grid"), linecolor: colour("--line"), tickcolor: colour("--line"),
      tickfont: { color: quiet, size: 11 }, title: { ...given.title, font: { color: quiet, size: 12 } },
    });
    const data = figure.data.map((trace) => {
      const own = trace.meta < 0 ? ink : colour(`--run-${trace.meta % 6}`);
      const marker = { ...trace.marker, color: own };
      if (trace.type === "bar") {
        marker.pattern = { ...marker.pattern, fillmode: "overlay", fgcolor: paper, fgopacity: 0.6 };
        marker.line = { width: 0 };
        return { ...trace, marker };
      }
      return { ...trace, marker, line: { ...trace.line, color: own }, error_y: { ...trace.error_y, color: own } };
    });
    const shapes = (figure.layout.shapes ?? []).map((shape) => ({ ...shape, line: { ...shape.line, color: quiet } }));
    const layout = {
      ...figure.layout, shapes, dragmode: false, xaxis: axis(figure.layout.xaxis), yaxis: axis(figure.layout.yaxis),
      font: { family: getComputedStyle(document.body).fontFamily, color: ink, size: 12 },
      hoverlabel: { ...figure.layout.hoverlabel, bgcolor: colour("--raised"), bordercolor: colour("--line"), font: { color: ink } },
    };
    return [data, layout];
  }

  function draw() {
    for (const place of document.querySelectorAll("[data-figure]")) {
      const [data, layout] = themed(figures[place.dataset.figure]);
      Plotly.react(place, data, layout, { displayModeBar: false, responsive: true });
    }
  }

  // Tables: a button in a heading sorts by its column, and once more the other way round.
  function valueOf(cell) {
    const text = cell.dataset.value ?? cell.textContent.trim();
    const number = Number(text);
    return text !== "" && Number.isFinite(number) ? number : text.toLowerCase();
  }

  function compare(first, second) {
    if (typeof first === "number" && typeof second === "number") return first - second;
    return String(first).localeCompare(String(second));
  }

  function sortBy(table, heading) {
    const column = [...heading.parentNode.children].indexOf(heading);
    const before = heading.getAttribute("aria-sort");
    const rising = before === "none" ? !heading.classList.contains("number") : before === "descending";
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [valueOf(row.cells[column]), row]);
    rows.sort(([first], [second]) => (rising ? compare(first, second) : compare(second, first)));
    for (const other of heading.parentNode.querySelectorAll("[aria-sort]")) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
    body.append(...rows.map(([, row]) => row));
  }

  // Queries: some at a time, those that match.
  const table = document.getElementById("query-table");
  const find = document.getElementById("find"), cause = document.getElementById("cause");
  const picked = document.getElementById("picked"), count = document.getElementById("count");
  const more = document.getElementById("more");
  const texts = new Map([...table.tBodies[0].rows].map((row) => [row, row.textContent.toLowerCase()]));
  let most = PAGE;

  function refresh() {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let matching = 0;
    for (const row of table.tBodies[0].rows) {
      const matches = words.every((word) => texts.get(row).includes(word))
        && (!cause.value || row.dataset.causes.split(" ").includes(cause.value))
        && (!picked.value || row.dataset.picked === picked.value);
      matching += matches;
      row.hidden = !matches || matching > most;
    }
    const shown = Math.min(most, matching);
    count.textContent = shown < matching ? `${shown} of ${matching} queries` : `${matching} ${matching === 1 ? "query" : "queries"}`;
    more.hidden = shown === matching;
  }

  for (const sortable of document.querySelectorAll("table.sortable")) {
    sortable.tHead.addEventListener("click", (event) => {
      const heading = event.target.closest("th[aria-sort]");
      if (!heading || !event.target.closest("button")) return;
      sortBy(sortable, heading);
      if (sortable === table) refresh();
    });
  }
  for (const control of [find, cause, picked]) {
    for (const event of ["input", "change"]) control.addEventListener(event, () => { most = PAGE; refresh(); });
  }
  document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => { most += PAGE; refresh(); });

  refresh();
  draw();
  dark.addEventListener("change", draw);
})();
