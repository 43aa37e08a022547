"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const COLOURS = ["#3b7dd8", "#e07b39", "#2f9e5f", "#cf4f4f", "#8d6cc3", "#a07a4f", "#d065a5", "#808890", "#9c9a2b",
                 "#2fa3b3", "#5f5fe0", "#c0902a"];
const DASHES = [[null, "6 4"], ["2 3", "12 3 2 3"], ["8 2", "2 6"]];  // of each dozen of lines; the second: zero-shot
const TOO_LARGE = "What this run got wrong is left out: the page would be too large.";
const MOST_CELLS = 60;  // classes of a confusion matrix that is shown
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
  ? {text: fixed(pair[0]) + (pair[1] === null ? "" : ` ± ${fixed(pair[1])}`), value: pair[0], bold, pair}
  : {text: "", value: null};
const mean = list => list.reduce((a, b) => a + b, 0) / list.length;
const colour = k => COLOURS[k % COLOURS.length];
const dash = (k, row) => DASHES[Math.floor(k / COLOURS.length) % DASHES.length][row.zero_shot ? 1 : 0];
const heat = (share, wrong) => `background: rgb(var(--${wrong ? "wrong" : "heat"}) / ${(0.75 * share).toFixed(3)})`;

function td(cell, first) {
  if (typeof cell === "string") cell = {text: cell};
  const content = cell.node ?? (cell.bold ? el("strong", {}, cell.text) : cell.text);
  return first ? el("th", {scope: "row"}, el("span", {}, content))
    : el("td", {class: cell.kind, style: cell.style, title: cell.title}, content);
}

// Buttons that copy and save the lines of texts that `lines` returns.
function exports(caption, lines) {
  const quoted = text => /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  const join = (by, change) => lines().map(line => line.map(change).join(by)).join("\r\n") + "\r\n";
  const name = `${caption.split(/[:;,]/)[0].replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 60)}.csv`;
  const copy = el("button", {type: "button", onclick: async () => {
    try {
      await navigator.clipboard.writeText(join("\t", text => text.replace(/\s+/g, " ")));
      copy.textContent = "Copied";
    } catch { copy.textContent = "The browser does not allow it"; }
  }}, "Copy");
  return el("div", {class: "tools"}, copy, el("button", {type: "button", onclick: () =>
    el("a", {href: `data:text/csv;charset=utf-8,${encodeURIComponent("\ufeff" + join(",", quoted))}`,
      download: name}).click()}, "Save as CSV"));
}

// A table in a box of its own. Headers are texts; cells are texts or {text, value, bold, style, title, kind, node,
// pair}, of which `value` sorts; a pair, mean and deviation, has two columns in a CSV file.
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
      lines.sort((a, b) => compare(key(a, column), key(b, column)));
      body.append(...lines.map(line => line.tr));
    };
    th.append(sort && rows.length > 1 ? el("button", {type: "button", onclick: by}, text) : text);
    return th;
  });
  const twice = headers.map((_, column) => rows.some(row => (row[column].pair?.[1] ?? null) !== null));
  const texts = () => [headers.flatMap((text, i) => twice[i] ? [text, `${text} std`] : [text]),
    ...lines.map(({row}) => row.flatMap((cell, i) => twice[i] ? [fixed(cell.pair?.[0]), fixed(cell.pair?.[1])]
      : [typeof cell === "string" ? cell : cell.text ?? ""]))];
  return el("div", {}, el("div", {class: `box ${kind}`, tabindex: 0, role: "region", "aria-label": caption},
    el("table", {class: kind}, el("caption", {}, el("span", {}, caption)), el("thead", {}, el("tr", {}, heads)), body)),
  exports(caption, texts));
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

// Select boxes of a run, which begin with the best method and the most shots; `draw` gets the run.
function runChoice(draw) {
  const method = choice("Method", table.rows.map((row, k) => [k, row.name]), update);
  const shots = choice("Shots", [], update), seed = choice("Seed", [], update);
  const of = () => table.runs.filter(run => run.row === Number(method.value));
  const at = () => of().filter(run => String(run.shots) === shots.value);
  function update() {
    const known = [...table.shots].reverse().filter(n => of().some(run => run.shots === n));
    shots.fill(known.length ? known.map(n => [n, shotsText(n)]) : [[null, "none (zero-shot)"]]);
    seed.fill(at().map(run => [run.seed, run.seed === null ? "none" : String(run.seed)]));
    draw(at().find(run => String(run.seed) === seed.value));
  }
  method.fill(table.rows.map((row, k) => [k, row.name]), table.ranked[0]);
  return {boxes: [method, shots, seed], update};
}

function results() {
  const order = table.shots.map((n, i) => [n, i]).reverse();  // the most shots stand first
  const rows = table.rows.map((row, i) => {
    const cells = [...row.cells, row.average].map((pair, j) => accuracy(pair, table.best[j].includes(i)));
    return [row.name, ...order.map(([, j]) => cells[j]), cells.at(-1),
      {text: row.params, value: Number(row.params.split(" ")[0].replaceAll(",", ""))},
      {text: row.minutes, value: row.minutes === "" ? null : Number(row.minutes)}];
  });
  return section("results", "Results",
    makeTable(`${table.title}: accuracy in percent, mean ± standard deviation over seeds`,
      ["method", ...order.map(([n]) => shotsText(n)), "average", "#Params", "train (min)"], rows), chart());
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
    }}, el("svg", {width: 26, height: 10, "aria-hidden": "true"}, el("line", {x1: 0, x2: 26, y1: 5, y2: 5,
      stroke: colour(k), "stroke-width": 3, "stroke-dasharray": dash(k, row)})), row.name);
    return button;
  }));
  function points(row) {
    return which.value === "" ? row.cells.length ? row.cells : [row.average]
      : row.per_task.map(own => own && own[which.value]);
  }
  function draw() {
    const width = Math.max(280, Math.min(place.clientWidth || 720, 820));
    const shown = table.rows.map((row, k) => ({row, k, pairs: points(row)})).filter(line => !hidden.has(line.k));
    const chance = table.chance && (which.value === "" ? mean(table.chance) : table.chance[which.value]);
    place.replaceChildren((table.shots.length > 1 ? drawLines : drawBars)(shown, chance, width));
  }
  new ResizeObserver(draw).observe(place);
  return el("div", {}, el("h3", {}, "Accuracy against shots"), el("div", {class: "choose"}, which), place, legend);
}

function frame(width, height, text) {
  return el("svg", {width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": text});
}

function drawLines(lines, chance, width) {
  const height = Math.round(Math.min(420, width * 0.7)), [left, right, top, bottom] = [48, 16, 12, 44];
  const svg = frame(width, height, "Accuracy against shots; the tables hold the same numbers");
  const values = lines.flatMap(line => line.pairs.filter(Boolean).flatMap(([m, s]) => [m - (s ?? 0), m + (s ?? 0)]));
  if (!values.length) return svg;
  if (chance) values.push(chance);
  const span = Math.max(1, Math.max(...values) - Math.min(...values));
  const step = [0.2, 0.5, 1, 2, 5, 10, 20].find(size => span / size <= 6) ?? 25;
  const low = Math.floor(Math.min(...values) / step) * step;
  const high = Math.max(low + step, Math.ceil(Math.max(...values) / step) * step);
  const log = n => Math.log2(n === -1 ? 2 * Math.max(...table.shots) : n);  // all images stand at the right end
  const [first, last] = [log(table.shots[0]), log(table.shots.at(-1))];
  const x = n => left + 12 + (width - left - right - 24) * (log(n) - first) / (last - first);
  const y = value => height - bottom - (height - top - bottom) * (value - low) / (high - low);
  for (let i = 0; low + i * step <= high + 1e-9; i++) {
    const value = low + i * step;
    svg.append(el("line", {x1: left, x2: width - right, y1: y(value), y2: y(value), stroke: "var(--line)"}),
      el("text", {x: left - 8, y: y(value) + 4, "text-anchor": "end"}, String(Number(value.toFixed(1)))));
  }
  const text = (x, y, words, more) => el("text", {x, y, "text-anchor": "middle", ...more}, words);
  svg.append(...table.shots.map(n => text(x(n), height - bottom + 18, n === -1 ? "all" : String(n))),
    text((left + width - right) / 2, height - 6, "training images per class"),
    text(12, (height - bottom) / 2, "accuracy (%)", {transform: `rotate(-90 12 ${(height - bottom) / 2})`}));
  const levels = lines.filter(line => line.row.zero_shot).map(({row, pairs: [[m]]}) => [row.name, m]);
  if (chance) {
    levels.push(["chance", chance]);
    svg.append(el("line", {x1: left, x2: width - right, y1: y(chance), y2: y(chance), class: "chance"}));
  }
  for (const {row, k, pairs} of lines) {
    const stroke = colour(k), group = el("g", {}, el("title", {}, row.name));
    const found = table.shots.map((n, i) => [n, pairs[i]]).filter(([, pair]) => pair);
    const path = found.map(([n, [m]], i) => `${i ? "L" : "M"}${x(n).toFixed(1)} ${y(m).toFixed(1)}`).join("");
    group.append(el("path", {d: path, fill: "none", stroke, "stroke-width": 2,
      "stroke-dasharray": dash(k, row)}));
    for (const [n, [m, s]] of row.zero_shot ? [] : found) {
      if (s !== null) group.append(el("line", {x1: x(n), x2: x(n), y1: y(m - s), y2: y(m + s), stroke}));
      group.append(el("circle", {cx: x(n), cy: y(m), r: 4, fill: stroke},
        el("title", {}, `${row.name}, ${shotsText(n)}: ${accuracy([m, s]).text}`)));
    }
    svg.append(group);
  }
  svg.append(...levels.map(([name, value]) => el("text", {x: width - right, y: y(value) - 4, "text-anchor": "end",
    class: "level"}, `${name} ${fixed(value, 1)}%`)));
  return svg;
}

function drawBars(lines, chance, width) {
  const high = 40, bottom = lines.length * high + 8;
  const levels = lines.filter(line => line.row.zero_shot && lines.length > 1)
    .map(({row, pairs: [[m]]}) => [row.name, m]);
  if (chance) levels.push(["chance", chance]);
  const svg = frame(width, bottom + 18 * levels.length, "Accuracy; the tables hold the same numbers");
  const most = Math.max(1, ...levels.map(([, m]) => m), ...lines.map(({pairs: [pair]}) => pair ? pair[0] : 0));
  const x = value => (width - 120) * value / most;
  lines.forEach(({row, k, pairs: [pair]}, i) => {
    if (!pair) return;
    const y = i * high + 4;
    svg.append(el("text", {x: 0, y: y + 12}, row.name),
      el("rect", {x: 0, y: y + 17, width: x(pair[0]), height: 14, rx: 2, fill: colour(k)}),
      el("text", {x: x(pair[0]) + 8, y: y + 29}, accuracy(pair).text));
  });
  levels.forEach(([name, value], i) => svg.append(
    el("line", {x1: x(value), x2: x(value), y1: 0, y2: bottom + 18 * i + 4, class: "chance"}),
    el("text", {x: x(value), y: bottom + 18 * i + 14, "text-anchor": x(value) > width / 2 ? "end" : "start",
      class: "level"}, `${name} ${fixed(value, 1)}%`)));
  return svg;
}

// Methods are rows, or tasks where there are many.
function perTask() {
  const place = el("div"), names = table.tasks.map(([name]) => name);
  const which = choice("Shots", table.shots.map((n, i) => [i, shotsText(n)]).reverse(), draw);
  function draw() {
    const at = Number(which.value || 0), rows = table.rows.filter(row => row.per_task[at]);
    const values = rows.map(row => [row.cells.length ? row.cells[at] : row.average, ...row.per_task[at]]);
    const most = ["", ...names].map((_, t) => Math.max(...values.map(own => Number(fixed(own[t][0])))));
    const grid = rows.map((row, i) => [row.name, ...values[i].map((pair, t) =>
      accuracy(pair, rows.length > 1 && Number(fixed(pair[0])) === most[t]))]);
    if (table.chance) grid.push(["chance", ...[mean(table.chance), ...table.chance].map(x => accuracy([x, null]))]);
    const heads = ["average", ...names], turn = names.length > Math.min(8, rows.length);
    place.replaceChildren(makeTable("Accuracy of each task in percent, mean ± standard deviation over seeds",
      turn ? ["task", ...grid.map(([name]) => name)] : ["method", ...heads],
      turn ? heads.map((name, t) => [name, ...grid.map(row => row[t + 1])]) : grid));
  }
  draw();
  return section("tasks", "Accuracy of each task", ...table.shots.length ? [el("div", {class: "choose"}, which)] : [],
    place);
}

function twoMethods() {
  if (table.rows.length < 2) return null;
  const place = el("div"), names = table.rows.map((row, k) => [k, row.name]);
  const a = choice("Method A", names, draw), b = choice("Method B", names, draw);
  const which = choice("Shots", table.shots.map((n, i) => [i, shotsText(n)]).reverse(), draw);
  a.fill(names, table.ranked[0]);
  b.fill(names, table.ranked[1] ?? names.find(([k]) => k !== table.ranked[0])[0]);
  function draw() {
    const at = Number(which.value || 0), chosen = [Number(a.value), Number(b.value)];
    const turned = chosen[0] > chosen[1], pair = turned ? [chosen[1], chosen[0]] : chosen;
    const found = table.compared[[...pair, at].join(" ")];
    const [one, other] = chosen.map(k => table.rows[k].per_task[at]);
    if (chosen[0] === chosen[1] || !one || !other) {
      place.replaceChildren(el("p", {}, one && other ? "Choose two methods."
        : "One of them has no run with these shots."));
      return;
    }
    const means = list => [...list.map(([m]) => m), mean(list.map(([m]) => m))];
    const [left, right] = [means(one), means(other)];
    const rows = [...table.tasks.map(([name]) => name), "all tasks"].map((name, t) => {
      const [first, second, p] = found ? found.tests[t] : [], only = turned ? [second, first] : [first, second];
      const gap = left[t] - right[t];
      return [name, number(left[t], 2), number(right[t], 2), {text: (gap > 0 ? "+" : "") + fixed(gap), value: gap},
        ...found ? [...only.map(n => number(n, 0)), {text: p < 0.001 ? "< 0.001" : fixed(p, 3), value: p}] : []];
    });
    const names = chosen.map(k => table.rows[k].name), p = found?.tests.at(-1)[2];
    const seeds = found && found.seeds[0] !== null ? `; seeds ${found.seeds.join(", ")}` : "";
    place.replaceChildren(el("p", {}, found
      ? `Over all tasks the difference ${p < 0.05 ? "is hardly luck" : "may be luck"}.`
      : "There is no test of the difference: it takes predictions.csv of both (TEST.SAVE_PREDICTIONS True), of a seed "
        + "that both have and on the same test images."),
    makeTable("Two methods, accuracy in percent" + (found ? "; the images that only one gets right, and the p-value of "
      + `McNemar's test on them${seeds}; each image counts once for each seed, so p is too small where seeds err alike`
      : ""),
    ["task", ...names, "difference", ...found ? [`only ${names[0]}`, `only ${names[1]}`, "p"] : []], rows));
  }
  draw();
  return section("compare", "Two methods side by side",
    el("div", {class: "choose"}, a, b, ...table.shots.length ? [which] : []), place);
}

function errors() {
  const place = el("div");
  const chosen = runChoice(run => {
    const shown = (run.surest ?? []).map(([t, truth, prediction, ...found]) =>
      picture(found, table.tasks[t][0], truth, prediction, true));
    place.replaceChildren(el("p", {class: "soft"}, `Run ${run.path}`), ...run.details ? shown.length
      ? [el("p", {}, "The wrong predictions with the highest probability, over all tasks. A click enlarges an image."),
         el("div", {class: "gallery"}, shown)]
      : [el("p", {}, run.no_images ? `Which images are wrong is not known: ${run.no_images}` : "No image is wrong.")]
      : [el("p", {}, TOO_LARGE)]);
  });
  chosen.update();
  return section("errors", "Worst errors", el("div", {class: "choose"}, chosen.boxes), place);
}

function calibration() {
  const place = el("div"), task = choice("Task", table.tasks.map(([name], t) => [t, name]), () => draw(shown));
  let shown;
  function draw(run) {
    shown = run;
    if (!run.details) {
      place.replaceChildren(el("p", {}, TOO_LARGE));
      return;
    }
    const all = run.details.map(found => found.calibration), own = all[Number(task.value)];
    const columns = [["images", "total", 0], ["accuracy", "accuracy", 2], ["error", "expected_calibration_error", 2],
      ["by chance", "error_of_true_probabilities", 2],
      ["error before", "uncalibrated_error", 2], ["temperature", "temperature", 3]]
      .filter(([, key]) => all.some(one => (one[key] ?? null) !== null));
    const nodes = [el("p", {class: "soft"}, `Run ${run.path}`)];
    if (!columns.length) nodes.push(el("p", {}, "This run has no metrics.json, which holds these figures."));
    else {
      nodes.push(makeTable("Calibration error in percent: the mean distance between probability and accuracy, what of it "
        + "is chance with so few images"
        + (columns.some(([, key]) => key === "temperature") ? ", and before the probabilities were calibrated" : ""),
      ["task", ...columns.map(([head]) => head)],
      all.map((one, t) => [table.tasks[t][0], ...columns.map(([, key, digits]) => number(one[key] ?? null, digits))])));
      nodes.push(el("h3", {}, table.tasks[Number(task.value)][0]));
      if (!own.reliability && !own.coverage) {
        nodes.push(el("p", {}, "Its metrics.json has no more than this: an older version wrote it."));
      }
    }
    if (own.reliability) {
      nodes.push(drawReliability(own.reliability), makeTable("Images by probability: on the dashed line of the chart "
        + "probability and accuracy agree, below it the method is too sure; a larger circle stands for more images",
      ["mean probability (%)", "accuracy (%)", "images"],
      own.reliability.map(([n, p, right]) => [fixed(p, 1), number(right, 1), number(n, 0)]), {sort: false}));
    }
    if (own.coverage) {
      nodes.push(makeTable("How many images keep their label, and how often it is right, where predict.py "
        + "--min-probability P leaves out the others",
      ["P", "images with a label (%)", "accuracy of these (%)"], own.coverage.map(([least, share, right]) =>
        [String(Number((least / 100).toFixed(4))), number(share, 1), number(right, 1)]), {sort: false}));
    }
    place.replaceChildren(...nodes);
  }
  const chosen = runChoice(draw);
  chosen.update();
  return section("calibration", "How far probabilities can be trusted",
    el("div", {class: "choose"}, chosen.boxes, task), place);
}

function drawReliability(bins) {
  const side = 300, edge = 44;
  const svg = frame(side + 8, side + 4, "Accuracy against probability; the table holds the same numbers");
  const at = percent => edge + (side - edge - 8) * percent / 100, up = percent => side - at(percent);
  const most = Math.max(...bins.map(([n]) => n));
  for (const tick of [0, 25, 50, 75, 100]) {
    svg.append(el("line", {x1: at(0), x2: at(100), y1: up(tick), y2: up(tick), stroke: "var(--line)"}),
      el("text", {x: edge - 8, y: up(tick) + 4, "text-anchor": "end"}, String(tick)),
      el("text", {x: at(tick), y: up(0) + 18, "text-anchor": "middle"}, String(tick)));
  }
  svg.append(el("line", {x1: at(0), x2: at(100), y1: up(0), y2: up(100), class: "chance"}),
    el("path", {d: `M${bins.map(([, p, right]) => `${at(p).toFixed(1)} ${up(right).toFixed(1)}`).join("L")}`,
      fill: "none", stroke: COLOURS[0], "stroke-width": 2}),
    ...bins.map(([n, p, right]) => el("circle", {cx: at(p), cy: up(right), r: 3 + 7 * Math.sqrt(n / most),
      fill: COLOURS[0], "fill-opacity": 0.7},
      el("title", {}, `${n} images: ${fixed(p, 1)}% sure, ${fixed(right, 1)}% right`))),
    el("text", {x: at(50), y: side, "text-anchor": "middle"}, "probability (%)"),
    el("text", {x: 12, y: up(50), "text-anchor": "middle", transform: `rotate(-90 12 ${up(50)})`}, "accuracy (%)"));
  return svg;
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
  const place = el("div"), task = choice("Task", table.tasks.map(([name], t) => [t, name]), () => draw(shown));
  let shown;
  function draw(run) {
    shown = run;
    place.replaceChildren(el("p", {class: "soft"}, `Run ${run.path}`), ...ofTask(run, Number(task.value)));
  }
  const chosen = runChoice(draw);
  chosen.update();
  return section("confusions", "What is confused with what", el("div", {class: "choose"}, chosen.boxes, task), place);
}

function ofTask(run, t) {
  if (!run.details) return [el("p", {}, TOO_LARGE)];
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
  if (n <= MOST_CELLS) {
    nodes.push(makeTable("Confusion matrix: test images of each true class (rows) by predicted class (columns)",
      ["true class", ...classes], classes.map((name, i) => [name, ...classes.map((other, j) => {
        const count = counts.get(i * n + j) ?? 0;
        return {text: count ? String(count) : "", title: `${name} as ${other}: ${count} of ${total[i]}`,
                style: count ? heat(count / total[i], i !== j) : null};
      })]), {sort: false, kind: "matrix tall"}));
  }
  const images = new Map(found.worst.map(([i, j, , own]) => [i * n + j, own]));
  const worst = [...counts].filter(([place]) => Math.floor(place / n) !== place % n)
    .sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, n <= MOST_CELLS ? 10 : 50);
  nodes.push(el("h3", {}, "Most frequent confusions"));
  if (!worst.length) nodes.push(el("p", {}, "No image was confused."));
  else {
    const named = found.worst.some(([, , , own]) => own.length);
    nodes.push(makeTable("The largest numbers of images of a class predicted as another, and their share of the class"
      + (named ? "; the images with the highest probability of the wrong class" : ""),
      ["true class", "predicted", "images", "share", ...named ? ["the surest"] : []], worst.map(([place, count]) => {
        const [i, j] = [Math.floor(place / n), place % n], own = images.get(place) ?? [];
        return [classes[i], {text: classes[j], kind: "text"}, number(count, 0),
          {text: `${fixed(100 * count / total[i], 0)}%`, value: count / total[i]},
          ...named ? [{kind: "images", value: own.length ? own[0][1] : null,
            text: own.map(([k]) => data.images[k]).join(" "),
            node: el("div", {}, own.map(image => picture(image, table.tasks[t][0], classes[i], classes[j])))}] : []];
      }), {kind: "worst"}));
  }
  if (run.no_images) nodes.push(el("p", {}, `Which images these are is not known: ${run.no_images}`));
  const share = (a, b) => b ? number(100 * a / b, 1) : {text: "", value: null};
  nodes.push(el("h3", {}, "Classes"), makeTable("Test images, and accuracy, precision and F1 in percent",
    ["class", "images", "accuracy", "precision", "F1"], classes.map((name, i) => [name, number(total[i], 0),
      share(right[i], total[i]), share(right[i], predicted[i]), share(2 * right[i], total[i] + predicted[i])]),
    {kind: "tall"}));
  return nodes;
}

// An image with its probability, which a click enlarges; `words`: and with its classes below it.
function picture([i, probability], task, truth, prediction, words) {
  const name = data.images[i], uri = data.thumbnails[i], sure = `${fixed(100 * probability, 0)}%`;
  const about = () => [["true class", truth], ["predicted", `${prediction} (${sure})`], ["task", task], ["file", name]]
    .map(([key, text]) => el("p", {}, el("span", {class: "soft"}, `${key}: `), text));
  const enlarge = () => {
    dialog.replaceChildren(el("img", {src: uri, alt: name}), ...about(), el("button", {type: "button"}, "Close"));
    dialog.showModal();
  };
  return el("figure", {title: `${name}, probability ${probability}`},
    uri ? el("button", {type: "button", class: "picture", onclick: enlarge, "aria-label": `Enlarge ${name}`},
      el("img", {src: uri, alt: name})) : el("div", {class: "none"}, name.split("/").at(-1)),
    el("figcaption", {}, words ? about().slice(0, 3) : sure));
}

function settings() {
  const text = value => ({text: value ?? "", kind: "text"}), names = table.rows.map(row => row.name);
  return section("settings", "Settings", el("h3", {}, "They differ"),
    table.differ.length ? makeTable("Settings that differ between the methods that read them", ["key", ...names],
      table.differ.map(([key, values]) => [key, ...values.map(text)]), {kind: "tall"})
      : el("p", {}, "All runs have the same settings, or do not say them."),
    el("h3", {}, "They are the same"),
    el("details", {}, el("summary", {}, `${table.same.length} settings`),
      makeTable("Settings that are the same in all methods that read them", ["key", "value", "read by"],
        table.same.map(([key, value, rows]) => [key, text(value), text(rows.length === names.length ? "all methods"
          : rows.map(k => names[k]).join(", "))]))));
}

function times() {
  const rows = table.runs.map(run => [table.rows[run.row].name, {text: String(run.shots ?? ""), value: run.shots},
    {text: String(run.seed ?? ""), value: run.seed}, number(run.train, 1), number(run.test, 1), number(run.memory, 0),
    run.device ?? "", {text: run.path, kind: "text"}]);
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
  const sections = [results(), perTask(), twoMethods(), errors(), confusions(), calibration(), contexts(), settings(),
    times(), leftOut()].filter(Boolean);
  main.replaceChildren(el("p", {id: "verdict"}, table.verdict), el("nav", {"aria-label": "Sections"},
    sections.map(node => el("a", {href: `#${node.id}`}, node.firstChild.textContent))), ...sections);
}

const main = el("main"), dialog = el("dialog", {onclick: () => dialog.close()});
document.body.append(el("header", {}, el("h1", {}, `Report of ${data.folder.split("/").at(-1)}`),
  el("p", {class: "soft"}, `${data.folder}, ${data.made}`), data.notes.map(note => el("p", {}, note)),
  data.tables.length > 1 ? el("div", {class: "choose"},
    choice("Table", data.tables.map((own, k) => [k, own.title]), draw)) : null), main, dialog);
draw(0);
