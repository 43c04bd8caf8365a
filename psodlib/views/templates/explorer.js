// Crashes and hosts: filters, months, roll-out, fleet, list, or (data.parts) only some of them. One module for pages of the report
// (at the end) and for the notebook's widget (anywidget). Text of the evidence enters through textContent and attributes alone.
const SVG = "http://www.w3.org/2000/svg";
const ROW = 20, MONTHS = 46, ROLL = 46, GAP = 12, HOSTS = 25, ROWS = 50, DAY = 864e5;
const FIELDS = { module: "Module", version: "Version loaded", cluster: "Cluster", model: "Model", kind: "Kind", signature: "Signature" };
const COLUMNS = { time: "When (UTC)", host: "Host", kind: "Kind", module: "Module", version: "Version loaded", signature: "Signature" };
const UNKNOWN = "unknown";
const own = (map, key, none) => Object.hasOwn(map, key) ? map[key] : none;  // a host may be called "constructor"

function node(tag, attributes = {}, ...children) {
  const made = ["svg", "g", "rect", "circle", "line", "text"].includes(tag) || attributes.svg
    ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (name !== "svg" && value !== false && value !== null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter(child => child !== null));  // strings become text
  return made;
}

const stamp = time => time === null ? "time unknown" : new Date(time).toISOString().slice(0, 19).replace("T", " ");
const day = time => new Date(time).toISOString().slice(0, 10);
const number = (n, one, many) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
const address = (kind, name) => `${kind}=${name}`;
const href = (place, page = "") => page + "#" + encodeURIComponent(place).replace("%3D", "=");
const naming = value => value === "" || value === null ? UNKNOWN : value;

export function render({ model, el }) {
  const data = model.get("data"), narrow = el.clientWidth > 0 && el.clientWidth < 600;  // a telephone
  const WIDE = narrow ? 480 : 960, NAMES = narrow ? 106 : 150, LETTERS = narrow ? 12 : 20;
  const state = { filters: {}, search: "", first: "", last: "", sort: ["time", -1], hosts: HOSTS, rows: ROWS, zoom: data.span };
  const months = data.span ? monthsOf(data.span) : [];
  const watched = Object.values(data.boots).some(boots => boots.some(boot => boot.watched.some(([from, to]) => to - from > DAY / 24)));
  const shows = part => (!data.parts || data.parts.includes(part)) && (part !== "rollout" || watched);
  const root = node("div", { class: "psx" }), tip = node("div", { class: "tip", "aria-hidden": "true" });
  const bars = node("div", { class: "filters", role: "group", "aria-label": "Filters" });
  const total = node("p", { "aria-live": "polite" }), drawing = node("div"), list = node("div"), chosen = node("div", { class: "chosen" });
  root.append(...(shows("list") ? [bars, total, drawing, list, chosen] : [drawing]), tip);
  el.append(root);

  // ---- what is under the pointer, or has the focus ----
  function point(event) {
    const marked = event.target.closest("[data-tip]");
    tip.textContent = marked ? marked.dataset.tip : "";
    if (!marked) return;
    const box = root.getBoundingClientRect(), mark = marked.getBoundingClientRect();
    const x = event.type === "focusin" ? mark.left : event.clientX;
    tip.style.left = `${Math.max(0, Math.min(x - box.left + 12, box.width - tip.offsetWidth))}px`;
    tip.style.top = `${mark.bottom - box.top + 6}px`;
  }
  for (const kind of ["pointermove", "focusin"]) drawing.addEventListener(kind, point);
  for (const kind of ["pointerleave", "focusout"]) drawing.addEventListener(kind, () => { tip.textContent = ""; });

  const place = () => model.get("chosen") || "";
  const go = to => event => { event.preventDefault(); model.set("chosen", to); model.save_changes(); };
  const link = (to, words, svg) => node("a", { href: href(to, data.home), click: data.home ? false : go(to), svg }, ...[words].flat());

  // ---- which crashes ----
  function passes(crash, but) {
    for (const [name, value] of Object.entries(state.filters)) if (name !== but && crash[name] !== value) return false;
    if (state.search && !crash.host.toLowerCase().includes(state.search)) return false;
    if (but === "month" || !(state.first || state.last)) return true;
    const month = crash.time === null ? "" : day(crash.time).slice(0, 7);
    return month !== "" && month >= (state.first || "0") && month <= (state.last || "9");
  }
  const counted = (name) => {
    const counts = new Map();
    for (const crash of data.crashes) if (passes(crash, name)) counts.set(crash[name], (counts.get(crash[name]) || 0) + 1);
    if (name in state.filters && !counts.has(state.filters[name])) counts.set(state.filters[name], 0);
    return [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  };

  // ---- filters ----
  function select(words, options, value, change) {
    const box = node("select", { change: event => { change(event.target.value); draw(); } });
    for (const [key, text] of options) box.append(node("option", { value: key, selected: key === value }, text));
    return node("label", {}, node("span", {}, words), box);
  }
  function drawFilters() {
    const focused = bars.contains(document.activeElement) ? [...bars.querySelectorAll("select,input,button")].indexOf(document.activeElement) : -1;
    const all = Object.entries(FIELDS).map(([name, words]) => {
      const counts = counted(name), sum = counts.reduce((n, each) => n + each[1], 0);
      const options = [["*", `any (${sum})`], ...counts.map(([value, n]) => ["=" + value, `${naming(value)} (${n})`])];
      return select(words, options, name in state.filters ? "=" + state.filters[name] : "*", value => {
        if (value === "*") delete state.filters[name]; else state.filters[name] = value.slice(1);
      });
    });
    const spans = [["", "any"], ...months.map(month => [month, month])];
    const search = node("input", { type: "search", value: state.search, input: event => { state.search = event.target.value.trim().toLowerCase(); draw(); } });
    const clear = node("button", { type: "button", click: () => {
      Object.assign(state, { filters: {}, search: "", first: "", last: "", zoom: data.span, hosts: HOSTS, rows: ROWS }); draw();
    } }, "Clear filters");
    bars.replaceChildren(...all, select("From month", spans, state.first, value => { state.first = value; fit(); }),
      select("To month", spans, state.last, value => { state.last = value; fit(); }), node("label", {}, node("span", {}, "Host has"), search), clear);
    if (focused >= 0) {
      const again = bars.querySelectorAll("select,input,button")[focused];
      again.focus();
      if (again.type === "search") again.setSelectionRange(again.value.length, again.value.length);
    }
  }
  function fit() {
    const begin = state.first ? Date.parse(state.first + "-01") : data.span[0];
    const end = state.last ? monthAfter(state.last) : data.span[1];
    state.zoom = end > begin ? [begin, end] : data.span;
  }

  // ---- months, roll-out, timeline ----
  const at = time => NAMES + (WIDE - NAMES - 8) * Math.min(Math.max((time - state.zoom[0]) / (state.zoom[1] - state.zoom[0]), 0), 1);
  const seen = (from, to) => to >= state.zoom[0] && from <= state.zoom[1];
  function bar(y, high, from, to, attributes, about) {
    return node("rect", { x: at(from).toFixed(1), width: Math.max(at(to) - at(from) - 1, 0.8).toFixed(1), y: y.toFixed(1), height: high.toFixed(1), "data-tip": about, ...attributes });
  }
  function drawMonths(crashes) {
    const parts = [node("text", { x: 0, y: 14 }, "Crashes a month")], counts = new Map(), inside = new Map();
    const add = (map, crash) => map.set(day(crash.time).slice(0, 7), (map.get(day(crash.time).slice(0, 7)) || 0) + 1);
    for (const crash of data.crashes) if (crash.time !== null && passes(crash, "month")) add(counts, crash);
    for (const crash of crashes) if (crash.time !== null) add(inside, crash);
    const most = Math.max(1, ...counts.values());
    for (const [month, n] of counts) {
      const from = Date.parse(month + "-01"), to = monthAfter(month), high = (MONTHS - 6) * n / most;
      if (seen(from, to)) parts.push(bar(MONTHS - high, high, from, to, { class: inside.get(month) ? "month" : "month out" }, `${month}: ${number(n, "crash", "crashes")}`));
    }
    return parts;
  }
  function drawRollout(names, top) {
    // Watched host-days a week by loaded version, stacked, of the hosts that the filters leave.
    const step = Math.max(7 * DAY, (state.zoom[1] - state.zoom[0]) / 80), sums = new Map();
    for (const host of names) for (const boot of own(data.boots, host, [])) for (const [from, to] of boot.watched)
      for (let bin = Math.max(0, Math.floor((from - state.zoom[0]) / step)); state.zoom[0] + bin * step < Math.min(to, state.zoom[1]); bin++) {
        const begin = state.zoom[0] + bin * step, days = (Math.min(to, begin + step) - Math.max(from, begin)) / DAY;
        if (days > 0) { const row = sums.get(bin) || new Map(); row.set(boot.version, (row.get(boot.version) || 0) + days); sums.set(bin, row); }
      }
    const most = Math.max(1, ...[...sums.values()].map(row => [...row.values()].reduce((a, b) => a + b, 0)));
    const parts = [node("text", { x: 0, y: top + 14 }, "Watched, by version")];
    for (const [bin, row] of sums) {
      let y = top + ROLL;
      for (const name of [...data.versions.map(each => each[0]), ""]) {
        const days = row.get(name) || 0, high = (ROLL - 6) * days / most, begin = state.zoom[0] + bin * step;
        if (days) parts.push(bar(y -= high, high, begin, begin + step, { fill: colourOf(name) }, `From ${day(begin)}: ${days.toFixed(0)} host-days on ${data.module} ${naming(name)}`));
      }
    }
    return parts;
  }
  const colourOf = version => (data.versions.find(each => each[0] === version) || ["", "#8a8a8a"])[1];
  const dotOf = module => (data.modules.find(each => each[0] === module) || ["", "#8a8a8a"])[1];
  function hostsOf(crashes) {
    const counts = new Map();
    for (const crash of crashes) counts.set(crash.host, (counts.get(crash.host) || 0) + 1);
    const quiet = Object.keys(state.filters).some(name => name !== "cluster" && name !== "model") || state.first || state.last ? [] :
      data.hosts.filter(host => !counts.has(host.host) && host.host.toLowerCase().includes(state.search) &&
        (!("cluster" in state.filters) || host.cluster === state.filters.cluster) && (!("model" in state.filters) || host.model === state.filters.model)).map(host => host.host);
    const mine = data.crashes.find(crash => address("crash", crash.id) === place());
    return [...[...counts.keys()].sort((a, b) => (mine && (b === mine.host) - (a === mine.host)) || counts.get(b) - counts.get(a) || (a < b ? -1 : 1)), ...quiet];
  }
  function drawHost(host, y, crashes) {
    const short = host.length > LETTERS ? host.slice(0, LETTERS / 2 - 1) + "…" + host.slice(-LETTERS / 2) : host;
    const parts = [link(address("host", host), [node("text", { x: 0, y: y + 14, "data-tip": naming(host) }, naming(short))], true)];
    for (const boot of own(data.boots, host, [])) {
      if (!seen(boot.start, boot.end)) continue;
      const about = `${stamp(boot.start)} to ${stamp(boot.end)} UTC, ${data.module} ${naming(boot.version)}, ended by ${boot.reason}`;
      parts.push(bar(y + 5, 10, boot.start, boot.end, { fill: colourOf(boot.version), class: "pale" }, about + "; pale where nobody watched"));
      for (const [from, to] of boot.watched) if (seen(from, to)) parts.push(bar(y + 5, 10, from, to, { fill: colourOf(boot.version), class: "boot" }, about));
    }
    for (const crash of crashes) {
      if (crash.host !== host || crash.time === null || !seen(crash.time, crash.time)) continue;
      const mine = address("crash", crash.id) === place(), x = at(crash.time).toFixed(1);
      const words = `Crash, ${stamp(crash.time)} UTC, ${naming(crash.module)} ${naming(crash.version)}, ${naming(crash.signature)}`;
      const dot = link(address("crash", crash.id), [
        ...(mine ? [node("circle", { cx: x, cy: y + 10, r: 9, class: "ring" })] : []),
        node("circle", { cx: x, cy: y + 10, r: 5, class: "dot", fill: dotOf(crash.module) })], true);
      dot.setAttribute("aria-label", words);
      dot.dataset.tip = words;
      dot.setAttribute("class", "crash");
      parts.push(dot);
    }
    return parts;
  }
  function zoom(factor, middle = (state.zoom[0] + state.zoom[1]) / 2) {
    const half = [middle - (middle - state.zoom[0]) * factor, middle + (state.zoom[1] - middle) * factor];
    state.zoom = [Math.max(half[0], data.span[0]), Math.min(half[1], data.span[1])];
    if (state.zoom[1] - state.zoom[0] < DAY / 4) state.zoom = [middle - DAY / 8, middle + DAY / 8];
    drawTimeline(data.crashes.filter(crash => passes(crash)));
  }
  const pan = part => { const step = (state.zoom[1] - state.zoom[0]) * part;
    const move = Math.min(Math.max(step, data.span[0] - state.zoom[0]), data.span[1] - state.zoom[1]);
    state.zoom = state.zoom.map(time => time + move); drawTimeline(data.crashes.filter(crash => passes(crash))); };
  function drawTimeline(crashes) {
    const names = hostsOf(crashes), drawn = names.slice(0, state.hosts);
    if (!data.span || !names.length) { drawing.replaceChildren(node("p", {}, "No host of this selection has a time to be drawn at.")); return; }
    const months = shows("months") ? MONTHS + GAP : 0, top = months + (shows("rollout") ? ROLL + GAP : 0), high = top + ROW * drawn.length + 20;
    const ticks = (narrow ? [1, 3, 5] : [1, 2, 3, 4, 5]).map(i => state.zoom[0] + i * (state.zoom[1] - state.zoom[0]) / 6);
    const about = `Boots and crashes of ${number(drawn.length, "host", "hosts")}, ${day(state.zoom[0])} to ${day(state.zoom[1])}`;
    const svg = node("svg", { viewBox: `0 0 ${WIDE} ${high}`, role: "group", "aria-label": about, wheel: event => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      const box = svg.getBoundingClientRect(), x = (event.clientX - box.left) / box.width * WIDE;
      zoom(event.deltaY < 0 ? 0.7 : 1.4, state.zoom[0] + (x - NAMES) / (WIDE - NAMES) * (state.zoom[1] - state.zoom[0]));
    } },
      ...ticks.flatMap(time => [node("line", { x1: at(time), x2: at(time), y1: 0, y2: high - 18, class: "tick" }),
        node("text", { x: at(time), y: high - 4, "text-anchor": "middle" }, day(time))]),
      ...(shows("months") ? drawMonths(crashes) : []), ...(shows("rollout") ? drawRollout(names, months) : []), ...drawn.flatMap((host, i) => drawHost(host, top + i * ROW, crashes)));
    const chip = (colour, words, round) => node("span", { class: "key" }, node("i", { style: `background: ${colour}${round ? "; border-radius: 50%" : ""}` }), words);
    const button = (words, label, click) => node("button", { type: "button", "aria-label": label, click }, words);
    const more = drawn.length < names.length ? node("button", { type: "button", click: () => { state.hosts = names.length; draw(); } }, `Show all ${names.length.toLocaleString("en")} hosts`) : null;
    drawing.replaceChildren(
      node("p", { class: "tools" }, button("+", "Zoom in", () => zoom(0.5)), button("−", "Zoom out", () => zoom(2)), button("←", "Earlier", () => pan(-0.5)),
        button("→", "Later", () => pan(0.5)), button("All", "Whole time", () => { fit(); drawTimeline(crashes); }), " Ctrl and the wheel zoom too."),
      node("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Timeline" }, svg),
      node("p", {}, `${data.module}: `, ...data.versions.map(([name, colour]) => chip(colour, name)), chip("#8a8a8a", "version unknown")),
      node("p", {}, "Crashes by module: ", ...data.modules.map(([name, colour]) => chip(colour, name, true)), chip("#8a8a8a", "none found or other", true)),
      node("p", { class: "soft" }, `${about}. Solid: covered by evidence. Pale: up, but not watched. Empty: down or unknown. `, more));
  }

  // ---- list ----
  function drawList(crashes) {
    const [name, way] = state.sort;
    const key = crash => name === "time" ? crash.time ?? -Infinity : naming(crash[name]);
    const sorted = [...crashes].sort((a, b) => (key(a) < key(b) ? -way : key(a) > key(b) ? way : 0));
    const head = Object.entries(COLUMNS).map(([column, words]) => node("th", { scope: "col", "aria-sort": column === name ? (way < 0 ? "descending" : "ascending") : "none" },
      node("button", { type: "button", click: () => { state.sort = [column, column === name ? -way : column === "time" ? -1 : 1]; drawList(crashes);
        list.querySelectorAll("th button")[Object.keys(COLUMNS).indexOf(column)].focus(); } }, words + (column === name ? (way < 0 ? " ▼" : " ▲") : ""))));
    const tagged = Object.keys(data.tags).length > 0;
    if (tagged) head.push(node("th", { scope: "col" }, "Tags"));
    const rows = sorted.slice(0, state.rows).map(crash => node("tr", { class: address("crash", crash.id) === place() ? "chosen" : "" },
      node("td", { class: "whole" }, link(address("crash", crash.id), stamp(crash.time))), node("td", {}, link(address("host", crash.host), naming(crash.host))),
      ...["kind", "module", "version", "signature"].map(column => node("td", {}, naming(crash[column]))), tagged ? node("td", {}, own(data.tags, crash.id, "")) : null));
    const more = rows.length < sorted.length ? node("button", { type: "button", click: () => { state.rows = sorted.length; drawList(crashes); } }, `Show all ${sorted.length.toLocaleString("en")} crashes`) : null;
    list.replaceChildren(node("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Crashes" },
      node("table", {}, node("thead", {}, node("tr", {}, ...head)), node("tbody", {}, ...rows))), ...(more ? [more] : []));
  }

  // ---- what is chosen ----
  function drawChosen() {
    const [kind, name] = split(place());
    const copy = node("button", { type: "button", click: event => {
      const words = location.origin === "null" || location.protocol === "file:" ? location.href.split("#")[0] : location.origin + location.pathname;
      const told = text => () => { event.target.textContent = text; };
      navigator.clipboard ? navigator.clipboard.writeText(words + href(place())).then(told("Copied"), told(href(place()))) : told(href(place()))();
    } }, "Copy link");
    const crash = kind === "crash" && data.crashes.find(each => each.id === name);
    const host = kind === "host" && (data.hosts.find(each => each.host === name) || data.crashes.find(each => each.host === name));
    if (!kind) chosen.replaceChildren();
    else if (crash) chosen.replaceChildren(node("p", {}, node("b", {}, `Crash of ${naming(crash.host)}, ${stamp(crash.time)}`), " ", copy));
    else if (host) chosen.replaceChildren(...hostBox(name, host, copy));
    else chosen.replaceChildren(node("p", { role: "alert" }, `No ${kind} ${name} is in this evidence.`));
  }
  function hostBox(name, host, copy) {
    const boots = own(data.boots, name, []), crashes = data.crashes.filter(crash => crash.host === name);
    const rows = boots.map(boot => node("tr", {}, node("td", { class: "whole" }, stamp(boot.start)), node("td", { class: "whole" }, stamp(boot.end)),
      node("td", {}, naming(boot.version)), node("td", {}, boot.reason), node("td", {}, `${boot.watched.reduce((sum, [a, b]) => sum + (b - a) / DAY, 0).toFixed(1)} of ${((boot.end - boot.start) / DAY).toFixed(1)}`)));
    const heads = ["Booted (UTC)", "Ended (UTC)", `${data.module} loaded`, "Ended by", "Days watched"].map(words => node("th", { scope: "col" }, words));
    return [node("p", {}, node("b", {}, `Host ${naming(name)}`), `; cluster ${naming(host.cluster)}, model ${naming(host.model)} `, copy),
      node("p", {}, crashes.length ? `${number(crashes.length, "crash", "crashes")}: ` : "No crash of this host is in the evidence.",
        ...crashes.flatMap((crash, i) => [i ? ", " : "", link(address("crash", crash.id), stamp(crash.time))])),
      rows.length ? node("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Boots" }, node("table", {}, node("thead", {}, node("tr", {}, ...heads)), node("tbody", {}, ...rows)))
        : node("p", {}, "No boot of it is known.")];
  }

  function draw() {
    const crashes = data.crashes.filter(crash => passes(crash));
    drawTimeline(crashes);
    if (!shows("list")) return;
    drawFilters();
    const found = number(data.crashes.length, "crash", "crashes"), named = new Set(crashes.map(crash => crash.host).filter(host => host));
    const hosts = !named.size && crashes.length ? "hosts without a name" : number(named.size, "host", "hosts") + (crashes.every(crash => crash.host) ? "" : ", some on hosts without a name");
    total.textContent = !data.crashes.length ? "No crash was found in this evidence."
      : `${crashes.length < data.crashes.length ? `${crashes.length.toLocaleString("en")} of ${found}` : found} on ${hosts}.`;
    drawList(crashes);
    drawChosen();
  }
  if (!el.matches(".psx-page") && placeInAddress()) { model.set("chosen", placeInAddress()); model.save_changes(); }  // a copied link to a notebook
  model.on("change:chosen", draw);
  model.on("change:data", () => { Object.assign(data, model.get("data")); draw(); });
  draw();
}

function monthAfter(month) { const [year, number] = month.split("-").map(Number); return Date.UTC(year, number, 1); }
function monthsOf([begin, end]) {
  const months = [];
  for (let time = begin; months.length < 240 && time <= end; time = monthAfter(months.at(-1))) months.push(day(time).slice(0, 7));
  return months;
}
function split(place) { const at = place.indexOf("="); return at < 0 ? ["", ""] : [place.slice(0, at), place.slice(at + 1)]; }
function placeInAddress() {
  try { const place = decodeURIComponent(location.hash.slice(1)); return /^(crash|host)=/.test(place) ? place : ""; } catch { return ""; }
}

export default { render };

// ---- a page of the report: the address holds what is chosen, and the page has a section for each crash ----
for (const el of document.querySelectorAll(".psx-page")) {
  const data = JSON.parse(el.querySelector("script.psx-data").textContent), heard = [];
  const model = { get: name => name === "data" ? data : placeInAddress(), set: (_, place) => { location.hash = href(place); }, save_changes() {}, on: (name, f) => name === "change:chosen" && heard.push(f) };
  render({ model, el });
  if (data.home) continue;  // a picture whose links lead to the explorer's page
  const show = () => {
    for (const section of document.querySelectorAll("section[id^='crash=']")) section.hidden = section.id !== placeInAddress();
    const section = document.getElementById(placeInAddress());
    const target = section || (placeInAddress() ? el.querySelector("div.chosen") : null);
    if (target) { target.tabIndex = -1; target.focus({ preventScroll: true }); target.scrollIntoView(); }
  };
  addEventListener("hashchange", () => { heard.forEach(f => f()); show(); });
  show();
}
