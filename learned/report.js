"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const COLOURS = ["#3b7dd8", "#e07b39", "#2f9e5f", "#cf4f4f", "#8d6cc3", "#a07a4f", "#d065a5", "#808890", "#9c9a2b",
                 "#2fa3b3", "#5f5fe0", "#c0902a"];
let table;  // the one of data.tables that is shown

// An element; children are nodes or texts, which are never read as HTML.
function el(tag, attributes = {}, ...children) {
  const svg = ["svg", "line", "path", "circle", "rect", "text", "title", "g"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter(child => child !== null && child !== undefined));
  return node;
}

const shotsText = n => n === -1 ? "all images" : `${n} shot${n === 1 ? "" : "s"}`;
const fixed = (x, digits = 2) => x === null || x === undefined ? "" : x.toFixed(digits);
const number = (x, digits) => ({text: fixed(x, digits), value: x});
const accuracy = (pair, bold) => pair
  ? {text: fixed(pair[0]) + (pair[1] === null ? "" : ` ± ${fixed(pair[1])}`), value: pair[0], bold}
  : {text: "", value: null};
const heat = (share, wrong) => `background: rgb(var(--${wrong ? "wrong" : "heat"}) / ${(0.75 * share).toFixed(3)})`;

function td(cell, first) {
  if (typeof cell === "string") cell = {text: cell};
  const content = cell.node ?? (cell.bold ? el("strong", {}, cell.text) : cell.text);
  return first ? el("th", {scope: "row"}, content)
    : el("td", {class: cell.kind, style: cell.style, title: cell.title}, content);
}

// A table in a box of its own. Headers are texts; cells are texts or {text, value, bold, style, title, kind, node}, of
// which `value` sorts.
function makeTable(caption, headers, rows, {sort = true, kind = ""} = {}) {
  const body = el("tbody", {}, rows.map(row => el("tr", {}, row.map((cell, i) => td(cell, i === 0)))));
  const lines = rows.map((row, i) => ({row, tr: body.children[i]}));
  const key = (line, column) => {
    const cell = line.row[column];
    return typeof cell === "string" ? cell : cell.value === undefined ? cell.text : cell.value;
  };
  const heads = headers.map((text, column) => {
    const words = rows.some(row => row[column].kind);
    const th = el("th", {scope: "col", class: `${words ? "text" : ""} ${text.length > 14 ? "wrap" : ""}`});
    const by = () => {
      const up = th.getAttribute("aria-sort") === "descending"
        || (!th.hasAttribute("aria-sort") && lines.some(line => typeof key(line, column) === "string"));
      heads.forEach(head => head.removeAttribute("aria-sort"));
      th.setAttribute("aria-sort", up ? "ascending" : "descending");
      const compare = (a, b) => a === null || b === null ? (a === null) - (b === null)  // no value comes last
        : (up ? 1 : -1) * (typeof a === "number" ? a - b : a.localeCompare(b, undefined, {numeric: true}));
      body.append(...[...lines].sort((a, b) => compare(key(a, column), key(b, column))).map(line => line.tr));
    };
    th.append(sort && rows.length > 1 ? el("button", {type: "button", onclick: by}, text) : text);
    return th;
  });
  return el("div", {class: `box ${kind}`, tabindex: 0, role: "region", "aria-label": caption},
    el("table", {class: kind}, el("caption", {}, el("span", {}, caption)), el("thead", {}, el("tr", {}, heads)), body));
}

// A labelled select box of [[value, text], ...] that calls `change`.
function choice(label, options, change) {
  const select = el("select", {onchange: () => change(select.value), name: label});
  const node = el("label", {}, label, select);
  node.fill = (list, value) => {
    const kept = value ?? select.value;
    select.replaceChildren(...list.map(([v, text]) => el("option", {value: String(v)}, text)));
    if (list.some(([v]) => String(v) === String(kept))) select.value = kept;
  };
  node.fill(options);
  Object.defineProperty(node, "value", {get: () => select.value});
  return node;
}

function section(id, title, ...children) {
  return el("section", {id}, el("h2", {}, title), ...children);
}

function results() {
  const columns = table.shots.map(shotsText).concat("average");
  const rows = table.rows.map((row, i) => [row.name,
    {text: row.params, value: Number(row.params.split(" ")[0].replaceAll(",", ""))},
    {text: row.minutes, value: row.minutes === "" ? null : Number(row.minutes)},
    ...[...row.cells, row.average].map((pair, j) => accuracy(pair, table.best[j].includes(i)))]);
  return section("results", "Results",
    makeTable(`${table.title}: accuracy in percent, mean ± standard deviation over seeds`,
      ["method", "#Params", "train (min)", ...columns], rows), chart());
}

// Accuracy against shots, or bars where there is one number of shots; drawn anew for each width.
function chart() {
  const hidden = new Set(), place = el("div");
  const which = choice("Chart of", [["", "average over the tasks"], ...table.tasks.map(([name], t) => [t, name])],
    draw);
  const legend = el("div", {class: "legend"}, table.rows.map((row, k) => {
    const button = el("button", {type: "button", "aria-pressed": "true", onclick: () => {
      hidden[hidden.has(k) ? "delete" : "add"](k);
      button.setAttribute("aria-pressed", !hidden.has(k));
      draw();
    }}, el("span", {style: `background: ${COLOURS[k % COLOURS.length]}`}), row.name);
    return button;
  }));
  function points(row) {
    return which.value === "" ? row.cells.length ? row.cells : [row.average]
      : row.per_task.map(own => own && own[which.value]);
  }
  function draw() {
    const width = Math.max(280, Math.min(place.clientWidth || 720, 820));
    const shown = table.rows.map((row, k) => ({row, k, pairs: points(row)})).filter(line => !hidden.has(line.k));
    place.replaceChildren((table.shots.length > 1 ? drawLines : drawBars)(shown, width));
  }
  new ResizeObserver(draw).observe(place);
  return el("div", {}, el("h3", {}, "Accuracy against shots"), el("div", {class: "choose"}, which), place, legend);
}

function frame(width, height, text) {
  return el("svg", {width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": text});
}

function drawLines(lines, width) {
  const height = Math.round(Math.min(420, width * 0.7)), [left, right, top, bottom] = [48, 16, 12, 44];
  const svg = frame(width, height, "Accuracy against shots; the tables hold the same numbers");
  const values = lines.flatMap(line => line.pairs.filter(Boolean).flatMap(([m, s]) => [m - (s ?? 0), m + (s ?? 0)]));
  if (!values.length) return svg;
  const span = Math.max(1, Math.max(...values) - Math.min(...values));
  const step = [0.2, 0.5, 1, 2, 5, 10, 20].find(size => span / size <= 6) ?? 25;
  const low = Math.floor(Math.min(...values) / step) * step;
  const high = Math.max(low + step, Math.ceil(Math.max(...values) / step) * step);
  const [first, last] = [Math.log2(table.shots[0]), Math.log2(table.shots.at(-1))];
  const x = n => left + 12 + (width - left - right - 24) * (Math.log2(n) - first) / (last - first);
  const y = value => height - bottom - (height - top - bottom) * (value - low) / (high - low);
  for (let i = 0; low + i * step <= high + 1e-9; i++) {
    const value = low + i * step;
    svg.append(el("line", {x1: left, x2: width - right, y1: y(value), y2: y(value), stroke: "var(--line)"}),
      el("text", {x: left - 8, y: y(value) + 4, "text-anchor": "end"}, String(Number(value.toFixed(1)))));
  }
  const text = (x, y, words, more) => el("text", {x, y, "text-anchor": "middle", ...more}, words);
  svg.append(...table.shots.map(n => text(x(n), height - bottom + 18, String(n))),
    text((left + width - right) / 2, height - 6, "training images per class"),
    text(12, (height - bottom) / 2, "accuracy (%)", {transform: `rotate(-90 12 ${(height - bottom) / 2})`}));
  for (const {row, k, pairs} of lines) {
    const stroke = COLOURS[k % COLOURS.length], group = el("g", {}, el("title", {}, row.name));
    const found = table.shots.map((n, i) => [n, pairs[i]]).filter(([, pair]) => pair);
    const path = found.map(([n, [m]], i) => `${i ? "L" : "M"}${x(n).toFixed(1)} ${y(m).toFixed(1)}`).join("");
    group.append(el("path", {d: path, fill: "none", stroke, "stroke-width": 2,
      "stroke-dasharray": row.zero_shot ? "6 4" : k >= COLOURS.length ? "2 3" : null}));
    for (const [n, [m, s]] of row.zero_shot ? [] : found) {
      if (s !== null) group.append(el("line", {x1: x(n), x2: x(n), y1: y(m - s), y2: y(m + s), stroke}));
      group.append(el("circle", {cx: x(n), cy: y(m), r: 4, fill: stroke},
        el("title", {}, `${row.name}, ${shotsText(n)}: ${accuracy([m, s]).text}`)));
    }
    svg.append(group);
  }
  return svg;
}

function drawBars(lines, width) {
  const high = 40, svg = frame(width, lines.length * high + 8, "Accuracy; the tables hold the same numbers");
  const most = Math.max(1, ...lines.map(({pairs: [pair]}) => pair ? pair[0] + (pair[1] ?? 0) : 0));
  lines.forEach(({row, k, pairs: [pair]}, i) => {
    if (!pair) return;
    const y = i * high + 4, long = (width - 120) * pair[0] / most;
    svg.append(el("text", {x: 0, y: y + 12}, row.name),
      el("rect", {x: 0, y: y + 17, width: long, height: 14, rx: 2, fill: COLOURS[k % COLOURS.length]}),
      el("text", {x: long + 8, y: y + 29}, accuracy(pair).text));
  });
  return svg;
}

function perTask() {
  const place = el("div"), names = table.tasks.map(([name]) => name);
  const which = choice("Shots", table.shots.map((n, i) => [i, shotsText(n)]), draw);
  function draw() {
    const at = Number(which.value || 0), rows = table.rows.filter(row => row.per_task[at]);
    const values = rows.map(row => [row.cells.length ? row.cells[at] : row.average, ...row.per_task[at]]);
    const most = ["", ...names].map((_, t) => Math.max(...values.map(own => Number(fixed(own[t][0])))));
    place.replaceChildren(makeTable("Accuracy of each task in percent, mean ± standard deviation over seeds",
      ["method", "average", ...names], rows.map((row, i) => [row.name, ...values[i].map((pair, t) =>
        accuracy(pair, rows.length > 1 && Number(fixed(pair[0])) === most[t]))])));
  }
  draw();
  return section("tasks", "Accuracy of each task", ...table.shots.length ? [el("div", {class: "choose"}, which)] : [],
    place);
}

function contexts() {
  if (!table.contexts.length) return null;
  const names = table.tasks.map(([name]) => name);
  return section("contexts", "Similarity of the task contexts", table.contexts.map(found => {
    const of = `${found.name}, ${shotsText(found.shots)}, seed ${found.seed}`;
    const low = Math.min(...found.matrix.flat());
    const digits = Math.min(5, Math.max(2, 1 + Math.ceil(-Math.log10(Math.max(1 - low, 1e-6)))));  // tell them apart
    const cell = value => ({text: fixed(value, digits), style: heat(low < 1 ? (value - low) / (1 - low) : 1)});
    return makeTable(`${of}: cosine similarity of the contexts of two tasks`, ["task", ...names],
      found.matrix.map((line, t) => [names[t], ...line.map(cell)]), {sort: false, kind: "matrix"});
  }));
}

function confusions() {
  const place = el("div");
  const unique = list => [...new Map(list.map(item => [String(item[0]), item])).values()];
  const method = choice("Method", [], update);
  method.fill(table.rows.map((row, k) => [k, row.name]), table.best.at(-1)[0]);
  const shots = choice("Shots", [], update), seed = choice("Seed", [], update);
  const task = choice("Task", table.tasks.map(([name], t) => [t, name]), draw);
  function update() {
    const own = table.runs.filter(run => run.row === Number(method.value));
    shots.fill(unique(own.map(run => [run.shots, run.shots === null ? "none (zero-shot)" : String(run.shots)])));
    const at = own.filter(run => String(run.shots) === shots.value);
    seed.fill(unique(at.map(run => [run.seed, run.seed === null ? "none" : String(run.seed)])));
    draw();
  }
  function draw() {
    const run = table.runs.find(run => run.row === Number(method.value) && String(run.shots) === shots.value
      && String(run.seed) === seed.value);
    place.replaceChildren(el("p", {class: "soft"}, `Run ${run.path}`), ...ofTask(run, Number(task.value)));
  }
  update();
  return section("confusions", "What is confused with what",
    el("div", {class: "choose"}, method, shots, seed, task), place);
}

function ofTask(run, t) {
  if (!run.details) return [el("p", {}, "The confusions of this run are left out: the page would be too large.")];
  const found = run.details[t];
  if (found.error) return [el("p", {}, `There is no confusion matrix: ${found.error}`)];
  const classes = data.classes[found.classes], n = classes.length;
  const counts = new Map(), total = Array(n).fill(0), predicted = Array(n).fill(0), right = Array(n).fill(0);
  for (let k = 0; k < found.cells.length; k += 2) {
    const [place, count] = [found.cells[k], found.cells[k + 1]], i = Math.floor(place / n), j = place % n;
    counts.set(place, count);
    total[i] += count;
    predicted[j] += count;
    if (i === j) right[i] = count;
  }
  const nodes = [];
  if (n <= 60) {
    nodes.push(makeTable("Confusion matrix: test images of each true class (rows) by predicted class (columns)",
      ["true class", ...classes], classes.map((name, i) => [name, ...classes.map((other, j) => {
        const count = counts.get(i * n + j) ?? 0;
        return {text: count ? String(count) : "", title: `${name} as ${other}: ${count} of ${total[i]}`,
                style: count ? heat(count / total[i], i !== j) : null};
      })]), {sort: false, kind: "matrix tall"}));
  } else nodes.push(el("p", {}, `The matrix of ${n} classes is too large to be shown; its worst confusions follow.`));
  nodes.push(el("h3", {}, "Worst confusions"));
  if (!found.worst.length) nodes.push(el("p", {}, "No image was confused."));
  else {
    const named = found.worst.some(([, , , images]) => images.length);
    nodes.push(makeTable("The largest numbers of images of a class predicted as another, and their share of the class"
      + (named ? "; the images with the highest probability of the wrong class" : ""),
      ["true class", "predicted", "images", "share", ...named ? ["the surest"] : []],
      found.worst.map(([i, j, count, images]) => [classes[i], {text: classes[j], kind: "text"}, number(count, 0),
        {text: `${fixed(100 * count / total[i], 0)}%`, value: count / total[i]},
        ...named ? [{kind: "images", value: images.length ? images[0][1] : null,
                     node: el("div", {}, images.map(picture))}] : []]), {kind: "worst"}));
  }
  if (found.no_images) nodes.push(el("p", {}, `Which images these are is not known: ${found.no_images}`));
  const share = (a, b) => b ? number(100 * a / b, 1) : {text: "", value: null};
  nodes.push(el("h3", {}, "Classes"), makeTable("Test images, and accuracy, precision and F1 in percent",
    ["class", "images", "accuracy", "precision", "F1"], classes.map((name, i) => [name, number(total[i], 0),
      share(right[i], total[i]), share(right[i], predicted[i]), share(2 * right[i], total[i] + predicted[i])]),
    {kind: "tall"}));
  return nodes;
}

function picture([i, probability]) {
  const name = data.images[i], uri = data.thumbnails[i];
  return el("figure", {title: `${name}, probability ${probability}`},
    uri ? el("img", {src: uri, alt: name}) : el("div", {class: "none"}, name.split("/").at(-1)),
    el("figcaption", {}, `${fixed(100 * probability, 0)}%`));
}

function settings() {
  const headers = ["key", ...table.rows.map(row => row.name)], text = value => ({text: value, kind: "text"});
  return section("settings", "Settings",
    table.differ.length ? makeTable("Settings that differ between the methods", headers,
      table.differ.map(([key, values]) => [key, ...values.map(text)]), {kind: "tall"})
      : el("p", {}, "All runs have the same settings, or do not say them."),
    el("details", {}, el("summary", {}, `The ${table.same.length} settings that all have in common`),
      makeTable("Settings of all methods", ["key", "value"], table.same.map(([key, value]) => [key, text(value)]))));
}

function times() {
  const rows = table.runs.map(run => [table.rows[run.row].name, {text: String(run.shots ?? ""), value: run.shots},
    {text: String(run.seed ?? ""), value: run.seed}, number(run.train, 1), number(run.test, 1), number(run.memory, 0),
    run.device, {text: run.path, kind: "text"}]);
  return section("times", "Times", makeTable(
    "Seconds of training and testing, with making the images' features; peak memory, of the GPU where there is one",
    ["method", "shots", "seed", "training (s)", "test (s)", "peak memory (MiB)", "device", "folder"], rows,
    {kind: "tall"}));
}

function leftOut() {
  if (!data.left_out.length) return null;
  return section("left-out", "Left out",
    el("ul", {}, data.left_out.map(([path, reason]) => el("li", {}, `${path}: ${reason}`))));
}

function draw(k) {
  table = data.tables[k];
  const sections = [results(), perTask(), contexts(), confusions(), settings(), times(), leftOut()].filter(Boolean);
  main.replaceChildren(el("nav", {"aria-label": "Sections"}, sections.map(node =>
    el("a", {href: `#${node.id}`}, node.firstChild.textContent))), ...sections);
}

const main = el("main");
document.body.append(el("header", {}, el("h1", {}, `Report of ${data.folder.split("/").at(-1)}`),
  el("p", {class: "soft"}, `${data.folder}, ${data.made}`), data.notes.map(note => el("p", {}, note)),
  data.tables.length > 1 ? el("div", {class: "choose"},
    choice("Table", data.tables.map((own, k) => [k, own.title]), draw)) : null), main);
draw(0);
