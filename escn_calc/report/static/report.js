"use strict";

/* Tables: sorted by their headings, filtered by words, long ones folded. Without scripts they are complete. */

function valueOf(cell, kind) {
  const text = cell.textContent.trim();
  if (kind === "text") return text.toLowerCase();
  const found = text.replaceAll("−", "-").match(/^[+-]?\d+(\.\d+)?/);
  return found ? Number(found[0]) : null;
}

function compare(first, second, direction) {
  const empty = (value) => value === null || value === "";
  if (empty(first) || empty(second)) return empty(first) - empty(second);
  if (typeof first === "number") return direction * (first - second);
  return direction * first.localeCompare(second, "en", { numeric: true });
}

function makeSortable(table) {
  const body = table.tBodies[0];
  const most = Number(table.dataset.most);
  let rows = Array.from(body.rows);
  const words = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  let wanted = [];
  let unfolded = false;

  const tools = document.createElement("div");
  tools.className = "tools";
  const status = document.createElement("span");
  status.setAttribute("role", "status");
  const more = document.createElement("button");
  more.type = "button";
  more.addEventListener("click", () => { unfolded = !unfolded; show(); });

  function show() {
    const matching = rows.filter((row) => wanted.every((word) => words.get(row).includes(word)));
    const shown = new Set(unfolded ? matching : matching.slice(0, most));
    for (const row of rows) row.classList.toggle("folded", !shown.has(row));
    more.hidden = matching.length <= most;
    more.textContent = unfolded ? "Show fewer" : `Show all ${matching.length}`;
    status.textContent = shown.size === rows.length ? "" : `${shown.size} of ${rows.length} rows shown`;
  }

  function sort(column, kind, heading) {
    const ascending = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const keyed = rows.map((row) => [valueOf(row.cells[column], kind), row]);
    keyed.sort((first, second) => compare(first[0], second[0], ascending ? 1 : -1));
    rows = keyed.map((pair) => pair[1]);
    body.append(...rows);
    show();
  }

  Array.from(table.tHead.rows[0].cells).forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sort(column, heading.dataset.kind, heading));
    heading.append(button);
  });
  if (rows.length > 12) {
    const label = document.createElement("label");
    const filter = document.createElement("input");
    filter.type = "search";
    filter.addEventListener("input", () => { wanted = filter.value.toLowerCase().split(/\s+/).filter(Boolean); show(); });
    label.append("Filter ", filter);
    tools.append(label, status, more);
    table.parentNode.before(tools);
  }
  show();
}

for (const table of document.querySelectorAll("table.sortable")) makeSortable(table);

/* Pictures: the first rows, more on demand. */

function foldCards(cards) {
  const all = Array.from(cards.children);
  const more = document.getElementById("more-cards");
  const most = Number(cards.dataset.most);
  if (all.length <= most) return;
  const unfold = () => { all.forEach((card) => card.classList.remove("folded")); more.hidden = true; };
  const unfoldTarget = () => {
    const target = document.getElementById(location.hash.slice(1));
    if (target && target.classList.contains("folded")) { unfold(); target.scrollIntoView(); }
  };
  all.slice(most).forEach((card) => card.classList.add("folded"));
  more.textContent = `Show all ${all.length} structures`;
  more.hidden = false;
  more.addEventListener("click", unfold);
  addEventListener("hashchange", unfoldTarget);
  unfoldTarget();
}

const cards = document.getElementById("cards");
if (cards) foldCards(cards);

/* The 3D view: one viewer, made when it comes into sight, for one structure at a time. */

function makeViewer(box, record) {
  const choice = document.getElementById("viewer-choice");
  const repeat = document.getElementById("viewer-repeat");
  const canvas = document.getElementById("viewer-canvas");
  const note = document.getElementById("viewer-note");
  let viewer = null;
  let direction = "side";

  record.structures.forEach((structure, index) => choice.append(new Option(structure.title, index)));

  function hasWebGL() {
    const probe = document.createElement("canvas");
    return Boolean(probe.getContext("webgl2") || probe.getContext("webgl"));
  }

  function start() {
    if (viewer !== null) return true;
    if (!hasWebGL()) {
      note.textContent = "This browser has no WebGL; the pictures below show the same structures.";
      return false;
    }
    box.classList.add("on");
    viewer = $3Dmol.createViewer(canvas, { backgroundColor: "white", antialias: true, orthographic: true, disableFog: true });
    note.textContent = "Drag to turn, scroll or pinch to zoom.";
    return true;
  }

  function turn() {
    viewer.setView([0, 0, 0, 0, 0, 0, 0, 1]);
    if (direction === "side") viewer.rotate(-80, "x");
    viewer.zoomTo({ model: viewer.getModel() });
    viewer.zoom(0.85);
    viewer.render();
    for (const button of box.querySelectorAll("[data-view]")) button.setAttribute("aria-pressed", button.dataset.view === direction);
  }

  function show() {
    if (!start()) return;
    const structure = record.structures[Number(choice.value)];
    viewer.removeAllModels();
    viewer.removeAllShapes();
    const model = viewer.addModel(structure.xyz, "xyz", { assignBonds: false });
    for (const [symbol, { colour, radius }] of Object.entries(record.elements)) {
      model.setStyle({ elem: symbol }, { sphere: { color: colour, radius } });
    }
    if (model.getCrystData()) {
      viewer.addUnitCell(model, { box: { color: "#444444" }, astyle: { hidden: true }, bstyle: { hidden: true }, cstyle: { hidden: true }, alabel: "", blabel: "", clabel: "" });
      if (repeat.getAttribute("aria-pressed") === "true") viewer.replicateUnitCell(...structure.repeats, 1, model);
    }
    canvas.setAttribute("aria-label", `Interactive 3D view: ${structure.title}`);
    canvas.dataset.shown = choice.value;
    turn();
  }

  choice.addEventListener("change", show);
  repeat.addEventListener("click", () => { repeat.setAttribute("aria-pressed", repeat.getAttribute("aria-pressed") !== "true"); show(); });
  for (const button of box.querySelectorAll("[data-view]")) {
    button.addEventListener("click", () => { direction = button.dataset.view; if (start()) turn(); });
  }
  for (const button of document.querySelectorAll("button.show")) {
    button.addEventListener("click", () => {
      choice.value = button.dataset.structure;
      show();
      box.scrollIntoView({ block: "start" });
    });
  }
  const watch = new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting)) { watch.disconnect(); show(); }
  });
  watch.observe(box);
}

addEventListener("DOMContentLoaded", () => {
  const box = document.getElementById("viewer");
  if (box) makeViewer(box, JSON.parse(document.getElementById("viewer-data").textContent));
});
